"""Greedy merging inside one chunk, with frozen nodes: the kernel of ops/agglomerate.py.

Edges have a key (score descending, tie ascending); scores are those of ops/scores.py. While the best edge has a score
above the floor: if neither end is frozen, merge them; otherwise freeze both, because what lies beyond the chunk may
come first. Frozen nodes never merge here.

* The heap is lazy. A queued key is an upper bound of its edge's key: an edge whose key has become worse is queued again
  when it surfaces. A merge pushes nothing.
* merge(a, b) folds the node with fewer edges into the other. Where both have an edge to the same node, their
  statistics add, the tie is the larger one, and the edge with the better key is the one that stays, so that its
  queued key remains an upper bound. The new key must not be better than that: this is what reducibility means, and
  it is checked.
* A pair of nodes finds its edge in an open-addressing hash table. Entries of nodes that are gone are never looked
  up; they fall out when the table is rebuilt.

About 80 to 100 bytes an edge for the mean: ends 8, statistics 16, rank 4, heap 16, lists 8, hash
table 24 to 48, flag 1. The maximum takes 4 more, a quantile 8, and 13 for every bin that is not empty.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.edge_queue import drop_first, first, heap_of, replace_first
from pipeline.ops.scores import Statistics, add_at, score_at

I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]


class Graph(NamedTuple):
    """Edges by number. At most one live edge joins two live nodes. Ties are ranks: each one's place among all."""

    end_a: I32
    end_b: I32
    statistics: Statistics
    tie: I32
    dead: U8


class Lists(NamedTuple):
    """Live edges of every node: how many, and a linked list; item 2e is end a of edge e, item 2e + 1 its end b."""

    degree: I32
    head: I32
    follow: I32


class PairHash(NamedTuple):
    """Pair of nodes -> edge; key 0 is free."""

    key: U64
    edge: I32


class Clusters(NamedTuple):
    """Nodes: their parent in the forest of merges, their cluster's smallest node, and whether they are frozen."""

    parent: I32
    smallest: I32
    frozen: U8


class Merges(NamedTuple):
    """The merges in order: smallest nodes of the two clusters, a < b, the score, and the tie of the edge."""

    a: I32
    b: I32
    score: F64
    tie: I32


@compiled
def greedy(clusters: Clusters, graph: Graph, floor: float) -> tuple[Merges, int]:
    """Merge and freeze in place; the merges, and how often an edge got better by adding to it (never, if right)."""
    nodes = clusters.parent.size
    lists = _lists(nodes, graph)
    pairs, hashed = _hash_edges(graph, 2 * graph.tie.size)
    heap, queued = heap_of(graph.statistics, graph.tie, floor)
    ends = (np.empty(nodes, np.int32), np.empty(nodes, np.int32))
    merges = Merges(ends[0], ends[1], np.empty(nodes, np.float64), np.empty(nodes, np.int32))
    merged, violations = 0, 0
    while queued > 0:
        score, tie, edge = first(heap)
        now = score_at(graph.statistics, edge)
        if not graph.dead[edge] and now > floor and (now != score or graph.tie[edge] != tie):
            replace_first(heap, queued, now, graph.tie[edge], edge)
            continue
        queued = drop_first(heap, queued)
        if graph.dead[edge] or now <= floor:
            continue
        a, b = graph.end_a[edge], graph.end_b[edge]
        if clusters.frozen[a] or clusters.frozen[b]:
            clusters.frozen[a] = clusters.frozen[b] = 1
            continue
        if lists.degree[a] < lists.degree[b]:
            a, b = b, a
        one, two = clusters.smallest[a], clusters.smallest[b]
        merges.a[merged], merges.b[merged] = min(one, two), max(one, two)
        merges.score[merged], merges.tie[merged] = score, graph.tie[edge]
        merged += 1
        clusters.parent[b], clusters.smallest[a] = a, min(one, two)
        graph.dead[edge] = 1
        if (hashed + lists.degree[b]) * 4 > 3 * pairs.key.size:
            pairs, hashed = _hash_edges(graph, max(pairs.key.size, 2 * lists.degree[b]))
        added, broken = _fold(a, b, graph, lists, pairs)
        hashed += added
        violations += broken
    done = Merges(merges.a[:merged], merges.b[:merged], merges.score[:merged], merges.tie[:merged])
    return done, violations


