"""Pairs of segments on every grid are those of plain Python on relabelled voxels; each rule broken is caught."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from contact_cases import Case, Voxel, climb, pairs_of, random_block, random_case, reference, rows_of

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import segment_pairs
from pipeline.ops.contact_merge import join_contacts
from pipeline.ops.contact_table import Adjacency, stack
from pipeline.ops.region_graph import nodes
from pipeline.ops.relabel import components, rename
from pipeline.ops.segment_pairs import PairRows, Reach, Stored, add, leaf, step

LEAST = 2
Names = tuple[np.ndarray, np.ndarray]
Pairs = dict[tuple[int, int], tuple[int, ...]]


def connected(case: Case, rng: np.random.Generator) -> Case:
    """Every fragment in one piece: a name for each set of voxels that hang together by faces."""
    labels, names = np.zeros_like(case.labels), iter(rng.choice(2**62, case.labels.size, replace=False) + 1)
    for start in map(tuple, np.argwhere(case.labels).tolist()):
        waiting = [] if labels[start] else [start]
        name = next(names)
        while waiting:
            p = waiting.pop()
            if labels[p] == 0:
                labels[p] = name
                near = [tuple(v + d * (axis == a) for a, v in enumerate(p)) for axis in range(3) for d in (-1, 1)]
                near = [q for q in near if all(0 <= v < n for v, n in zip(q, labels.shape, strict=True))]
                waiting += [q for q in near if case.labels[q] == case.labels[p]]
    return replace(case, labels=labels)


def merges(case: Case, rng: np.random.Generator) -> Names:
    """Segments: fragments that touch, joined at random."""
    rows = list(reference(case)[0].values())
    chosen = [row[:2] for row in rows if rng.random() < rng.choice([0, 0.1, 0.4])]
    pairs = np.array(chosen, np.uint64).reshape(-1, 2)
    return components(pairs[:, 0], pairs[:, 1])


def lasting(case: Case, grids: tuple[Grid, ...]) -> dict[int, int]:
    """The lowest level at which one chunk holds all of a fragment and the voxels around it."""
    found = {}
    for name in np.unique(case.labels[case.labels > 0]).tolist():
        places = np.argwhere(case.labels == name) + case.roi.begin
        low, high = places.min(0) - 1, places.max(0) + 2
        around = Box(tuple(map(int, low)), tuple(map(int, high))).clip(case.roi)
        found[name] = next(level for level, grid in enumerate(grids) if len(list(grid.touching(around))) == 1)
    return found


def in_one_piece(case: Case) -> bool:
    return len(np.unique(connected(case, np.random.default_rng(0)).labels)) == len(np.unique(case.labels))


def counted(case: Case, names: Names, block: Voxel) -> PairRows:
    """The way up, as the stage goes it."""
    grids, climbed = Grid(case.roi, block).levels, climb(case, block)
    fragments = np.unique(case.labels[case.labels > 0])
    until = dict.fromkeys(fragments.tolist(), 0) if in_one_piece(case) else lasting(case, grids)
    done: dict[Voxel, segment_pairs.Part] = {}
    final = []
    for level, (grid, chunks) in enumerate(zip(grids, climbed, strict=True)):
        above = {}
        for index, chunk in chunks.items():
            box = grid.block_box(index)
            if level == 0:
                here = nodes(np.ascontiguousarray(case.labels[box.slices(case.roi.begin)]), grid.internal_faces(index))
                levels = np.array([until[name] for name in here.name.tolist()], np.uint8)
                own = Reach(rename(here.name, *names), here.mask, levels)
                children = [leaf(box, (fragments, rename(fragments, *names)), own)]
            else:
                children = [done[child] for child in grids[level - 1].children(index) if child in done]
            stored = Stored(chunk.closed, chunk.adjacency, chunk.part.contacts, chunk.part.waiting)
            found = step(children, stored, box, level=level, least_edges=LEAST)
            above[index] = found.part
            final.append(found.final)
        done = above
    for part in done.values():
        assert part.pairs.size == part.places.size == part.contact.size == part.fragment.size == 0
    rows = add(final)
    assert rows.size == sum(part.size for part in final), "a pair was final twice"
    return rows


def by_pair(rows: PairRows) -> Pairs:
    pairs = zip(rows.a.tolist(), rows.b.tolist(), strict=True)
    numbers = zip(rows.places.tolist(), rows.name.tolist(), *rows.best.T.tolist(), strict=True)
    return dict(zip(pairs, numbers, strict=True))


def expected(case: Case, names: Names) -> Pairs:
    """From relabelled voxels, in fractions."""
    after = replace(case, labels=rename(case.labels, *names))
    pairs: dict[tuple[int, int], list[tuple[object, ...]]] = {}
    for name, (a, b, *numbers) in reference(after)[0].items():
        edges, total, position, grown = sum(numbers[:3]), numbers[3], numbers[4:7], numbers[8]
        scored = edges - grown
        if edges >= LEAST:
            key = (Fraction(total, max(scored, 1)), scored, -name)
            pairs.setdefault((a, b), []).append((key, (name, total, scored, edges, *position)))
    return {pair: (len(places), *max(places)[1]) for pair, places in pairs.items()}


def random_problem(rng: np.random.Generator, largest: int = 6) -> tuple[Case, Names, Voxel]:
    case = random_case(rng, largest=largest)
    if rng.random() < 0.5:
        case = connected(case, rng)
    if rng.random() < 0.5:
        case = replace(case, codes=(case.codes // 128 * 128).astype(case.codes.dtype))  # ties
    return case, merges(case, rng), random_block(rng)


def disagree(seed: int, count: int) -> bool:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        case, names, block = random_problem(rng)
        try:
            if by_pair(counted(case, names, block)) != expected(case, names):
                return True
        except (AssertionError, ChunkCorrupt):
            return True
    return False


@pytest.mark.parametrize("seed", range(3))
def test_every_grid_counts_the_pairs_of_relabelled_voxels(seed: int) -> None:
    rng, several = np.random.default_rng(seed), 0
    for _ in range(60):
        case, names, block = random_problem(rng)
        wanted = expected(case, names)
        several += any(row[0] > 1 for row in wanted.values())
        assert by_pair(counted(case, names, block)) == wanted, block
    assert several > 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 110))
def test_every_grid_counts_the_pairs_many_times(seed: int) -> None:
    assert not disagree(seed, 400)


def test_places_are_the_contacts_of_merged_segments() -> None:
    """Counting pairs is joining contacts, all of them in one chunk."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        case, names, block = random_problem(rng)
        chunks = [chunk for level in climb(case, block) for chunk in level.values()]
        pairs = sorted({pair for chunk in chunks for pair in pairs_of(chunk.adjacency)})
        first, second = np.array(pairs, np.uint64).reshape(-1, 2).T
        joined = rows_of(join_contacts(stack(c.closed for c in chunks), Adjacency(first, second), names))
        large = [row[:2] for row in joined.values() if sum(row[2:5]) >= LEAST]
        found = by_pair(counted(case, names, block))
        assert {pair: large.count(pair) for pair in set(large)} == {pair: row[0] for pair, row in found.items()}


