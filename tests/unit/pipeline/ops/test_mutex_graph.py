"""Mutex watershed over blocks: any grid gives what plain Python gives on the whole; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.mutex_decide import Decided, decide
from pipeline.ops.mutex_graph import Decide, Final, Joined, closed_here, finish, join
from pipeline.ops.mutex_scan import Edges, Place, Strengths
from pipeline.ops.mutex_tiles import Tiling, cut_tiles, disagreement, fragment_chunk
from pipeline.ops.mutex_voxels import voxel_chunk
from pipeline.ops.mutex_watershed import mutex_watershed, named
from pipeline.ops.relabel import rename

Front = Callable[[Box], tuple[Joined, np.ndarray]]
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


@dataclass(frozen=True)
class Case:
    codes: np.ndarray
    table: np.ndarray
    low: float
    roi: Box
    layer: Index
    edges: Edges

    def strengths(self, box: Box) -> Strengths:
        codes = np.ascontiguousarray(self.codes[(slice(None), *box.slices(self.roi.begin))])
        if codes.dtype == np.float32:
            return Strengths.of_floats(codes, self.edges.attractive, self.low)
        return Strengths.of_codes(codes, self.table, int(self.low))


def random_case(rng: np.random.Generator, largest: int = 7) -> Case:
    shape = tuple(int(n) for n in rng.integers(2, largest, 3))
    offsets = NEAREST
    for _ in range(int(rng.integers(1, 6))):
        offset = tuple(int(n) for n in rng.integers(-3, 4, 3))
        offsets += (offset,) if any(offset) else ()
    attractive = min(len(offsets), 3 + int(rng.random() < 0.2))
    strides = tuple(int(n) for n in rng.integers(1, 4, 3)) if rng.random() < 0.3 else (1, 1, 1)
    kinds = [np.uint8, np.uint16, np.float32]
    kind = kinds[int(rng.choice(3, p=[0.6, 0.1, 0.3]))]
    size = 65536 if kind == np.uint16 else 256
    levels = np.sort(rng.choice(size, size=int(rng.choice([2, 3, 5, 30, 200])), replace=False))
    values = rng.choice(levels, size=(len(offsets), *shape))
    if rng.random() < 0.6:  # two halves or so of each kind, so that joins and mutexes both happen
        cells = rng.integers(0, 3, tuple(-(-n // 2) for n in shape)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        cells = cells[tuple(slice(0, n) for n in shape)]
        for channel, offset in enumerate(offsets):
            same = cells == np.roll(cells, tuple(-o for o in offset), (0, 1, 2))
            values[channel] = np.where(same, np.maximum(values[channel], rng.choice(levels, shape)), values[channel])
    codes = values.astype(kind) if kind != np.float32 else (values / np.float32(255)).astype(np.float32)
    if rng.random() < 0.3:  # a hole in the mask
        codes[:, rng.random(shape) < 0.2] = 0
    begin = tuple(int(n) for n in rng.integers(0, 30, 3))
    roi = Box.of_shape(shape).shift(begin)
    table = np.sort(rng.choice(65536, size, replace=False)) if size == 256 else np.arange(65536)
    if rng.random() < 0.5:
        table[0] = 0
    low = float(rng.choice([0, levels[0]])) / (255 if kind == np.float32 else 1)
    layer = tuple(end + int(rng.integers(0, 4)) for end in roi.end)
    return Case(codes, table, low, roi, layer, Edges(offsets, attractive, strides))


def foreground(case: Case) -> np.ndarray:
    joined = np.nan_to_num(case.codes[:3]) > (np.float32(case.low) if case.codes.dtype == np.float32 else case.low)
    found = np.zeros(case.roi.shape, bool)
    for axis in range(3):
        edge = np.moveaxis(joined[axis], axis, 0)[1:]
        view = np.moveaxis(found, axis, 0)
        view[1:] |= edge
        view[:-1] |= edge
    return found


def listed_edges(case: Case) -> list[tuple[float, int, int, Index, Index]]:
    """All edges in their order: (-strength, channel, position, end, end)."""
    edges, shape, begin = case.edges, case.roi.shape, case.roi.begin
    inside = foreground(case)
    rows = []
    for channel, offset in enumerate(edges.offsets):
        for p in np.ndindex(*shape):
            q = tuple(a + o for a, o in zip(p, offset, strict=True))
            at = tuple(a + b for a, b in zip(p, begin, strict=True))
            if not all(0 <= a < n for a, n in zip(q, shape, strict=True)) or not (inside[p] and inside[q]):
                continue
            if channel >= edges.attractive and any(a % s for a, s in zip(at, edges.strides, strict=True)):
                continue
            strength = strength_of(case, channel, p)
            if strength > 0 or channel >= edges.attractive:
                lin = (at[0] * case.layer[1] + at[1]) * case.layer[2] + at[2]
                rows.append((-strength, channel, lin, p, q))
    return sorted(rows)


def strength_of(case: Case, channel: int, p: Index) -> float:
    code = case.codes[(channel, *p)]
    if case.codes.dtype == np.float32:
        value = min(max(np.float32(0 if np.isnan(code) else code), np.float32(0)), np.float32(1))
        return float(np.float32(1) - value if channel >= case.edges.attractive else value)
    value = int(case.table[code])
    return float(65535 - value if channel >= case.edges.attractive else value)


def reference(case: Case, fragments: np.ndarray | None = None) -> np.ndarray:
    """The mutex watershed in plain Python: sets of voxels and of enemies. Fragments are joined from the start."""
    start: dict[int, set[Index]] = {}
    for i, p in enumerate(zip(*(a.tolist() for a in np.nonzero(foreground(case))), strict=True)):
        start.setdefault(i if fragments is None else int(fragments[p]), set()).add(p)
    cluster = {p: members for members in start.values() for p in members}
    enemies: dict[int, set[int]] = {id(members): set() for members in start.values()}
    for _, channel, _, p, q in listed_edges(case):
        a, b = cluster[p], cluster[q]
        if a is b or id(b) in enemies[id(a)]:
            continue
        if channel >= case.edges.attractive:
            enemies[id(a)].add(id(b))
            enemies[id(b)].add(id(a))
            continue
        for member in b:
            cluster[member] = a
        a |= b
        enemies[id(a)] |= enemies[id(b)]
        for other in enemies.pop(id(b)):
            enemies[other] = (enemies[other] - {id(b)}) | {id(a)}
    labels = np.zeros(case.roi.shape, np.uint64)
    for p, members in cluster.items():
        labels[p] = name_of(min(members), case.roi.begin)
    return labels


def name_of(p: Index, begin: Index) -> int:
    z, y, x = (a + b for a, b in zip(p, begin, strict=True))
    return 1 + (z << 42 | y << 21 | x)


def voxel_front(case: Case, dust_vx: int = 0, decided_by: Decide = decide) -> Front:
    def front(box: Box) -> tuple[Joined, np.ndarray]:
        seen = case.edges.seen(box, case.roi)
        place = Place(box, seen, case.layer)
        return voxel_chunk(case.strengths(seen), case.edges, place, case.roi, dust_vx=dust_vx, decided_by=decided_by)

    return front


@dataclass
class Walked:
    labels: np.ndarray
    until: dict[int, int]
    parts: list[list[Joined]]


def hierarchical(
    roi: Box,
    block: Index,
    front: Front,
    *,
    dust_vx: int = 0,
    decided_by: Decide = decide,
    masked: Callable[[Box], bool] = lambda _: False,
) -> Walked:
    """Up and down the levels as the stage does, in memory."""
    grids = Grid(roi, block).levels
    first = {index: front(grids[0].block_box(index)) for index in grids[0] if not masked(grids[0].block_box(index))}
    levels: list[dict[Index, Joined]] = [{index: joined for index, (joined, _) in first.items()}]
    for finer, grid in pairwise(grids):
        above: dict[Index, Joined] = {}
        for index in grid:
            parts = [levels[-1][child].part for child in finer.children(index) if child in levels[-1]]
            if parts:
                above[index] = join(parts, grid.block_box(index), dust_vx=dust_vx, decided_by=decided_by)
        levels.append(above)
    for joined in levels[-1].values():
        part = joined.part
        assert part.nodes.name.size == part.inner.size == part.outer.size == part.alias.node.size == 0
    none = np.empty(0, np.uint64)
    final: dict[Index, Final] = {(0, 0, 0): Final(none, none, np.empty(0, np.uint8))}
    for level in reversed(range(len(grids))):
        below = {}
        for index, joined in levels[level].items():
            parent = final[(0, 0, 0) if level + 1 == len(grids) else tuple(i // 2 for i in index)]
            closed = closed_here(joined.closed, roi, block)
            below[index] = finish(joined.old, joined.new, closed, parent=parent)
        final = below
    labels = np.zeros(roi.shape, np.uint64)
    until: dict[int, int] = {}
    for index, (_, pieces) in first.items():
        table = final[index]
        labels[grids[0].block_box(index).slices(roi.begin)] = rename(pieces, table.old, table.new)
        until |= {int(n): int(u) for n, u in zip(table.new, table.until, strict=True) if n}
    return Walked(labels, until, [list(level.values()) for level in levels])


def random_block(rng: np.random.Generator) -> Index:
    z, y, x = (int(n) for n in rng.integers(1, 5, 3))
    return (z, y, x)


def in_core(case: Case) -> np.ndarray:
    table = case.table if case.codes.dtype != np.float32 else None
    found, _ = mutex_watershed(
        case.codes,
        case.edges.offsets,
        attractive=case.edges.attractive,
        code_table=table,
        strides=case.edges.strides,
        mask_ZYX=foreground(case),
        origin=case.roi.begin,
    )
    return named(found, case.roi.begin)[0]


def check_exact(rng: np.random.Generator, cases: int) -> None:
    for _ in range(cases):
        case = random_case(rng)
        expected = reference(case)
        np.testing.assert_array_equal(in_core(case), expected)
        for block in (case.roi.shape, random_block(rng), random_block(rng)):
            found = hierarchical(case.roi, block, voxel_front(case))
            np.testing.assert_array_equal(found.labels, expected, err_msg=str(block))


def test_any_grid_gives_the_clusters_of_plain_python_and_of_one_array() -> None:
    check_exact(np.random.default_rng(0), 120)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 110))
def test_any_grid_gives_the_same_many_times(seed: int) -> None:
    check_exact(np.random.default_rng(seed), 200)


def test_dust_is_decided_on_whole_clusters_and_until_on_their_boxes() -> None:
    rng = np.random.default_rng(2)
    for _ in range(25):
        case, block = random_case(rng), random_block(rng)
        expected, dust_vx = reference(case), int(rng.integers(1, 5))
        names, count = np.unique(expected, return_counts=True)
        expected[np.isin(expected, names[count < dust_vx])] = 0
        found = hierarchical(case.roi, block, voxel_front(case, dust_vx), dust_vx=dust_vx)
        np.testing.assert_array_equal(found.labels, expected)
        for name in found.until:
            at = np.argwhere(expected == name)
            box = Box(tuple(at.min(0)), tuple(at.max(0) + 1)).shift(case.roi.begin).grow((1, 1, 1)).clip(case.roi)
            holds = [any(g.block_box(i).contains(box) for i in g.touching(box)) for g in Grid(case.roi, block).levels]
            assert found.until[name] == holds.index(True)


# ---- tiles --------------------------------------------------------------------------------------------------------


@dataclass
class Tiled:
    fragments: np.ndarray
    labels: np.ndarray
    edges: int
    disagreed: int


def on_tiles(case: Case, tiling: Tiling, block: Index) -> Tiled:
    grid = Grid(case.roi, block)
    cuts, fragments = {}, np.zeros(case.roi.shape, np.uint64)
    for index in grid:
        box = grid.block_box(index)
        codes = np.ascontiguousarray(case.codes[(slice(None), *tiling.seen(box).slices(case.roi.begin))])
        cuts[index] = cut_tiles(codes, box, tiling, case.edges, code_table=case.table, low=int(case.low))
        fragments[box.slices(case.roi.begin)] = cuts[index].labels_ZYX
    counts = np.array([(cut.edges, cut.disagreed) for cut in cuts.values()]).sum(axis=0)
    for index, cut in cuts.items():
        for axis, side in enumerate(faces.LOW):
            if side in cut.outside:
                before = cuts[tuple(i - (a == axis) for a, i in enumerate(index))]
                counts += disagreement(before.outside[faces.HIGH[axis]], cut.outside[side])

    def front(box: Box) -> tuple[Joined, np.ndarray]:
        seen = box.grow(case.edges.reach).clip(case.roi)
        labels, place = np.ascontiguousarray(fragments[seen.slices(case.roi.begin)]), Place(box, seen, case.layer)
        joined = fragment_chunk(labels, case.strengths(seen), case.edges, place)
        return joined, fragments[box.slices(case.roi.begin)]

    labels = hierarchical(case.roi, block, front).labels
    return Tiled(fragments, labels, *counts.tolist())


def check_tiles(rng: np.random.Generator, cases: int) -> None:
    for _ in range(cases):
        case = random_case(rng)
        if case.codes.dtype == np.float32:
            continue
        core, halo = random_block(rng), tuple(int(n) for n in rng.integers(0, 4, 3))
        tiling = Tiling(Grid(case.roi, core), halo)
        whole = tuple(-(-s // t) * t for s, t in zip(case.roi.shape, core, strict=True))
        one = on_tiles(case, tiling, whole)
        np.testing.assert_array_equal(one.labels, reference(case, one.fragments))
        for _ in range(2):
            other = on_tiles(case, tiling, tuple(int(t * n) for t, n in zip(core, rng.integers(1, 4, 3), strict=True)))
            np.testing.assert_array_equal(other.fragments, one.fragments)
            np.testing.assert_array_equal(other.labels, one.labels)
            assert (other.edges, other.disagreed) == (one.edges, one.disagreed)


def test_any_grouping_of_tiles_gives_the_clusters_of_plain_python_on_fragments() -> None:
    check_tiles(np.random.default_rng(10), 60)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(110, 120))
def test_any_grouping_of_tiles_gives_the_same_many_times(seed: int) -> None:
    check_tiles(np.random.default_rng(seed), 300)  # some 2,100 of them are not float32


def test_tiles_that_see_everything_agree_and_give_the_exact_clusters() -> None:
    rng = np.random.default_rng(12)
    for _ in range(30):
        case = random_case(rng)
        if case.codes.dtype != np.float32:
            found = on_tiles(case, Tiling(Grid(case.roi, random_block(rng)), (9, 9, 9)), case.roi.shape)
            assert found.disagreed == 0
            np.testing.assert_array_equal(found.labels, reference(case))


def test_control_without_dirty_voxels_is_caught() -> None:
    rng, caught = np.random.default_rng(21), 0
    for _ in range(20):
        case, block = random_case(rng), random_block(rng)

        def clean(first: Any, second: Any, kind: Any, dirty: Any) -> Decided:
            return decide(first, second, kind, np.zeros_like(dirty))

        try:
            found = hierarchical(case.roi, block, voxel_front(case, decided_by=clean))
            caught += not np.array_equal(found.labels, reference(case))
        except (ChunkCorrupt, AssertionError):
            caught += 1
    assert caught > 5
