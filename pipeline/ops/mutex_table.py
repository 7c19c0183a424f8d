"""Clusters and the mutexes between them: the state of ops/mutex_watershed.py while it decides edges.

* `link` is a union-find forest over voxels. An entry >= 0 is a parent. A root holds ~n, n being the length of its list
  of mutexes: looking for a root also tells whether it has any.
* A pair of roots that must not join is a key in one open-addressing hash table. Every root has a linked list of the
  roots it is mutexed with, so that a mutex has two entries, one on either side.
* When b joins a, each partner x of b becomes a partner of a: the pair (a, x) is put into the table, and b's entry moves
  to a's list, or is freed if the pair was known. x's own entry still says b, which leads to a. The shorter list moves.
* Pairs of a root that has joined another are never asked for again; they fall out when the table is rebuilt.

Nothing grows inside a kernel: where there is no room the kernel returns, and `grown` makes room. Large arrays made by
numpy lie on huge pages, those made by compiled code do not, and the table is read at random.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

USED, FILLED, FREE = range(3)  # slots that are not 0; entries that were ever in use; the first freed entry, or -1
FULL = 0.6  # share of used slots at which the table is rebuilt
FRESH = 0.35  # the largest share right afterwards
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Mutexes(NamedTuple):
    """The table, and the lists: `head` per root; an entry is (partner, following entry or -1).

    Kernels take the arrays one by one: taking them out of a tuple costs two atomic operations each.
    """

    slots: U64
    head: I32
    entries: I32
    counts: I64


def no_mutexes(items: int) -> Mutexes:
    """Start without any."""
    slots = np.zeros(_power_of_two(items // 2), np.uint64)
    entries = np.empty((max(16, items // 8), 2), np.int32)
    return Mutexes(slots, np.full(items, -1, np.int32), entries, np.array([0, 0, -1]))


def grown(mutexes: Mutexes, link: I32, pairs: int) -> Mutexes:
    """With room for some more pairs and for one more mutex in the lists; stale pairs are dropped."""
    slots, head, entries, counts = mutexes
    if counts[USED] + pairs > FULL * slots.size:
        room = np.zeros(_power_of_two(int((_live(slots, link) + pairs) / FRESH)), np.uint64)
        counts[USED] = _keep_live(slots, link, room)
        slots = room
    if not _two_entries(entries, counts):
        longer = np.empty((len(entries) + len(entries) // 2, 2), np.int32)
        longer[: len(entries)] = entries
        entries = longer
    return Mutexes(slots, head, entries, counts)


def _power_of_two(at_least: int) -> int:
    return 1 << max(4, (at_least - 1).bit_length())


@compiled
def root_of(link: I32, item: int | np.int64) -> int:
    """The root of an item; halves the path on the way."""
    above = link[item]
    while above >= 0:
        next_above = link[above]
        if next_above < 0:
            return int(above)
        link[item] = next_above
        item = next_above
        above = link[item]
    return int(item)


@compiled
def _pair(a: int, b: int) -> np.uint64:
    """The key of two roots; never 0."""
    if a < b:
        return np.uint64(a + 1) << np.uint64(32) | np.uint64(b)
    return np.uint64(b + 1) << np.uint64(32) | np.uint64(a)


@compiled
def _slot(slots: U64, pair: np.uint64) -> np.uint64:
    """Where a pair stands, or the empty slot where it would."""
    last = np.uint64(slots.size - 1)
    mixed = (pair ^ pair >> np.uint64(32)) * GOLDEN
    slot = (mixed ^ mixed >> np.uint64(29)) & last
    while slots[slot] != 0 and slots[slot] != pair:
        slot = (slot + np.uint64(1)) & last
    return slot


@compiled
def exclude_each_other(link: I32, slots: U64, a: int, b: int) -> bool:
    """Whether there is a mutex between two roots."""
    return bool(link[a] < -1 and link[b] < -1 and slots[_slot(slots, _pair(a, b))] != 0)


@compiled
def _put(slots: U64, counts: I64, a: int, b: int) -> bool:
    """Put a pair of roots into the table; whether it is new."""
    pair = _pair(a, b)
    slot = _slot(slots, pair)
    if slots[slot] != 0:
        return False
    slots[slot] = pair
    counts[USED] += 1
    return True


@compiled
def has_room(slots: U64, entries: I32, counts: I64, pairs: int) -> bool:
    """Whether so many pairs fit into the table, and one mutex into the lists."""
    return counts[USED] + pairs <= FULL * slots.size and _two_entries(entries, counts)


@compiled
def _two_entries(entries: I32, counts: I64) -> bool:
    """Whether two more entries fit: both at the end, or both freed ones."""
    if counts[FILLED] + 2 <= len(entries):
        return True
    free = counts[FREE]
    return bool(free >= 0 and entries[free, 1] >= 0)


@compiled
def exclude(link: I32, slots: U64, head: I32, entries: I32, counts: I64, a: int, b: int) -> None:
    """Add a mutex between two roots that have none; there must be room."""
    _put(slots, counts, a, b)
    _enter(link, head, entries, counts, a, b)
    _enter(link, head, entries, counts, b, a)


@compiled
def _enter(link: I32, head: I32, entries: I32, counts: I64, root: int, other: int) -> None:
    """Put another root on a root's list."""
    entry = counts[FREE]
    if entry >= 0:
        counts[FREE] = entries[entry, 1]
    else:
        entry = counts[FILLED]
        counts[FILLED] += 1
    entries[entry, 0] = other
    entries[entry, 1] = head[root]
    head[root] = entry
    link[root] -= 1


@compiled
def join(link: I32, slots: U64, head: I32, entries: I32, counts: I64, a: int, b: int) -> None:
    """Make a, a root, the parent of b, a root whose list is not longer; there must be room for all of b's pairs."""
    entry = head[b] if link[b] < -1 else -1
    link[b] = a
    while entry >= 0:
        following = entries[entry, 1]
        other = root_of(link, entries[entry, 0])
        if _put(slots, counts, a, other):
            entries[entry, 0] = other
            entries[entry, 1] = head[a]
            head[a] = entry
            link[a] -= 1
        else:
            entries[entry, 1] = counts[FREE]
            counts[FREE] = entry
        entry = following


@compiled
def _is_live(link: I32, pair: np.uint64) -> bool:
    """Whether both ends of a pair are roots still."""
    first, second = np.int64(pair >> np.uint64(32)) - 1, np.int64(pair & np.uint64(0xFFFFFFFF))
    return bool(link[first] < 0 and link[second] < 0)


@compiled
def _live(slots: U64, link: I32) -> int:
    """How many pairs of a table are of use."""
    live = 0
    for pair in slots:
        if pair != 0 and _is_live(link, pair):
            live += 1
    return live


@compiled
def _keep_live(slots: U64, link: I32, room: U64) -> int:
    """Copy the pairs that are of use into an empty table; how many."""
    live = 0
    for pair in slots:
        if pair != 0 and _is_live(link, pair):
            room[_slot(room, pair)] = pair
            live += 1
    return live
