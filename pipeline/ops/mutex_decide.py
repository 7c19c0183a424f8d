"""Which joins and mutexes of a chunk are final facts, whatever lies outside it.

Rows come in their order, certain mutexes first. A cluster is dirty as long as edges may change it that the chunk does
not see; at the start that is given. A, B are the clusters of the row's two ends, A dirty if only one is:

1. One cluster, or a certain mutex between them: the row is moot.
2. A certain row: a mutex.
3. Repulsive, at least one clean: a mutex. The clean one is exactly known, so the two differ. Both dirty: pending, they
   may be one cluster by way of the outside.
4. Attractive, both clean: they are joined. Both dirty: pending, a mutex may come from the outside.
5. Attractive, A dirty and B clean: B joins A, and the result is dirty, if every dirty cluster D that has a mutex with B
   has one with A, too. Otherwise the outside may join A and D first: the row is pending, and B becomes dirty.

Joins and mutexes are never undone, and imposing facts from the start does not change the result: so the clean clusters
are final, and what is left goes up: per pair of dirty clusters the certain mutex or, without one, the strongest pending
row of either kind. With no dirty node this is the mutex watershed itself.

Mutexes are kept in a set of pairs of roots and, for every root, in a list of partners; the shorter list joins the
longer one. Pairs with a former root stay in the set until it grows: nobody asks for them any more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.mutex_rows import ATTRACTIVE, CERTAIN, REPULSIVE, room_for, seen_before
from pipeline.ops.union_find import find

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]

START = 1024
ENTRIES, KEYS = 0, 1  # what `used` counts


class Clusters(NamedTuple):
    """Union-find, dirty flags of roots, and mutexes between roots."""

    parent: I32
    dirty: U8
    head: I32  # first entry of a root's list of partners, -1 if empty
    tail: I32
    held: I32  # entries in the list
    partner: I32  # by entry: any member of the partner
    following: I32
    pairs: U64
    used: I64


class Decided(NamedTuple):
    """The root of every node, whether its cluster is dirty, and what goes up: rows, and mutexes as pairs of roots."""

    root: I32
    dirty: U8
    pending: NDArray[np.bool_]
    mutex: I32


@compiled
def decide(first: I32, second: I32, kind: U8, dirty: U8) -> Decided:
    """Decide the rows of a chunk, given in their order, between nodes 0 .. dirty.size - 1."""
    c = _singletons(dirty)
    pending = np.zeros(first.size, np.bool_)
    for row in range(first.size):
        a, b = find(c.parent, first[row]), find(c.parent, second[row])
        if a == b or _exclude(c, a, b):
            continue
        if kind[row] == CERTAIN or (kind[row] == REPULSIVE and not (c.dirty[a] and c.dirty[b])):
            c = _with_room(c, 1)
            _add(c, a, b)
        elif kind[row] == ATTRACTIVE and not (c.dirty[a] and c.dirty[b]):
            if c.dirty[b]:
                a, b = b, a
            if c.dirty[a] and _may_lose(c, a, b):
                c.dirty[b] = 1
                pending[row] = True
            else:
                c = _with_room(c, min(c.held[a], c.held[b]))
                _merge(c, a, b)
        else:
            pending[row] = True
    for node in range(c.parent.size):
        c.parent[node] = find(c.parent, node)
        c.dirty[node] = c.dirty[c.parent[node]]
    _keep_strongest(c, first, second, kind, pending)
    return Decided(c.parent, c.dirty, pending, _dirty_mutexes(c))


@compiled
def _singletons(dirty: U8) -> Clusters:
    count = dirty.size
    return Clusters(
        np.arange(count).astype(np.int32),
        dirty.copy(),
        np.full(count, -1, np.int32),
        np.full(count, -1, np.int32),
        np.zeros(count, np.int32),
        np.empty(START, np.int32),
        np.empty(START, np.int32),
        room_for(START),
        np.zeros(2, np.int64),
    )


@compiled
def _key(a: int, b: int) -> np.uint64:
    return np.uint64(min(a, b) + 1) << np.uint64(32) | np.uint64(max(a, b))


@compiled
def _exclude(c: Clusters, a: int, b: int) -> bool:
    """Whether there is a mutex between two roots."""
    if c.held[a] == 0 or c.held[b] == 0:
        return False
    key = _key(a, b)
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    slot = np.int64((mixed >> np.uint64(32)) & np.uint64(c.pairs.size - 1))
    while c.pairs[slot] != 0:
        if c.pairs[slot] == key:
            return True
        slot = (slot + 1) & (c.pairs.size - 1)
    return False


@compiled
def _with_room(c: Clusters, more: int) -> Clusters:
    """The same, with room for so many more mutexes."""
    partner, following, pairs = c.partner, c.following, c.pairs
    if c.used[ENTRIES] + 2 * more > partner.size:
        partner = np.empty(2 * partner.size + 2 * more, np.int32)
        following = np.empty(partner.size, np.int32)
        partner[: c.partner.size] = c.partner
        following[: c.partner.size] = c.following
    if 2 * (c.used[KEYS] + more) > pairs.size:
        live = 0
        for key in c.pairs:
            live += key != 0 and _of_roots(c, key)
        pairs = room_for(2 * (live + more))
        for key in c.pairs:
            if key != 0 and _of_roots(c, key):
                seen_before(pairs, key)
        c.used[KEYS] = live
    return Clusters(c.parent, c.dirty, c.head, c.tail, c.held, partner, following, pairs, c.used)


@compiled
def _of_roots(c: Clusters, key: np.uint64) -> bool:
    a, b = np.int64(key >> np.uint64(32)) - 1, np.int64(key & np.uint64(0xFFFFFFFF))
    return bool(c.parent[a] == a and c.parent[b] == b)


@compiled
def _add(c: Clusters, a: int, b: int) -> None:
    """A new mutex between two roots."""
    seen_before(c.pairs, _key(a, b))
    c.used[KEYS] += 1
    for one, other in ((a, b), (b, a)):
        entry = c.used[ENTRIES]
        c.used[ENTRIES] += 1
        c.partner[entry] = other
        _append(c, one, entry)


@compiled
def _append(c: Clusters, root: int, entry: int) -> None:
    c.following[entry] = -1
    if c.held[root] == 0:
        c.head[root] = entry
    else:
        c.following[c.tail[root]] = entry
    c.tail[root] = entry
    c.held[root] += 1


@compiled
def _merge(c: Clusters, a: int, b: int) -> None:
    """Join two roots; the one with the longer list of partners stays."""
    if c.held[a] < c.held[b]:
        a, b = b, a
    c.parent[b] = a
    c.dirty[a] |= c.dirty[b]
    entry = c.head[b]
    while entry != -1:
        after = c.following[entry]
        other = find(c.parent, c.partner[entry])
        if not seen_before(c.pairs, _key(a, other)):
            c.used[KEYS] += 1
            c.partner[entry] = other
            _append(c, a, entry)
        entry = after
    c.held[b] = 0


@compiled
def _may_lose(c: Clusters, a: int, b: int) -> bool:
    """Whether a clean b has a mutex with a dirty cluster that the outside may join with a."""
    entry = c.head[b] if c.held[b] else -1
    while entry != -1:
        other = find(c.parent, c.partner[entry])
        c.partner[entry] = other
        if c.dirty[other] and not _exclude(c, a, other):
            return True
        entry = c.following[entry]
    return False


@compiled
def _keep_strongest(c: Clusters, first: I32, second: I32, kind: U8, pending: NDArray[np.bool_]) -> None:
    """Of the pending rows keep, per pair and kind, the first, and none where there is a mutex."""
    seen = (room_for(pending.sum()), room_for(pending.sum()))
    for row in range(first.size):
        if pending[row]:
            a, b = c.parent[first[row]], c.parent[second[row]]
            if a == b or _exclude(c, a, b):
                pending[row] = False
            elif kind[row] == ATTRACTIVE:
                pending[row] = not seen_before(seen[0], _key(a, b))
            else:
                pending[row] = not seen_before(seen[1], _key(a, b))


@compiled
def _dirty_mutexes(c: Clusters) -> I32:
    """All mutexes between two dirty clusters, as pairs of roots."""
    count = 0
    found = np.empty((0, 2), np.int32)
    for pick in range(2):
        if pick == 1:
            found = np.empty((count, 2), np.int32)
            count = 0
        for key in c.pairs:
            if key != 0 and _of_roots(c, key):
                a, b = np.int64(key >> np.uint64(32)) - 1, np.int64(key & np.uint64(0xFFFFFFFF))
                if c.dirty[a] and c.dirty[b]:
                    if pick == 1:
                        found[count, 0] = a
                        found[count, 1] = b
                    count += 1
    return found