@compiled
def _fold(a: int, b: int, graph: Graph, lists: Lists, pairs: PairHash) -> tuple[int, int]:
    """Give all edges of b to a; how many pairs were entered into the hash table, and violations."""
    added, violations = 0, 0
    lists.degree[a] -= 1  # the edge between the two
    item = lists.head[b]
    while item >= 0:
        following = lists.follow[item]
        edge = item >> 1
        if not graph.dead[edge]:
            other = graph.end_a[edge] if item & 1 else graph.end_b[edge]
            slot = _find(pairs, _pair(a, other))
            survivor = edge
            if pairs.key[slot]:
                survivor = _combine(graph, edge, pairs.edge[slot])
                violations += survivor < 0
                survivor = max(survivor, -1 - survivor)
                lists.degree[other] -= 1
            else:
                pairs.key[slot] = _pair(a, other)
                lists.degree[a] += 1
                added += 1
            pairs.edge[slot] = survivor
            if survivor == edge:
                if item & 1:
                    graph.end_b[edge] = a
                else:
                    graph.end_a[edge] = a
                lists.follow[item] = lists.head[a]
                lists.head[a] = item
        item = following
    return added, violations


@compiled
def _combine(graph: Graph, edge: int, other: int) -> int:
    """Make two edges one: the one with the better key stays. Returns it, or -1 minus it if its key got better."""
    score, tie = score_at(graph.statistics, edge), graph.tie[edge]
    other_score, other_tie = score_at(graph.statistics, other), graph.tie[other]
    if _better(other_score, other_tie, score, tie):
        edge, other = other, edge
        score, tie, other_tie = other_score, other_tie, tie
    add_at(graph.statistics, edge, other)
    graph.tie[edge] = max(tie, other_tie)
    graph.dead[other] = 1
    return -1 - edge if _better(score_at(graph.statistics, edge), graph.tie[edge], score, tie) else edge


@compiled
def _better(score: float, tie: int, other_score: float, other_tie: int) -> bool:
    return bool(score > other_score or (score == other_score and tie < other_tie))


@compiled
def _lists(nodes: int, graph: Graph) -> Lists:
    edges = graph.tie.size
    lists = Lists(np.zeros(nodes, np.int32), np.full(nodes, -1, np.int32), np.empty(2 * edges, np.int32))
    for edge in range(edges):
        for item, node in ((2 * edge, graph.end_a[edge]), (2 * edge + 1, graph.end_b[edge])):
            lists.follow[item] = lists.head[node]
            lists.head[node] = item
            lists.degree[node] += 1
    return lists


@compiled
def _pair(a: int, b: int) -> np.uint64:
    """A key for an unordered pair of nodes; never 0, because the nodes differ."""
    return np.uint64(min(a, b)) << np.uint64(32) | np.uint64(max(a, b))


@compiled
def _find(pairs: PairHash, key: np.uint64) -> int:
    """The slot where a key stands, or the free one where it belongs."""
    mixed = (key ^ key >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64((mixed >> np.uint64(30)) & np.uint64(pairs.key.size - 1))
    while pairs.key[slot] != 0 and pairs.key[slot] != key:
        slot = (slot + 1) & (pairs.key.size - 1)
    return int(slot)


@compiled
def _hash_edges(graph: Graph, room: int) -> tuple[PairHash, int]:
    """A hash table of the live edges, at most half full and with `room` slots or more; and its number of entries."""
    live = graph.tie.size - graph.dead.sum()
    size = 1024
    while size < max(room, 2 * live):
        size *= 2
    pairs = PairHash(np.zeros(size, np.uint64), np.empty(size, np.int32))
    for edge in range(graph.tie.size):
        if not graph.dead[edge]:
            key = _pair(graph.end_a[edge], graph.end_b[edge])
            slot = _find(pairs, key)
            pairs.key[slot], pairs.edge[slot] = key, edge
    return pairs, live
