"""Greedy merging inside one chunk, with frozen nodes: the kernel of ops/agglomerate.py.

Edges have a key (score descending, tie ascending); scores are those of ops/scores.py. While the best edge has a score
above the floor: if neither end is frozen, merge them; otherwise freeze both, because what lies beyond the chunk may
come first. Frozen nodes never merge here.

* Edges are sorted by key once. One that has changed when its turn comes goes to a heap, which is lazy: a queued key
  is an upper bound of its edge's key, and an edge whose key has become worse is queued again when it surfaces. The
  next edge is the better one of the two firsts. A merge pushes nothing.
* merge(a, b) folds the node with fewer edges into the other. Where both have an edge to the same node, their
  statistics add, the tie is the larger one, and the edge with the better key is the one that stays, so that its
  queued key remains an upper bound. The new key must not be better than that: this is what reducibility means, and
  it is checked.
* A pair of nodes finds its edge in an open-addressing hash table of (tag of the pair, edge). Whether an entry is
  meant is looked up at the edge itself. Entries of edges that are gone fall out when the table is rebuilt.
* Large arrays are made by numpy, not in compiled code: so they lie on huge pages.

About 65 to 85 bytes an edge for the mean: ends, rank and flag 16, statistics 16, hash table 16 to 32, lists 8,
sequence 4, flag 1, heap 16 for every edge in it. The maximum takes 4 more, a quantile 8, and 13 for every bin that is
not empty.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.edge_queue import better, drop_first, edge_of, empty_heap, in_order, key_of, put, replace_first
from pipeline.ops.scores import Statistics, score_at, score_of, settle_level

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

TAG = np.uint64(0xFFFFFFFF00000000)  # the part of a hash table's entry that belongs to the pair; the rest is edge + 1


class Graph(NamedTuple):
    """Edges by number. At most one live edge joins two live nodes. Ties are ranks: each one's place among all."""

    end_a: I32
    end_b: I32
    statistics: Statistics
    tie: I32
    dead: U8 | I32


class Lists(NamedTuple):
    """Live edges of every node: how many, and a linked list; item 2e is end a of edge e, item 2e + 1 its end b."""

    degree: I32
    head: I32
    follow: I32


class Queue(NamedTuple):
    """Edges above the floor by their first keys, the best first; the heap; and the edges whose statistics changed."""

    sequence: I32
    heap: U64
    changed: U8


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


def greedy(clusters: Clusters, graph: Graph, floor: float) -> tuple[Merges, int]:
    """Merge and freeze in place; the merges, and how often an edge got better by adding to it (never, if right)."""
    nodes, edges = clusters.parent.size, graph.tie.size
    sequence = in_order(graph.statistics, graph.tie, floor)
    queue = Queue(sequence, empty_heap(sequence.size), np.zeros(edges, np.uint8))
    lists = Lists(np.zeros(nodes, np.int32), np.full(nodes, -1, np.int32), np.empty(2 * edges, np.int32))
    return _greedy(clusters, graph, queue, lists, np.zeros(_slots(2 * edges), np.uint64), floor)


@compiled
def _greedy(
    clusters: Clusters, graph: Graph, queue: Queue, lists: Lists, pairs: U64, floor: float
) -> tuple[Merges, int]:
    parent, smallest, frozen = clusters
    end_a, end_b, dead, degree = graph.end_a, graph.end_b, graph.dead, lists.degree
    _list(graph, lists)
    hashed = _enter(pairs, graph)
    first, second = np.empty(parent.size, np.int32), np.empty(parent.size, np.int32)
    scores, ties = np.empty(parent.size, np.float64), np.empty(parent.size, np.int32)
    merged, violations = 0, 0
    edge, at, queued = _next(graph, queue, 0, 0, floor)
    while edge >= 0:
        a, b = end_a[edge], end_b[edge]
        if frozen[a] or frozen[b]:
            frozen[a] = frozen[b] = 1
        else:
            if degree[a] < degree[b]:
                a, b = b, a
            one, two = smallest[a], smallest[b]
            first[merged], second[merged] = min(one, two), max(one, two)
            scores[merged], ties[merged] = score_at(graph.statistics, edge), graph.tie[edge]
            merged += 1
            parent[b], smallest[a] = a, min(one, two)
            dead[edge] = 1
            if (hashed + degree[b]) * 4 > 3 * pairs.size:
                pairs, hashed = _hash_again(pairs, graph, degree[b])
            added, broken = _fold(a, b, graph, lists, pairs, queue.changed)
            hashed += added
            violations += broken
        edge, at, queued = _next(graph, queue, at, queued, floor)
    return Merges(first[:merged], second[:merged], scores[:merged], ties[:merged]), violations


@compiled
def _next(graph: Graph, queue: Queue, at: int, queued: int, floor: float) -> tuple[int, int, int]:
    """Take the best edge above the floor, or -1, from the sequence or the heap; how much of them is used."""
    total, terms, level = graph.statistics.total, graph.statistics.terms, graph.statistics.level
    tie, dead = graph.tie, graph.dead
    sequence, heap, changed = queue
    while at < sequence.size and (dead[sequence[at]] or changed[sequence[at]]):
        edge = sequence[at]
        at += 1
        now = score_of(total, terms, level, edge)
        if not dead[edge] and now > floor:
            score, second = key_of(now, tie[edge], edge)
            queued = put(heap, queued, score, second)
    best, best_score, best_second = -1, np.uint64(0), np.uint64(0)
    if at < sequence.size:
        best = sequence[at]
        best_score, best_second = key_of(score_of(total, terms, level, best), tie[best], best)
    while queued > 0 and (best < 0 or better(heap[0], heap[1], best_score, best_second)):
        edge = edge_of(heap[1])
        now = score_of(total, terms, level, edge)
        score, second = key_of(now, tie[edge], edge)
        if dead[edge] or now <= floor:
            queued = drop_first(heap, queued)
        elif score != heap[0] or second != heap[1]:
            replace_first(heap, queued, score, second)
        else:
            return edge, at, drop_first(heap, queued)
    return best, at + (best >= 0), queued


