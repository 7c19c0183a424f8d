"""Greedy merging by mean affinity inside one chunk, with frozen nodes: the kernel of ops/agglomerate.py.

Edges have a key (score descending, tie ascending), score = float64(sum) / float64(count). While the best edge has a
score above the floor: if neither end is frozen, merge them; otherwise freeze both, because what lies beyond the chunk
may come first. Frozen nodes never merge here.

* The heap is lazy. A queued key is an upper bound of its edge's key: an edge whose key has become worse is queued again
  when it surfaces. A merge pushes nothing.
* merge(a, b) folds the node with fewer edges into the other. Where both have an edge to the same node, sums and
  counts add, the tie is the larger one, and the edge with the better key is the one that stays, so that its queued key
  remains an upper bound. The new key must not be better than that: this is what reducibility means, and it is checked.
* A pair of nodes finds its edge in an open-addressing hash table. Entries of nodes that are gone are never looked
  up; they fall out when the table is rebuilt.

About 100 bytes an edge: ends 8, statistics 24, heap 20, lists 8, hash table 24 to 48, flag 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]


class Graph(NamedTuple):
    """Edges by number. At most one live edge joins two live nodes; `terms` counts what is in a total."""

    end_a: I32
    end_b: I32
    total: I64
    terms: I64
    tie: U64
    dead: U8


class Lists(NamedTuple):
    """Live edges of every node: how many, and a linked list; item 2e is end a of edge e, item 2e + 1 its end b."""

    degree: I32
    head: I32
    follow: I32


class Heap(NamedTuple):
    """Queued keys, the best first."""

    score: F64
    tie: U64
    edge: I32


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
    """The merges in order: smallest nodes of the two clusters, a < b, and the score."""

    a: I32
    b: I32
    score: F64


@compiled
def greedy(clusters: Clusters, graph: Graph, floor: float) -> tuple[Merges, int]:
    """Merge and freeze in place; the merges, and how often an edge got better by adding to it (never, if right)."""
    nodes = clusters.parent.size
    lists = _lists(nodes, graph)
    pairs, hashed = _hash_edges(graph, 2 * graph.tie.size)
    heap, queued = _heapify(graph, floor)
    merges = Merges(np.empty(nodes, np.int32), np.empty(nodes, np.int32), np.empty(nodes, np.float64))
    merged, violations = 0, 0
    while queued > 0:
        edge, score, tie = heap.edge[0], heap.score[0], heap.tie[0]
        now = _score(graph, edge)
        if not graph.dead[edge] and now > floor and (now != score or graph.tie[edge] != tie):
            _sink(heap, queued, now, graph.tie[edge], edge)
            continue
        queued -= 1
        _sink(heap, queued, heap.score[queued], heap.tie[queued], heap.edge[queued])
        if graph.dead[edge] or now <= floor:
            continue
        a, b = graph.end_a[edge], graph.end_b[edge]
        if clusters.frozen[a] or clusters.frozen[b]:
            clusters.frozen[a] = clusters.frozen[b] = 1
            continue
        if lists.degree[a] < lists.degree[b]:
            a, b = b, a
        first, second = clusters.smallest[a], clusters.smallest[b]
        merges.a[merged], merges.b[merged], merges.score[merged] = min(first, second), max(first, second), score
        merged += 1
        clusters.parent[b], clusters.smallest[a] = a, min(first, second)
        graph.dead[edge] = 1
        if (hashed + lists.degree[b]) * 4 > 3 * pairs.key.size:
            pairs, hashed = _hash_edges(graph, max(pairs.key.size, 2 * lists.degree[b]))
        added, broken = _fold(a, b, graph, lists, pairs)
        hashed += added
        violations += broken
    return Merges(merges.a[:merged], merges.b[:merged], merges.score[:merged]), violations


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
    score, tie = _score(graph, edge), graph.tie[edge]
    other_score, other_tie = _score(graph, other), graph.tie[other]
    if _better(other_score, other_tie, score, tie):
        edge, other = other, edge
        score, tie, other_tie = other_score, other_tie, tie
    graph.total[edge] += graph.total[other]
    graph.terms[edge] += graph.terms[other]
    graph.tie[edge] = max(tie, other_tie)
    graph.dead[other] = 1
    return -1 - edge if _better(_score(graph, edge), graph.tie[edge], score, tie) else edge


@compiled
def _score(graph: Graph, edge: int) -> float:
    return float(graph.total[edge] / graph.terms[edge])


@compiled
def _better(score: float, tie: np.uint64, other_score: float, other_tie: np.uint64) -> bool:
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


@compiled
def _heapify(graph: Graph, floor: float) -> tuple[Heap, int]:
    """All edges above the floor, as a heap."""
    edges = graph.tie.size
    heap = Heap(np.empty(edges, np.float64), np.empty(edges, np.uint64), np.empty(edges, np.int32))
    queued = 0
    for edge in range(edges):
        score = _score(graph, edge)
        if score > floor:
            heap.score[queued], heap.tie[queued], heap.edge[queued] = score, graph.tie[edge], edge
            queued += 1
    for top in range(queued // 2 - 1, -1, -1):
        _sink_from(heap, queued, top)
    return heap, queued


@compiled
def _sink(heap: Heap, queued: int, score: float, tie: np.uint64, edge: int) -> None:
    """Replace the first of the heap's `queued` entries by an entry that is no better."""
    heap.score[0], heap.tie[0], heap.edge[0] = score, tie, edge
    _sink_from(heap, queued, 0)


@compiled
def _sink_from(heap: Heap, queued: int, top: int) -> None:
    score, tie, edge = heap.score[top], heap.tie[top], heap.edge[top]
    while 2 * top + 1 < queued:
        child = 2 * top + 1
        if child + 1 < queued and _better(
            heap.score[child + 1], heap.tie[child + 1], heap.score[child], heap.tie[child]
        ):
            child += 1
        if not _better(heap.score[child], heap.tie[child], score, tie):
            break
        heap.score[top], heap.tie[top], heap.edge[top] = heap.score[child], heap.tie[child], heap.edge[child]
        top = child
    heap.score[top], heap.tie[top], heap.edge[top] = score, tie, edge
