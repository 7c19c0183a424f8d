"""A growing list of unordered pairs of row numbers that kernels write; a pair listed lately is not listed again.

The memory of what was listed is a direct-mapped cache, so pairs may still stand in the list more than once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled

RECENT_BITS = 13


class PairList(NamedTuple):
    """The pairs, how many are used (one number), and the cache."""

    pairs: NDArray[np.int64]
    used: NDArray[np.int64]
    recent: NDArray[np.int64]


@compiled
def empty_list() -> PairList:
    """No pairs, and no room."""
    return PairList(np.zeros((0, 2), np.int64), np.zeros(1, np.int64), np.full(1 << RECENT_BITS, -1, np.int64))


@compiled
def with_room(known: PairList, more: int) -> PairList:
    """The same list with room for more pairs."""
    used = known.used[0]
    if used + more <= known.pairs.shape[0]:
        return known
    pairs = np.zeros((2 * used + more, 2), np.int64)
    pairs[:used] = known.pairs[:used]
    return PairList(pairs, known.used, known.recent)


@compiled
def note(known: PairList, one: int, two: int) -> None:
    """List a pair; there must be room. Row numbers are below 2**31."""
    low, high = min(one, two), max(one, two)
    key = np.int64(low) << 32 | np.int64(high)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - RECENT_BITS)
    if known.recent[slot] != key:
        known.recent[slot] = key
        known.pairs[known.used[0], 0], known.pairs[known.used[0], 1] = low, high
        known.used[0] += 1
