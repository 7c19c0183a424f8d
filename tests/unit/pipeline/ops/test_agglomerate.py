"""Agglomeration: any grid, one chunk and a brute-force greedy agree, merge tree and all; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import agglomerate as op
from pipeline.ops import faces
from pipeline.ops.agglomerate import Agglomerated, Part, Tree, agglomerate
from pipeline.ops.edges import Edges, combine
from pipeline.ops.fragments import watershed
from pipeline.ops.greedy import Clusters, Graph, greedy
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.scores import Score, statistics_of

Step = Callable[..., Agglomerated]
Merges = list[tuple[float, int, int]]


@dataclass(frozen=True)
class Case:
    labels: np.ndarray
    codes: np.ndarray
    table: np.ndarray
    roi: Box
    floor: float


def random_case(rng: np.random.Generator, largest: int = 8) -> Case:
    shape = tuple(int(n) for n in rng.integers(2, largest, 3))
    levels = np.sort(rng.choice(256, size=int(rng.integers(2, 6)), replace=False))
    codes = rng.choice(levels, size=(3, *shape)).astype(np.uint8)
    roi = Box.of_shape(shape).shift(tuple(int(n) for n in rng.integers(0, 40, 3)))
    high = int(rng.choice([256, levels[-1]]))
    labels = watershed(codes, roi, roi, codes=(int(levels[0]), high), internal=0).labels_ZYX
    if rng.random() < 0.4:  # every voxel a fragment of its own
        z, y, x = (np.arange(b, e).astype(np.uint64) for b, e in zip(roi.begin, roi.end, strict=True))
        labels = 1 + (z[:, None, None] << np.uint64(42) | y[:, None] << np.uint64(21) | x)
    codes = rng.choice(levels, size=(3, *shape)).astype(np.uint8)
    if rng.random() < 0.3:  # whole fragments missing
        labels = np.where(np.isin(labels, rng.choice(labels.ravel(), 3)), np.uint64(0), labels)
    table = np.sort(rng.choice(65536, 256, replace=False))
    floor = float(rng.choice([0, table[levels[0]], 0.5 * table[levels].mean(), table[levels].mean()]))
    return Case(labels, codes, table, roi, floor)


def graph_of(case: Case, grid: Grid, index: tuple[int, int, int]) -> Part | None:
    box = grid.block_box(index)
    inside = box.slices(case.roi.begin)
    if not case.labels[inside].any():
        return None
    before = {}
    for axis, side in enumerate(faces.LOW):
        if index[axis]:
            where: list[slice | int] = list(inside)
            where[axis] = where[axis].start - 1
            before[side] = case.labels[tuple(where)]
    codes = case.codes[(slice(None), *inside)]
    place = Place(box.begin, tuple(e + 3 for e in case.roi.end))
    found = contacts(case.labels[inside], codes, before, code_table=case.table, place=place)
    own = nodes(case.labels[inside], grid.internal_faces(index))
    low = tuple(found[side] for side in faces.LOW)
    return Part(box, own.name, own.mask, found["inner"], low)


def hierarchical(case: Case, block: tuple[int, int, int], step: Step = agglomerate) -> Merges:
    """Walk up the levels as the stage does, in memory; all merges, sorted."""
    grids = Grid(case.roi, block).levels
    level = {index: graph_of(case, grids[0], index) for index in grids[0]}
    done = {i: step([part], part.box, floor=case.floor) for i, part in level.items() if part is not None}
    trees = [found.tree for found in done.values()]
    for finer, grid in pairwise(grids):
        above = {}
        for index in grid:
            parts = [done[child].part for child in finer.children(index) if child in done]
            if parts:
                above[index] = step(parts, grid.block_box(index), floor=case.floor)
        trees += [found.tree for found in above.values()]
        done = above
    for found in done.values():
        assert found.part.name.size == found.part.edges.size == 0
    return rows_of(trees)


def rows_of(trees: list[Tree]) -> Merges:
    return sorted(row for t in trees for row in zip(t.score.tolist(), t.a.tolist(), t.b.tolist(), strict=True))


def global_edges(case: Case) -> Edges:
    whole = graph_of(case, Grid(case.roi, case.roi.shape), (0, 0, 0))
    return combine([] if whole is None else [whole.edges])


def brute_force(edges: Edges, floor: float) -> Merges:
    """Merge the best pair, recompute everything, again. Fractions give the order, floats meet the floor."""
    rows = zip(*(column.tolist() for column in edges.columns().values()), strict=True)
    state = {(a, b): (total, count, tie) for a, b, total, count, tie in rows}
    merges = []
    while state:
        best = max(state, key=lambda pair: (Fraction(*state[pair][:2]), -state[pair][2]))
        total, count, _ = state.pop(best)
        if total / count <= floor:
            break
        keep, gone = best
        merges.append((total / count, keep, gone))
        for pair in [pair for pair in state if gone in pair]:
            total, count, tie = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            old = state.get(new, (0, 0, 0))
            state[new] = (old[0] + total, old[1] + count, max(old[2], tie))
    return sorted(merges)


def partition(case: Case, merges: Merges, threshold: float) -> np.ndarray:
    columns = [np.array(c) for c in zip(*merges, strict=True)] if merges else [np.zeros(0)] * 3
    return rename(
        case.labels, *segments(columns[1].astype(np.uint64), columns[2].astype(np.uint64), columns[0], threshold)
    )


@pytest.mark.parametrize("seed", range(10))
def test_every_grid_gives_the_merge_tree_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(12):
        case = random_case(rng, largest=6)
        expected = brute_force(global_edges(case), case.floor)
        assert hierarchical(case, case.roi.shape) == expected
        for _ in range(3):
            block = tuple(int(n) for n in rng.integers(1, 5, 3))
            assert hierarchical(case, block) == expected, block


@pytest.mark.parametrize("seed", range(4))
def test_every_grid_gives_the_labels_of_one_chunk_at_any_threshold(seed: int) -> None:
    rng = np.random.default_rng(50 + seed)
    for _ in range(5):
        case = random_case(rng, largest=16)
        whole = hierarchical(case, case.roi.shape)
        for _ in range(2):
            blocks = hierarchical(case, tuple(int(n) for n in rng.integers(1, 7, 3)))
            for threshold in (case.floor, case.floor * 1.3, 0.5 * (case.floor + case.table[-1])):
                np.testing.assert_array_equal(partition(case, blocks, threshold), partition(case, whole, threshold))


def test_a_tree_cut_higher_is_the_run_with_a_higher_floor() -> None:
    rng = np.random.default_rng(80)
    for _ in range(20):
        case = random_case(rng)
        tree = hierarchical(case, (2, 3, 2))
        higher = case.floor + 0.3 * (float(case.table[-1]) - case.floor)
        assert [row for row in tree if row[0] > higher] == brute_force(global_edges(case), higher)


# ---- the kernel against a slow chunk, and controls: a slow chunk with one rule broken must be caught ---------------


def slow_chunk(
    children: list[Part], box: Box, *, floor: float, spread: bool = True, worst: bool = True, keep_low: bool = True
) -> Agglomerated:
    """The chunk step in plain Python. `spread`: freezing spreads; `worst`: ties take the larger; `keep_low`: frozen
    pairs go up whatever their score."""
    part = op.gather(children, box)
    rows = zip(*(column.tolist() for column in part.edges.columns().values()), strict=True)
    state = {(a, b): (total, count, tie) for a, b, total, count, tie in rows}
    frozen = {n for n, m in zip(part.name.tolist(), part.mask.tolist(), strict=True) if m}
    clusters = set(part.name.tolist())
    tree: list[tuple[int, int, float]] = []
    passed: set[tuple[int, int]] = set()
    while state.keys() - passed:
        best = max(state.keys() - passed, key=lambda pair: (Fraction(*state[pair][:2]), -state[pair][2]))
        total, count, _ = state[best]
        if total / count <= floor:
            break
        keep, gone = best
        if frozen & set(best):
            frozen |= set(best) if spread else set()
            passed.add(best)
            continue
        del state[best]
        clusters.discard(gone)
        tree.append((keep, gone, total / count))
        for pair in [pair for pair in state if gone in pair]:
            row = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            if new in state:
                old = state[new]
                row = (old[0] + row[0], old[1] + row[1], (max if worst else min)(old[2], row[2]))
            state[new] = row
    left = [(a, b, *row) for (a, b), row in sorted(state.items()) if {a, b} <= frozen]
    left = [row for row in left if keep_low or row[2] / row[3] > floor]
    columns = [np.array(c) for c in zip(*left, strict=True)] if left else [np.zeros(0)] * 5
    dtypes = (np.uint64, np.uint64, np.int64, np.int64, np.uint64)
    edges = Edges(*(c.astype(d) for c, d in zip(columns, dtypes, strict=True)))
    name = np.array(sorted(frozen & clusters), np.uint64)
    mask = part.mask[np.searchsorted(part.name, name)]
    merged = [np.array(c) for c in zip(*tree, strict=True)] if tree else [np.zeros(0)] * 3
    found = Tree(merged[0].astype(np.uint64), merged[1].astype(np.uint64), merged[2].astype(np.float64))
    return Agglomerated(Part(box, name, mask, edges, part.low), found, closed=len(clusters - frozen))


def checked_step(children: list[Part], box: Box, *, floor: float) -> Agglomerated:
    fast, slow = agglomerate(children, box, floor=floor), slow_chunk(children, box, floor=floor)
    assert rows_of([fast.tree]) == rows_of([slow.tree])
    assert fast.closed == slow.closed
    np.testing.assert_array_equal(fast.part.name, slow.part.name)
    np.testing.assert_array_equal(fast.part.mask, slow.part.mask)
    for column, values in fast.part.edges.columns().items():
        np.testing.assert_array_equal(values, slow.part.edges.columns()[column], err_msg=column)
    return fast


def test_every_chunk_is_the_slow_chunk() -> None:
    rng = np.random.default_rng(90)
    for _ in range(25):
        case = random_case(rng, largest=7)
        hierarchical(case, tuple(int(n) for n in rng.integers(1, 5, 3)), checked_step)


@pytest.mark.parametrize("broken", ["spread", "worst", "keep_low"])
def test_control_each_broken_rule_is_caught(broken: str) -> None:
    def step(children: list[Part], box: Box, *, floor: float) -> Agglomerated:
        return slow_chunk(children, box, floor=floor, **{broken: False})

    rng = np.random.default_rng(91)
    caught = 0
    for _ in range(40):
        case = random_case(rng, largest=6)
        try:
            caught += hierarchical(case, (2, 2, 2), step) != brute_force(global_edges(case), case.floor)
        except ChunkCorrupt:
            caught += 1
    assert caught > 0


def test_control_without_frozen_nodes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def thawed(clusters: Clusters, graph: Graph, floor: float):
        frozen = clusters.frozen.copy()
        clusters.frozen[:] = 0
        found = greedy(clusters, graph, floor)
        clusters.frozen[:] = frozen
        return found

    monkeypatch.setattr(op, "greedy", thawed)
    rng = np.random.default_rng(92)
    caught = 0
    for _ in range(20):
        case = random_case(rng, largest=6)
        try:
            caught += hierarchical(case, (2, 2, 2)) != brute_force(global_edges(case), case.floor)
        except ChunkCorrupt:
            caught += 1
    assert caught > 5


def test_an_edge_that_gets_better_is_noticed() -> None:
    """A sum that wraps around breaks reducibility; the kernel counts it instead of going on."""
    huge = np.array([9, -(2**63) + 5, -(2**63) + 4])
    ties = np.arange(3, dtype=np.uint64)
    graph = Graph(
        np.array([0, 0, 1], np.int32),
        np.array([1, 2, 2], np.int32),
        statistics_of(Edges(ties, ties, huge, np.ones(3, np.int64), ties), Score()),
        np.arange(3, dtype=np.int32),
        np.zeros(3, np.uint8),
    )
    nodes_ = np.arange(3, dtype=np.int32)
    _, violations = greedy(Clusters(nodes_, nodes_.copy(), np.zeros(3, np.uint8)), graph, 0.0)
    assert violations == 1
