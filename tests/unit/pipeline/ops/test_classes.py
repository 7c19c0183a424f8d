"""Classes, the merge tree and labels are those of slow references on every grid; broken rules are caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from class_cases import (
    Case,
    Result,
    Steps,
    hierarchical,
    random_case,
    slow_classes,
    slow_labels,
    slow_tree,
)

from pipeline.geometry import Box
from pipeline.ops import agglomerate as agglomeration
from pipeline.ops import classes as op
from pipeline.ops.classes import CONFLICT, Classes, Part, Tallied, decide, join, separate, tally
from pipeline.ops.edges import Edges
from pipeline.ops.evaluate import Pairs
from pipeline.ops.merge_tree import Merges, kept

SOUND = Steps()


def thresholds_of(case: Case, rng: np.random.Generator, scores: Sequence[float]) -> list[float]:
    return [case.floor, float(rng.choice(scores)) if scores else 1.0]


def wrong_on(case: Case, block: tuple[int, int, int], rng: np.random.Generator, steps: Steps = SOUND) -> bool:
    """Whether anything on this grid differs from the slow references."""
    classes = slow_classes(case)
    rows, apart = slow_tree(case, classes)
    thresholds = thresholds_of(case, rng, [row[0] for row in rows])
    found = hierarchical(case, block, thresholds, steps)
    if (found.classes, found.merges, found.apart) != (classes, sorted(rows), apart):
        return True
    return any(wrong_labels(case, found, classes, rows, threshold) for threshold in thresholds)


def wrong_labels(case: Case, found: Result, classes: dict[int, int], rows: list, threshold: float) -> bool:
    """Whether labels, or the classes of objects, differ; with the guard no object may hold two classes."""
    guarded, objects = found.labels[threshold, True], found.objects[threshold, True]
    if not np.array_equal(guarded, slow_labels(case, rows, classes, threshold)):
        return True
    for labels, listed in ((guarded, objects), (found.labels[threshold, False], found.objects[threshold, False])):
        kinds: dict[int, set[int]] = {}
        for segment, name in set(zip(labels.ravel().tolist(), case.labels.ravel().tolist(), strict=True)):
            kinds.setdefault(segment, set()).update({classes[name]} if name in classes else set())
        expected = [next(iter(k), 0) if len(k) < 2 else CONFLICT for k in map(kinds.get, listed.name.tolist())]
        assert listed.kind is not None
        if listed.kind.tolist() != expected:
            return True
        if labels is guarded and any(len(k) > 1 for name, k in kinds.items() if name):
            return True
    return False


def failures(seed: int, cases: int, steps: Steps = SOUND, enough: int = 1 << 30) -> int:
    """How many random volumes give something else on some grid."""
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(cases):
        case = random_case(rng)
        blocks = (case.roi.shape, tuple(int(n) for n in rng.integers(1, 4, 3)))
        found += any(wrong_on(case, block, rng, steps) for block in blocks)  # type: ignore[arg-type]
        if found >= enough:
            break
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_grid_gives_classes_tree_and_labels_of_the_slow_references(seed: int) -> None:
    assert failures(seed, 40) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 120))
def test_every_grid_often(seed: int) -> None:
    """20 x 120 volumes, each on two grids."""
    assert failures(seed, 120) == 0


# ---- controls: one rule broken -------------------------------------------------------------------------------------
def votes_of_pieces(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    """Every chunk decides on what it sees: a piece, and not the whole fragment."""
    found = tally(children, box, share=share, level=level)
    return replace(found, decided=op.together([decide(child.votes, share) for child in children]))


def without_until(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    return tally([replace(c, until=np.zeros_like(c.until)) for c in children], box, share=share, level=level)


def without_faces(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    return tally([replace(c, mask=np.zeros_like(c.mask)) for c in children], box, share=share, level=level)


def only_votes_for_a_class(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    """A share of the votes that were given, not of all voxels."""
    given = [replace(c, votes=op._take(c.votes, c.votes.truth != 0)) for c in children]
    return tally(given, box, share=share, level=level)


def more_than_the_share(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    return tally(children, box, share=share + 1, level=level)


@pytest.mark.parametrize(
    "broken", [votes_of_pieces, without_until, without_faces, only_votes_for_a_class, more_than_the_share]
)
def test_control_each_broken_rule_of_votes_is_caught(broken: op.Tallied) -> None:
    assert failures(70, 60, Steps(tally=broken), enough=3) == 3  # type: ignore[arg-type]


def test_control_of_equals_the_larger_number_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(votes: Pairs, share: int) -> Classes:
        flipped = np.where(votes.truth == 0, votes.truth, np.uint64(255) - votes.truth)
        found = decide(Pairs(flipped, votes.segment, votes.voxels), share)
        return Classes(found.name, np.uint16(255) - found.kind)

    monkeypatch.setattr(op, "decide", turned)
    assert failures(71, 60, enough=3) == 3


def test_control_edges_dropped_after_merging_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between clusters of different classes, when a chunk has merged what it can."""
    agglomerate = agglomeration.agglomerate

    def filtered(*args, **settings):
        found = agglomerate(*args, **settings)
        part = found.part
        edges, _ = separate(part.edges, Classes(part.name, part.kind))
        return replace(found, part=replace(part, edges=edges))

    monkeypatch.setattr("class_cases.agglomerate", filtered)
    assert failures(72, 60, Steps(separate=lambda edges, _: (edges, 0)), enough=3) == 3
    assert failures(72, 60, enough=3) == 3  # before merging as well as after: still wrong


