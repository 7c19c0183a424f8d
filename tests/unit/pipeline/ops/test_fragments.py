"""Fragments: one block, any grid and a slow reference agree, on small volumes with ties; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fragment_cases import Case, hierarchical, random_case, reference

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import fragments, linking, pieces, spanning
from pipeline.ops.fragments import watershed
from pipeline.ops.pieces import Rules
from pipeline.ops.whole_volume import watershed_volume

KINDS = (np.uint8, np.uint16, np.float32)


def small_grid(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(n) for n in rng.integers(1, 6, 3))


def check_grids(seed: int, cases: int, grids: int, kind: Any) -> None:
    """Each volume in one block and on some grids."""
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        case = random_case(rng, kind, largest=8)
        expected = reference(case)
        for block in (case.roi.shape, *(small_grid(rng) for _ in range(grids))):
            np.testing.assert_array_equal(hierarchical(case, block), expected, err_msg=f"{block} {case.rules}")


@pytest.mark.parametrize(("kind", "cases"), [(np.uint8, 200), (np.uint16, 40), (np.float32, 60)])
def test_every_grid_gives_the_reference(kind: Any, cases: int) -> None:
    check_grids(0, cases, 1, kind)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 142))
def test_every_grid_gives_the_reference_often(seed: int) -> None:
    """2,100 volumes, each in one block and on two grids."""
    check_grids(seed, 50, 2, KINDS[seed % 3])


def test_a_whole_volume_in_one_go() -> None:
    rng = np.random.default_rng(30)
    for kind in KINDS:
        for _ in range(20):
            case = random_case(rng, kind)
            case = replace(case, roi=Box.of_shape(case.roi.shape))
            expected = reference(case)
            for block in (case.roi.shape, small_grid(rng)):
                found = watershed_volume(case.codes, *case.thresholds, *case.rules, block=block)
                np.testing.assert_array_equal(found, expected)


def test_grids_agree_on_larger_volumes() -> None:
    rng = np.random.default_rng(40)
    for size_vx in (0, 20, 200):
        shape = tuple(int(n) for n in rng.integers(16, 30, 3))
        codes = rng.integers(0, int(rng.choice([8, 256])), (3, *shape)).astype(np.uint8)
        roi = Box.of_shape(shape)
        case = Case(codes, roi, (0, int(codes.max())), Rules(size_vx, 30), np.zeros(shape, bool))
        whole = hierarchical(case, shape)
        for block in ((5, 4, 7), (8, 16, 16), (1, 40, 3)):
            np.testing.assert_array_equal(hierarchical(case, block), whole)


def test_nan_and_negative_zero_are_no_edges() -> None:
    rng = np.random.default_rng(41)
    case = random_case(rng, np.float32)
    broken = case.codes.copy()
    broken[case.codes == 0] = rng.choice(np.array([np.nan, -np.nan, -0.0, 0.0], np.float32), (case.codes == 0).sum())
    rules = (*case.thresholds, 5, 2)
    np.testing.assert_array_equal(watershed_volume(broken, *rules), watershed_volume(case.codes, *rules))


def test_a_plateau_is_one_fragment_if_it_is_linked() -> None:
    codes = np.full((3, 1, 1, 6), 50, np.uint8)
    codes[2, 0, 0, 3] = 50
    codes[1] = 0
    codes[2, 0, 0, [1, 3, 5]] = 90  # three pairs, equal saddles between them
    counts = [len(np.unique(watershed_volume(codes, 0, 256, size_vx, 0))) for size_vx in (0, 1, 3)]
    assert counts == [3, 3, 1]
    level = np.full((3, 1, 1, 9), 50, np.uint8)
    level[2, 0, 0, 4] = 20  # two plateaus
    assert len(np.unique(watershed_volume(level, 0, 256, 1, 0))) == 2


# ---- broken rules ---------------------------------------------------------------------------------------------------


def caught(
    seed: int, runs: int = 150, size_vx: int | None = None, enough: int | None = None, largest: int = 9, **rules: bool
) -> int:
    """How often a broken rule shows: other labels than the reference, or tables that contradict each other."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(runs):
        if count == enough:
            break
        case = random_case(rng, np.uint8, largest)
        case = replace(case, rules=Rules(case.rules.size_vx if size_vx is None else size_vx, 3))
        try:
            count += bool((hierarchical(case, (2, 3, 2), **rules) != reference(case)).any())
        except (ChunkCorrupt, IndexError, AssertionError):
            count += 1
    return count


def test_control_nothing_is_caught_while_rules_hold() -> None:
    assert caught(5, 60) == 0


def test_control_dust_decided_in_the_block_is_caught() -> None:
    assert caught(5, 30, forget_faces=True) > 10


def test_control_block_without_halo_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "HALO", (0, 0, 0))
    assert caught(6, 30) > 10


def test_control_halo_on_the_low_side_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class LowHalo(Box):
        def grow(self, before, after=None):
            return super().grow(before, (0, 0, 0))

    grow = Grid.block_box
    monkeypatch.setattr(Grid, "block_box", lambda self, index: LowHalo(grow(self, index).begin, grow(self, index).end))
    assert caught(7, 30) > 10