@compiled
def _fold(a: int, b: int, graph: Graph, lists: Lists, pairs: U64, changed: U8) -> tuple[int, int]:
    """Give all edges of b to a; how many pairs were entered into the hash table, and violations.

    Arrays are taken out of their tuples before the loop: every access through a tuple counts references.
    """
    end_a, end_b, statistics, tie, dead = graph
    total, terms, level = statistics.total, statistics.terms, statistics.level
    degree, head, follow = lists
    added, violations = 0, 0
    kept = degree[a] - 1  # without the edge between the two
    top = head[a]
    item = head[b]
    while item >= 0:
        following = follow[item]
        edge = item >> 1
        if not dead[edge]:
            other = end_a[edge] if item & 1 else end_b[edge]
            slot, twin = _find(pairs, end_a, end_b, dead, a, other)
            survivor = edge
            if twin >= 0:
                survivor = _better_of(total, terms, level, tie, edge, twin)
                lost = edge + twin - survivor
                score, rank = score_of(total, terms, level, survivor), tie[survivor]
                total[survivor] += total[lost]
                terms[survivor] += terms[lost]
                if level.size:
                    settle_level(statistics, survivor, lost)
                tie[survivor] = max(rank, tie[lost])
                dead[lost] = changed[survivor] = 1
                violations += _better(score_of(total, terms, level, survivor), tie[survivor], score, rank)
                degree[other] -= 1
            else:
                kept += 1
                added += 1
            pairs[slot] = _entry(a, other, survivor)
            if survivor == edge:
                if item & 1:
                    end_b[edge] = a
                else:
                    end_a[edge] = a
                follow[item] = top
                top = item
        item = following
    degree[a], head[a] = kept, top
    return added, violations


@compiled
def _better_of(total: I64, terms: I64, level: I32, tie: I32, edge: int, other: int) -> int:
    """Of two edges, the one with the better key."""
    score, other_score = score_of(total, terms, level, edge), score_of(total, terms, level, other)
    return other if _better(other_score, tie[other], score, tie[edge]) else edge


@compiled
def _better(score: float, tie: int, other_score: float, other_tie: int) -> bool:
    return bool(score > other_score or (score == other_score and tie < other_tie))


@compiled
def _list(graph: Graph, lists: Lists) -> None:
    end_a, end_b = graph.end_a, graph.end_b
    degree, head, follow = lists
    for edge in range(end_a.size):
        for item, node in ((2 * edge, end_a[edge]), (2 * edge + 1, end_b[edge])):
            follow[item] = head[node]
            head[node] = item
            degree[node] += 1


@compiled
def _mixed(a: int, b: int) -> np.uint64:
    """A number for an unordered pair of nodes; its upper half is the tag of the pair, the lower half says the slot."""
    key = np.uint64(min(a, b)) << np.uint64(32) | np.uint64(max(a, b))
    key = (key ^ key >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15)
    return key ^ key >> np.uint64(32)


@compiled
def _entry(a: int, b: int, edge: int) -> np.uint64:
    """What the hash table holds for an edge."""
    return _mixed(a, b) & TAG | np.uint64(edge + 1)


@compiled
def _find(pairs: U64, end_a: I32, end_b: I32, dead: U8 | I32, a: int, b: int) -> tuple[int, int]:
    """The slot and the edge of a pair of nodes; if it has none, the free slot where it belongs, and -1."""
    mixed = _mixed(a, b)
    last = pairs.size - 1
    slot = np.int64(mixed & np.uint64(last))
    while pairs[slot] != 0:
        if (pairs[slot] ^ mixed) & TAG == 0:
            edge = np.int64(pairs[slot] & ~TAG) - 1
            one, two = end_a[edge], end_b[edge]
            if not dead[edge] and ((one == a and two == b) or (one == b and two == a)):
                return int(slot), int(edge)
        slot = (slot + 1) & last
    return int(slot), -1


@compiled
def _slots(room: int) -> int:
    """The size of a hash table."""
    size = 1024
    while size < room:
        size *= 2
    return size


@compiled
def _hash_again(pairs: U64, graph: Graph, more: int) -> tuple[U64, int]:
    """The table without edges that are gone, and with room for some more; in place if half of it is free then."""
    size = _slots(2 * max(graph.tie.size - graph.dead.sum(), more))
    if size > pairs.size:
        pairs = np.empty(size, np.uint64)
    pairs[:] = 0
    return pairs, _enter(pairs, graph)


@compiled
def _enter(pairs: U64, graph: Graph) -> int:
    """Enter the live edges into an empty table; how many they are."""
    end_a, end_b, dead = graph.end_a, graph.end_b, graph.dead
    last = pairs.size - 1
    entered = 0
    for edge in range(dead.size):
        if not dead[edge]:
            slot = np.int64(_mixed(end_a[edge], end_b[edge]) & np.uint64(last))
            while pairs[slot] != 0:
                slot = (slot + 1) & last
            pairs[slot] = _entry(end_a[edge], end_b[edge], edge)
            entered += 1
    return entered