def test_control_only_inner_edges_dropped_is_caught() -> None:
    def crossing_stay(edges: Edges, classes: Classes) -> tuple[Edges, int]:
        found, number = separate(edges, classes)
        return (edges, number) if edges.size < 8 else (found, number)

    assert failures(73, 60, Steps(separate=crossing_stay), enough=3) == 3


def test_control_a_guard_that_spares_the_merges_above_is_caught() -> None:
    """Only the merge in which two classes meet is refused: those above it join what hangs together no more."""

    def meeting_only(merges: Merges, *, threshold: float, one_class: bool) -> Merges:
        assert merges.kind is not None
        above = kept(merges, threshold=threshold)
        if not one_class:
            return above
        meets = np.zeros(above.size, bool)
        seen: set[int] = set()
        for row in np.argsort(-above.score, kind="stable"):
            meets[row] = above.conflicting[row] and not {int(above.a[row]), int(above.b[row])} & seen
            if above.conflicting[row]:
                seen |= {int(above.a[row]), int(above.b[row])}
        return above.take(~meets)

    assert failures(74, 100, Steps(keep=meeting_only), enough=3) == 3


@pytest.mark.parametrize("rule", ["first", "largest", "forgets"])
def test_control_classes_joined_wrongly_are_caught(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def joined(kind: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found = np.empty(a.size, np.uint16)
        for row, (one, other) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            first, second = int(kind[one]), int(kind[other])
            new = first or second
            if rule == "largest":
                new = max(first, second)
            elif rule == "forgets" and first and second and first != second:
                new = 0 if CONFLICT in (first, second) else CONFLICT
            kind[one] = found[row] = new
        return found

    monkeypatch.setattr(op, "join", joined)
    assert failures(75, 100, enough=3) == 3


# ---- by hand -------------------------------------------------------------------------------------------------------
def pairs_of(*rows: tuple[int, int, int]) -> Pairs:
    kind, fragment, voxels = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs(kind.astype(np.uint64), fragment.astype(np.uint64), voxels.astype(np.int64))


def test_most_votes_that_are_enough_and_of_equals_the_smaller_number() -> None:
    votes = pairs_of((0, 7, 5), (2, 7, 3), (3, 7, 2), (0, 8, 2), (4, 8, 4), (9, 8, 4), (0, 9, 1))
    assert dict(zip(decide(votes, 300).name.tolist(), decide(votes, 300).kind.tolist(), strict=True)) == {7: 2, 8: 4}
    assert decide(votes, 301).name.tolist() == [8]
    assert decide(votes, 400).name.tolist() == [8]
    assert decide(votes, 401).name.tolist() == []
    assert decide(votes, 0).name.tolist() == [7, 8]  # any vote at all
    assert decide(pairs_of((1, 7, 2**52), (0, 7, 2**52)), 500).kind.tolist() == [1]  # exact in 64 bits


def test_a_conflict_stays_one() -> None:
    a, b = np.array([0, 0, 0, 4], np.int32), np.array([1, 2, 3, 5], np.int32)
    assert join(np.array([0, 2, 3, 3, 0, 9], np.uint16), a, b).tolist() == [2, CONFLICT, CONFLICT, 9]
