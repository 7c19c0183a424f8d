"""The merging kernel against dictionaries and heapq, on graphs large enough that its hash table is rebuilt."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from pipeline.ops import greedy as op
from pipeline.ops.edges import Edges
from pipeline.ops.greedy import Clusters, Graph, greedy
from pipeline.ops.scores import Score, Statistics, statistics_of


def random_graph(rng: np.random.Generator, nodes: int, edges: int, hubs: int) -> tuple[np.ndarray, ...]:
    a, b = rng.integers(0, nodes, (2, edges))
    a[: edges // 2] = rng.integers(0, hubs, edges // 2)  # a few nodes with very many edges
    pairs = np.unique(np.sort(np.stack([a, b]), axis=0)[:, a != b], axis=1)
    count = rng.integers(1, 5, pairs.shape[1])
    total = (rng.integers(0, int(rng.choice([3, 30, 65536])), count.size) * count).astype(np.int64)
    return pairs[0], pairs[1], total, count, rng.permutation(count.size).astype(np.uint64)


def sums(columns: tuple[np.ndarray, ...]) -> Statistics:
    a, b, total, count, tie = columns
    return statistics_of(Edges(a.astype(np.uint64), b.astype(np.uint64), total, count, tie), Score())


def reference(
    columns: tuple[np.ndarray, ...], frozen: np.ndarray, floor: float
) -> tuple[list[tuple[int, int, float]], dict[tuple[int, int], tuple[int, int, int]], set[int]]:
    """Push every new edge, skip what is outdated."""
    around: dict[int, dict[int, tuple[int, int, int]]] = {n: {} for n in range(frozen.size)}
    queue: list[tuple[float, int, int, int]] = []

    def put(a: int, b: int, row: tuple[int, int, int]) -> None:
        around[a][b] = around[b][a] = row
        if row[0] / row[1] > floor:
            heapq.heappush(queue, (-row[0] / row[1], row[2], min(a, b), max(a, b)))

    for a, b, *row in zip(*(c.tolist() for c in columns), strict=True):
        put(a, b, tuple(row))
    cold = set(np.flatnonzero(frozen).tolist())
    merges = []
    while queue:
        score, tie, a, b = heapq.heappop(queue)
        row = around.get(a, {}).get(b)
        if row is None or (-row[0] / row[1], row[2]) != (score, tie):
            continue
        if {a, b} & cold:
            cold |= {a, b}
            continue
        merges.append((a, b, -score))
        del around[a][b]
        for other, row in around.pop(b).items():
            if other != a:
                del around[other][b]
                old = around[a].get(other, (0, 0, 0))
                put(a, other, (old[0] + row[0], old[1] + row[1], max(old[2], row[2])))
    left = {(a, b): row for a, rows in around.items() for b, row in rows.items() if a < b}
    return merges, left, cold


@pytest.mark.parametrize("seed", range(8))
def test_merges_frozen_nodes_and_what_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(50, 1500))
    columns = random_graph(rng, nodes, 6 * nodes, hubs=int(rng.integers(1, 30)))
    frozen = (rng.random(nodes) < rng.choice([0, 0.02, 0.2])).astype(np.uint8)
    floor = float(rng.choice([0, np.mean(columns[2] / columns[3])]))
    expected, left, cold = reference(columns, frozen, floor)
    ends = [c.astype(np.int32) for c in columns[:2]]
    graph = Graph(*ends, sums(columns), columns[4].astype(np.int32), np.zeros(columns[0].size, np.uint8))
    parent = np.arange(nodes, dtype=np.int32)
    clusters = Clusters(parent, parent.copy(), frozen.copy())
    merges, violations = greedy(clusters, graph, floor)
    assert violations == 0
    assert list(zip(merges.a.tolist(), merges.b.tolist(), merges.score.tolist(), strict=True)) == expected
    live = np.flatnonzero(graph.dead == 0)
    found = {}
    for edge in live:
        a, b = sorted(int(clusters.smallest[end[edge]]) for end in (graph.end_a, graph.end_b))
        found[a, b] = (int(graph.statistics.total[edge]), int(graph.statistics.terms[edge]), int(graph.tie[edge]))
    assert found == left
    roots = np.flatnonzero(parent == np.arange(nodes))
    assert {int(clusters.smallest[n]) for n in roots if clusters.frozen[n]} == cold


def test_the_hash_table_holds_every_live_edge() -> None:
    rng = np.random.default_rng(1)
    a, b, total, count, tie = random_graph(rng, 400, 4000, hubs=3)
    dead = (rng.random(a.size) < 0.3).astype(np.uint8)
    statistics = sums((a, b, total, count, tie))
    graph = Graph(a.astype(np.int32), b.astype(np.int32), statistics, tie.astype(np.int32), dead)
    pairs, entries = op._hash_again(np.zeros(16, np.uint64), graph, 5)
    assert entries == np.count_nonzero(dead == 0)
    assert pairs.size >= 2 * entries
    for edge in range(a.size):
        slot, found = op._find(pairs, graph.end_a, graph.end_b, graph.dead, b[edge], a[edge])
        assert found == (-1 if dead[edge] else edge)
        assert dead[edge] or pairs[slot] != 0