def slow_link(
    state: np.ndarray,
    links: linking.Links,
    size_vx: int,
    *,
    absorb: str = "certain",
    freeze: bool = True,
    refuse: Callable[[list[bool]], bool] = all,
    plateaus: bool = True,
    skipped: str = "circles",
) -> tuple[np.ndarray, np.ndarray]:
    """The step in plain Python, with switches that break its rules one by one."""
    count = state.size
    size = [int(s) & 0x7FFFFFFF for s in state]
    height = [int(s) >> 32 for s in state]
    incomplete = [bool(int(s) >> 31 & 1) for s in state]
    root, reached = list(range(count)), list(range(count))

    def merge(sets: list[int], a: int, b: int) -> None:
        sets[:] = [a if item == b else item for item in sets]

    def full(a: int, w: int) -> bool:
        return size[a] >= size_vx and (height[a] > w or not plateaus)

    pending = np.zeros(links.a.size, bool)
    seen: set[frozenset[int]] = set()
    for edge, (first, second, w) in enumerate(zip(*(c.tolist() for c in links[:3]), strict=True)):
        skip = {"circles": reached[first] == reached[second], "pairs": frozenset((first, second)) in seen}
        if skip.get(skipped, False):
            continue
        seen.add(frozenset((first, second)))
        merge(reached, reached[first], reached[second])
        a, b = root[first], root[second]
        if a == b or refuse([full(a, w), full(b, w)]):
            continue
        if incomplete[b]:
            a, b = b, a
        certain = not full(b, w) and (full(a, w) or absorb.startswith("any"))
        if not incomplete[a] or (not incomplete[b] and certain):
            if not incomplete[a] or absorb.endswith("growing"):
                size[a], height[a] = min(size[a] + size[b], size_vx), max(height[a], height[b])
            merge(root, a, b)
            continue
        pending[edge] = True
        if not incomplete[b] and not full(b, w) and freeze:
            incomplete[b] = True
    smallest = list(map(root.index, root))
    state[smallest] = [height[r] << 32 | incomplete[r] << 31 | size[r] for r in root]
    return np.array(smallest, np.int32), pending


def with_step(monkeypatch: pytest.MonkeyPatch, **broken: Any) -> None:
    monkeypatch.setattr(pieces, "link", lambda state, links, size_vx: slow_link(state, links, size_vx, **broken))


def test_the_step_is_the_slow_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(state: np.ndarray, links: linking.Links, size_vx: int) -> Any:
        other = state.copy()
        slow = slow_link(other, links, size_vx)
        fast = linking.link(state, links, size_vx)
        for left, right in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(left, right)
        roots = fast[0] == np.arange(state.size)
        np.testing.assert_array_equal(state[roots], other[roots])
        return fast

    monkeypatch.setattr(pieces, "link", both)
    assert caught(8, 60) == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"absorb": "any"},
        {"absorb": "any growing"},
        {"freeze": False},
        {"refuse": any},
        {"plateaus": False},
    ],
    ids=str,
)
def test_control_each_broken_rule_is_caught(monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any]) -> None:
    with_step(monkeypatch, **broken)
    assert caught(9, 600, enough=1)


@pytest.mark.parametrize("kept", ["pairs", "none"])
def test_skipping_fewer_edges_changes_nothing(monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    """Of parallel edges the strongest is enough, and that all edges in circles may be skipped is no approximation."""
    with_step(monkeypatch, skipped=kept)
    assert caught(10, 60) == 0


@pytest.mark.exhaustive
def test_control_growth_on_absorption_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rarest: a cluster that absorbs another shows its new size and height too early."""
    with_step(monkeypatch, absorb="certain growing")
    assert caught(11, 12500, enough=1)


def mutate_keys(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    found = spanning.spanning_forest
    monkeypatch.setattr(fragments, "spanning_forest", lambda *args: change(found(*args)))


def test_control_forest_without_its_weakest_edges_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    mutate_keys(monkeypatch, lambda keys: keys[: keys.size // 2])
    assert caught(12, 60, size_vx=10, enough=1)


def test_control_forest_of_the_weakest_parallel_edges_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong choice among parallel edges: the last instead of the first."""
    found = spanning.spanning_forest

    def weakest(number: np.ndarray, count: int, edges: np.ndarray, offset: Any, low: int) -> np.ndarray:
        turned = np.where(edges > low, 255 + low + 1 - edges.astype(np.int64), 0).astype(edges.dtype)
        keys = found(number, count, turned, offset, low)
        strength = np.uint64(0xFFFFFFFF) - (keys >> np.uint64(32))
        back = np.uint64(0xFFFFFFFF) - (np.uint64(256 + low) - strength)
        return np.sort(back << np.uint64(32) | keys & np.uint64(0xFFFFFFFF))

    monkeypatch.setattr(fragments, "spanning_forest", weakest)
    assert caught(13, 60, size_vx=10) > 10


def test_names_are_first_voxels_in_the_layer() -> None:
    codes = np.full((3, 1, 1, 4), 200, np.uint8)
    codes[2, 0, 0, 2] = 0  # cuts the row of four in the middle
    box = Box((3, 5, 7), (4, 6, 11))
    found = watershed(codes, box, box, codes=(0, 255), internal=0)
    first, second = (1 + (3 << 42 | 5 << 21 | x) for x in (7, 9))
    assert found.labels_ZYX.ravel().tolist() == [first, first, second, second]
    assert found.name.tolist() == [first, second]
    assert found.volume.tolist() == [2, 2]


def test_inputs_are_left_alone() -> None:
    codes = np.full((3, 2, 2, 2), 7, np.uint8)
    before = codes.copy()
    box = Box.of_shape((2, 2, 2))
    watershed(codes, box, box, codes=(0, 255), internal=0, size_vx=9)
    np.testing.assert_array_equal(codes, before)
