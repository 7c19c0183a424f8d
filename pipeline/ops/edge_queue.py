"""Edges by key, the best first: sorted once, and a heap for those whose keys change; for the kernel of ops/greedy.py.

An entry is two words: the bits of its score, which is positive, so that they have the scores' order; and the rank of
its tie above the number of its edge. The better entry has the larger first word; if equal, the smaller second one.
Every entry of the heap has up to four children, which lie in one cache line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.scores import Statistics, scores_of

U64 = NDArray[np.uint64]

WAYS = 4
LINE = 8  # words in a cache line


def in_order(statistics: Statistics, tie: NDArray[np.int32], floor: float) -> NDArray[np.int32]:
    """The edges above the floor, the best first; ties are ranks, 0, 1, ... in some order."""
    score = scores_of(statistics, tie.size)
    edges = np.flatnonzero(score > floor)
    score = score[edges]
    order = np.argsort(-score)
    score = score[order]
    place = np.zeros(order.size, np.int64)
    np.cumsum(score[1:] != score[:-1], out=place[1:])
    del score
    place <<= 32
    place |= tie[edges[order]]
    del edges, order
    place.sort()
    edge_of_tie = np.empty(tie.size, np.int32)
    edge_of_tie[tie] = np.arange(tie.size, dtype=np.int32)
    sequence: NDArray[np.int32] = edge_of_tie[place & 0xFFFFFFFF]
    return sequence


def empty_heap(entries: int) -> U64:
    """Room for entries, the children of each in one cache line: entry 1 begins one."""
    room = np.empty(2 * entries + LINE, np.uint64)
    shift = (LINE - 2 - room.ctypes.data // 8) % LINE
    return room[shift : shift + 2 * entries]


@compiled
def key_of(score: float, tie: int, edge: int) -> tuple[np.uint64, np.uint64]:
    """The two words of an entry."""
    return np.float64(score).view(np.uint64), np.uint64(tie) << np.uint64(32) | np.uint64(edge)


@compiled
def edge_of(second: np.uint64) -> int:
    """The number of an entry's edge."""
    return int(np.int64(second & np.uint64(0xFFFFFFFF)))


@compiled
def better(score: np.uint64, second: np.uint64, other_score: np.uint64, other_second: np.uint64) -> bool:
    """Whether one entry comes before another."""
    return bool(score > other_score or (score == other_score and second < other_second))


@compiled
def put(heap: U64, queued: int, score: np.uint64, second: np.uint64) -> int:
    """Queue an entry; how many there are."""
    place = queued
    while place > 0:
        above = (place - 1) // WAYS
        if not better(score, second, heap[2 * above], heap[2 * above + 1]):
            break
        heap[2 * place], heap[2 * place + 1] = heap[2 * above], heap[2 * above + 1]
        place = above
    heap[2 * place], heap[2 * place + 1] = score, second
    return queued + 1


@compiled
def replace_first(heap: U64, queued: int, score: np.uint64, second: np.uint64) -> None:
    """Replace the best of the queued entries by one that is no better."""
    _sink(heap, queued, 0, score, second)


@compiled
def drop_first(heap: U64, queued: int) -> int:
    """Drop the best entry; how many are left."""
    queued -= 1
    _sink(heap, queued, 0, heap[2 * queued], heap[2 * queued + 1])
    return queued


@compiled
def _sink(heap: U64, queued: int, top: int, score: np.uint64, second: np.uint64) -> None:
    """Put an entry where `top` is free, or below."""
    while WAYS * top + 1 < queued:
        best = WAYS * top + 1
        for child in range(best + 1, min(best + WAYS, queued)):
            if better(heap[2 * child], heap[2 * child + 1], heap[2 * best], heap[2 * best + 1]):
                best = child
        if not better(heap[2 * best], heap[2 * best + 1], score, second):
            break
        heap[2 * top], heap[2 * top + 1] = heap[2 * best], heap[2 * best + 1]
        top = best
    heap[2 * top], heap[2 * top + 1] = score, second
