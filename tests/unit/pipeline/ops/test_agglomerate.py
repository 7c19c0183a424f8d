"""Agglomeration: any grid, one chunk and a brute-force greedy agree, merge tree and all; broken rules are caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
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
from pipeline.ops.histograms import Histograms
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.scores import Score, statistics_of

Step = Callable[..., Agglomerated]
Merges = list[tuple[float, int, int]]
Pair = tuple[int, int]
SCORES = [Score("mean"), Score("max"), Score("quantile", 50), Score("quantile", 85)]
NAMES = ["mean", "max", "quantile", "quantile-85"]


@dataclass(frozen=True)
class Row:
    """Statistics of an edge, all of them."""

    total: int
    count: int
    tie: int
    largest: int
    bins: Counter[int]

    def plus(self, other: Row, *, worst: bool = True, add: bool = True) -> Row:
        tie = (max if worst else min)(self.tie, other.tie)
        bins = self.bins + other.bins if add else max(self.bins, other.bins, key=lambda bins: bins.total())
        largest = max(self.largest, other.largest) if add else self.largest
        total, count = (self.total + other.total, self.count + other.count) if add else (self.total, self.count)
        return Row(total, count, tie, largest, bins)

    def value(self, score: Score) -> Fraction:
        if score.name == "mean":
            return Fraction(self.total, self.count)
        if score.name == "max":
            return Fraction(self.largest)
        reached = 0
        for place in sorted(self.bins):
            reached += self.bins[place]
            if 100 * reached > score.quantile * self.bins.total():
                break
        return Fraction(257 * place)


def state_of(edges: Edges) -> dict[Pair, Row]:
    bins = [Counter() for _ in range(edges.size)]
    if edges.histograms is not None:
        columns = (c.tolist() for c in edges.histograms.columns().values())
        for edge, place, entries in zip(*columns, strict=True):
            bins[edge][place] = entries
    largest = [0] * edges.size if edges.largest is None else edges.largest.tolist()
    columns = [c.tolist() for c in (edges.a, edges.b, edges.total, edges.count, edges.tie)]
    rows = zip(*columns, largest, bins, strict=True)
    return {(a, b): Row(*row) for a, b, *row in rows}


def edges_of(state: dict[Pair, Row], score: Score) -> Edges:
    rows = sorted(state.items())
    names = np.array([pair for pair, _ in rows], np.uint64).reshape(-1, 2)
    sums = np.array([(row.total, row.count, row.tie, row.largest) for _, row in rows], np.int64).reshape(-1, 4)
    items = [(i, b, n) for i, (_, row) in enumerate(rows) for b, n in sorted(row.bins.items())]
    bins = np.array(items, np.int64).reshape(-1, 3)
    return Edges(
        names[:, 0],
        names[:, 1],
        sums[:, 0],
        sums[:, 1],
        sums[:, 2].astype(np.uint64),
        sums[:, 3].astype(np.uint16) if score.name == "max" else None,
        Histograms(bins[:, 0], bins[:, 1].astype(np.uint8), bins[:, 2]) if score.name == "quantile" else None,
    )


@dataclass(frozen=True)
class Case:
    labels: np.ndarray
    codes: np.ndarray
    table: np.ndarray
    roi: Box
    floor: float
    score: Score = SCORES[0]


def random_case(rng: np.random.Generator, largest: int = 8, score: Score = SCORES[0]) -> Case:
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
    for _ in range(int(rng.choice([0, 0, 1, 3, 6]))):  # fragments that are not connected
        pieces = rng.choice(labels.ravel(), 2)
        if pieces.min() > 0:
            labels = np.where(np.isin(labels, pieces), pieces.min(), labels)
    table = np.sort(rng.choice(65536, 256, replace=False))
    floor = float(rng.choice([0, table[levels[0]], 0.5 * table[levels].mean(), table[levels].mean()]))
    return Case(labels, codes, table, roi, floor, score)


def until_of(case: Case, grid: Grid) -> dict[int, int]:
    """The lowest level at which one chunk holds a fragment and the voxels around it."""
    found = {}
    for name in np.unique(case.labels[case.labels > 0]).tolist():
        voxels = np.argwhere(case.labels == name)
        begin = tuple(int(b + o) for b, o in zip(voxels.min(0), case.roi.begin, strict=True))
        end = tuple(int(e + 1 + o) for e, o in zip(voxels.max(0), case.roi.begin, strict=True))
        around = Box(begin, end).grow((1, 1, 1)).clip(case.roi)
        found[name] = next(level for level, g in enumerate(grid.levels) if len(list(g.touching(around))) == 1)
    return found


def graph_of(case: Case, grid: Grid, index: tuple[int, int, int], until: dict[int, int] | None = None) -> Part | None:
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
    codes = np.ascontiguousarray(case.codes[(slice(None), *inside)])
    place = Place(box.begin, tuple(e + 3 for e in case.roi.end))
    labels = np.ascontiguousarray(case.labels[inside])
    found = contacts(
        labels, codes, before, code_table=case.table, place=place, histograms=case.score.name == "quantile"
    )
    own = nodes(labels, grid.internal_faces(index))
    later = None if until is None else np.array([until[n] for n in own.name.tolist()], np.uint8)
    low = tuple(found[side] for side in faces.LOW)
    return Part(box, own.name, own.mask, found["inner"], low, later)


def hierarchical(case: Case, block: tuple[int, int, int], step: Step = agglomerate, *, until: bool = True) -> Merges:
    """Walk up the levels as the stage does, in memory; all merges, sorted."""
    grids = Grid(case.roi, block).levels
    lasting = until_of(case, grids[0]) if until else None
    level = {index: graph_of(case, grids[0], index, lasting) for index in grids[0]}
    step = partial(step, floor=case.floor, score=case.score)
    done = {i: step([part], part.box, level=0) for i, part in level.items() if part is not None}
    trees = [found.tree for found in done.values()]
    for height, (finer, grid) in enumerate(pairwise(grids), start=1):
        above = {}
        for index in grid:
            parts = [done[child].part for child in finer.children(index) if child in done]
            if parts:
                above[index] = step(parts, grid.block_box(index), level=height)
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


def brute_force(edges: Edges, floor: float, score: Score = SCORES[0]) -> Merges:
    """Merge the best pair, recompute everything, again. Fractions give the order, floats meet the floor."""
    state = state_of(edges)
    merges = []
    while state:
        best = max(state, key=lambda pair: (state[pair].value(score), -state[pair].tie))
        value = float(state.pop(best).value(score))
        if value <= floor:
            break
        keep, gone = best
        merges.append((value, keep, gone))
        for pair in [pair for pair in state if gone in pair]:
            row = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            state[new] = state[new].plus(row) if new in state else row
    return sorted(merges)


def partition(case: Case, merges: Merges, threshold: float) -> np.ndarray:
    columns = [np.array(c) for c in zip(*merges, strict=True)] if merges else [np.zeros(0)] * 3
    return rename(
        case.labels, *segments(columns[1].astype(np.uint64), columns[2].astype(np.uint64), columns[0], threshold)
    )


def check_trees(score: Score, seed: int, cases: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        case = random_case(rng, largest=6, score=score)
        expected = brute_force(global_edges(case), case.floor, score)
        assert hierarchical(case, case.roi.shape) == expected
        for _ in range(2):
            block = tuple(int(n) for n in rng.integers(2, 5, 3))
            assert hierarchical(case, block) == expected, block


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("score", SCORES, ids=NAMES)
def test_every_grid_gives_the_merge_tree_of_brute_force(score: Score, seed: int) -> None:
    check_trees(score, seed, cases=30)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(10, 20))
@pytest.mark.parametrize("score", SCORES, ids=NAMES)
def test_every_grid_gives_the_merge_tree_of_brute_force_2000_times(score: Score, seed: int) -> None:
    check_trees(score, seed, cases=200)


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
    for _ in range(10):
        case = random_case(rng)
        tree = hierarchical(case, (2, 3, 2))
        higher = case.floor + 0.3 * (float(case.table[-1]) - case.floor)
        assert [row for row in tree if row[0] > higher] == brute_force(global_edges(case), higher)


# ---- the kernel against a slow chunk, and controls: a slow chunk with one rule broken must be caught ---------------


@dataclass(frozen=True)
class Rules:
    """What a chunk obeys."""

    spread: bool = True  # freezing is passed on
    worst: bool = True  # of two ties, the larger one
    keep_low: bool = True  # frozen pairs go up whatever their score
    add: bool = True  # statistics of parallel edges are added
    until: bool = True  # fragments may be incomplete without reaching a face


def slow_chunk(
    children: list[Part], box: Box, *, floor: float, score: Score, level: int, rules: Rules = Rules()
) -> Agglomerated:
    """The chunk step in plain Python."""
    part = op.gather(children, box)
    state = state_of(part.edges)
    lasting = np.zeros(part.name.size) if part.until is None or not rules.until else part.until
    marks = zip(part.name.tolist(), part.mask.tolist(), lasting.tolist(), strict=True)
    frozen = {name for name, mask, last in marks if mask or last > level}
    clusters = set(part.name.tolist())
    tree: list[tuple[int, int, float]] = []
    passed: set[Pair] = set()
    while state.keys() - passed:
        best = max(state.keys() - passed, key=lambda pair: (state[pair].value(score), -state[pair].tie))
        value = float(state[best].value(score))
        if value <= floor:
            break
        keep, gone = best
        if frozen & set(best):
            frozen |= set(best) if rules.spread else set()
            passed.add(best)
            continue
        del state[best]
        clusters.discard(gone)
        tree.append((keep, gone, value))
        for pair in [pair for pair in state if gone in pair]:
            row = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            state[new] = state[new].plus(row, worst=rules.worst, add=rules.add) if new in state else row
    left = {pair: row for pair, row in state.items() if set(pair) <= frozen}
    left = {pair: row for pair, row in left.items() if rules.keep_low or row.value(score) > floor}
    name = np.array(sorted(frozen & clusters), np.uint64)
    rows = np.searchsorted(part.name, name)
    merged = [np.array(c) for c in zip(*tree, strict=True)] if tree else [np.zeros(0)] * 3
    found = Tree(merged[0].astype(np.uint64), merged[1].astype(np.uint64), merged[2].astype(np.float64))
    until = None if part.until is None else np.where(part.until > level, part.until, np.uint8(0))[rows]
    up = Part(box, name, part.mask[rows], edges_of(left, score), part.low, until)
    return Agglomerated(up, found, closed=len(clusters - frozen))


def checked_step(children: list[Part], box: Box, *, floor: float, score: Score, level: int) -> Agglomerated:
    fast, slow = (s(children, box, floor=floor, score=score, level=level) for s in (agglomerate, slow_chunk))
    assert rows_of([fast.tree]) == rows_of([slow.tree])
    assert fast.closed == slow.closed
    for column in ("name", "mask", "until"):
        np.testing.assert_array_equal(getattr(fast.part, column), getattr(slow.part, column))
    assert state_of(fast.part.edges) == state_of(slow.part.edges)
    return fast


@pytest.mark.parametrize("score", SCORES, ids=NAMES)
def test_every_chunk_is_the_slow_chunk(score: Score) -> None:
    rng = np.random.default_rng(90)
    for _ in range(12):
        case = random_case(rng, largest=7, score=score)
        hierarchical(case, tuple(int(n) for n in rng.integers(2, 5, 3)), checked_step)


def caught(step: Step, score: Score, cases: int, enough: int = 1) -> int:
    """How often a broken step gives another tree, or a table that does not fit, until it is enough."""
    rng = np.random.default_rng(91)
    found = 0
    for _ in range(cases):
        if found == enough:
            break
        case = random_case(rng, largest=6, score=score)
        try:
            found += hierarchical(case, (2, 2, 2), step) != brute_force(global_edges(case), case.floor, score)
        except (ChunkCorrupt, AssertionError):
            found += 1
    return found


@pytest.mark.parametrize("score", SCORES[:3], ids=NAMES[:3])
@pytest.mark.parametrize("broken", ["spread", "worst", "keep_low", "add", "until"])
def test_control_each_broken_rule_is_caught(broken: str, score: Score) -> None:
    assert caught(partial(slow_chunk, rules=replace(Rules(), **{broken: False})), score, 200)


def test_control_without_frozen_nodes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def thawed(clusters: Clusters, graph: Graph, floor: float):
        frozen = clusters.frozen.copy()
        clusters.frozen[:] = 0
        found = greedy(clusters, graph, floor)
        clusters.frozen[:] = frozen
        return found

    monkeypatch.setattr(op, "greedy", thawed)
    assert caught(agglomerate, SCORES[0], 20, enough=6) == 6


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