def test_a_pair_leaves_below_the_top_where_it_can() -> None:
    """Two small segments in the corner of one block of many."""
    labels = np.zeros((8, 8, 8), np.uint64)
    labels[1, 1, 1:3], labels[1, 2, 1:3] = 3, 5
    case = Case(labels, np.full((3, 8, 8, 8), 200, np.uint8), np.arange(256) * 257, Box.of_shape(labels.shape))
    chunk = climb(case, (4, 4, 4))[0][(0, 0, 0)]
    own = nodes(np.ascontiguousarray(labels[:4, :4, :4]), 0b101010)
    names = (own.name, own.name)
    part = leaf(Box.of_shape((4, 4, 4)), names, Reach(own.name, own.mask, np.zeros(2, np.uint8)))
    stored = Stored(chunk.closed, chunk.adjacency, chunk.part.contacts, chunk.part.waiting)
    found = step([part], stored, part.box, level=0, least_edges=1)
    assert by_pair(found.final) == {(3, 5): (1, *by_pair(found.final)[3, 5][1:])}


NO_MERGES = (np.empty(0, np.uint64), np.empty(0, np.uint64))


def two_slabs(places: int) -> Case:
    """Two slabs with a gap of background and some bridges."""
    labels = np.zeros((8, 8, 8 * places), np.uint64)
    labels[:4], labels[5:] = 5, 9
    for place in range(places):
        labels[4, 3:5, 8 * place + 3 : 8 * place + 5] = 9
    codes = np.random.default_rng(places).integers(0, 256, (3, *labels.shape)).astype(np.uint8)
    return Case(labels, codes, np.arange(256) * 257, Box.of_shape(labels.shape))


BROKEN = {
    "unite_pairs": lambda count, first, second: np.arange(count),  # rows are counted, not places
    "_best": lambda best, first: first,  # the best is the one of the smallest name
    "_open": lambda reaching, ends: reaching,  # open contacts are forgotten
}


@pytest.mark.parametrize("rule", BROKEN)
def test_control_each_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_pairs, rule, BROKEN[rule])
    assert disagree(50, 400)


def test_control_faces_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two segments that go on from block to block, and touch in the middle of each."""
    case = two_slabs(5)
    whole, block = (by_pair(counted(case, NO_MERGES, block)) for block in ((8, 8, 40), (8, 8, 8)))
    assert whole == block == expected(case, NO_MERGES)
    assert [row[0] for row in whole.values()] == [5]
    monkeypatch.setattr(segment_pairs.faces, "outer_bits", lambda child, parent: 0)
    with pytest.raises(AssertionError):
        counted(case, NO_MERGES, (8, 8, 8))


def test_control_fragments_that_are_not_complete_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = segment_pairs._joined
    monkeypatch.setattr(
        segment_pairs, "_joined", lambda parts, box: replace(joined(parts, box), until=joined(parts, box).until * 0)
    )
    assert disagree(52, 400)


def test_control_places_that_go_on_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(segment_pairs._Places):
        def joined(self, adjacency: Adjacency, waiting: Adjacency):
            rows, (contact, place) = super().joined(adjacency, waiting)
            return rows, (contact[:0], place[:0])

    monkeypatch.setattr(segment_pairs, "_Places", Hasty)
    assert disagree(53, 400)
