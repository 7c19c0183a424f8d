"""Edges queued by key, the best first: a heap for the kernel of ops/greedy.py.

An entry is two words: the bits of its score, which is positive, so that they have the scores' order; and the rank of
its tie above the number of its edge. The better entry has the larger first word; if equal, the smaller second one.
Every entry has up to four children, which lie in one cache line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.scores import Statistics, score_at

U64 = NDArray[np.uint64]

WAYS = 4
LINE = 8  # words in a cache line


@compiled
def heap_of(statistics: Statistics, tie: NDArray[np.int32], floor: float) -> tuple[U64, int]:
    """All edges above the floor, and how many there are."""
    heap = _aligned(2 * tie.size)
    queued = 0
    for edge in range(tie.size):
        score = score_at(statistics, edge)
        if score > floor:
            heap[2 * queued] = _bits(score)
            heap[2 * queued + 1] = _second(tie[edge], edge)
            queued += 1
    for top in range((queued - 2) // WAYS, -1, -1):
        _sink(heap, queued, top, heap[2 * top], heap[2 * top + 1])
    return heap, queued


@compiled
def first(heap: U64) -> tuple[float, int, int]:
    """Score, tie and number of the best edge."""
    second = heap[1]
    return float(heap[:1].view(np.float64)[0]), int(second >> np.uint64(32)), int(second & np.uint64(0xFFFFFFFF))


@compiled
def replace_first(heap: U64, queued: int, score: float, tie: int, edge: int) -> None:
    """Replace the best of the queued entries by one that is no better."""
    _sink(heap, queued, 0, _bits(score), _second(tie, edge))


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
            if _better(heap[2 * child], heap[2 * child + 1], heap[2 * best], heap[2 * best + 1]):
                best = child
        if not _better(heap[2 * best], heap[2 * best + 1], score, second):
            break
        heap[2 * top], heap[2 * top + 1] = heap[2 * best], heap[2 * best + 1]
        top = best
    heap[2 * top], heap[2 * top + 1] = score, second


@compiled
def _better(score: np.uint64, second: np.uint64, other_score: np.uint64, other_second: np.uint64) -> bool:
    return bool(score > other_score or (score == other_score and second < other_second))


@compiled
def _second(tie: int, edge: int) -> np.uint64:
    return np.uint64(tie) << np.uint64(32) | np.uint64(edge)


@compiled
def _bits(score: float) -> np.uint64:
    return np.float64(score).view(np.uint64)


@compiled
def _aligned(words: int) -> U64:
    """Room for entries, the children of each in one cache line: entry 1 begins one."""
    room = np.empty(words + LINE, np.uint64)
    shift = (LINE - 2 - room.ctypes.data // 8) % LINE
    return room[shift : shift + words]
