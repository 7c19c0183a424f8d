"""Rows of the mutex watershed: what is still known about pairs of clusters, and in which order it counts.

A row joins two nodes. Its kind is ATTRACTIVE, REPULSIVE or CERTAIN: a mutex that is a fact. Attractive and repulsive
rows carry a strength and a tie, that of the voxel edge they come from: rows are worked off by strength, the larger
first, then by tie, the smaller first, after all certain ones. Between two fixed groups of voxels only the strongest
attractive and the strongest repulsive edge matter (docs/design/mutex-watershed.md), so parallel rows are reduced to
those. Doing it twice, or to rows that two blocks both saw, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.compiled import compiled

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]

REPULSIVE, ATTRACTIVE, CERTAIN = 0, 1, 2
AXIS_BITS = 21
AXIS_MASK = (1 << AXIS_BITS) - 1


@dataclass(frozen=True)
class Rows:
    """Columns of equal length. The nodes are names: ids of voxels."""

    a: U64
    b: U64
    kind: U8
    strength: U32
    tie: U64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.a.size

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(self.a[rows], self.b[rows], self.kind[rows], self.strength[rows], self.tie[rows])

    def between(self, a: U64, b: U64) -> Rows:
        """The same rows between other nodes."""
        return Rows(a, b, self.kind, self.strength, self.tie)

    def order(self) -> NDArray[np.int64]:
        """Certain rows first, then by strength, the larger first, then by tie."""
        urgency = np.where(self.kind == CERTAIN, np.uint64(0), np.uint64(1 << 32) - self.strength.astype(np.uint64))
        return np.lexsort((self.tie, urgency))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        return {"a": self.a, "b": self.b, "kind": self.kind, "strength": self.strength, "tie": self.tie}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> Rows:
        """From a table."""
        return cls(
            table["a"].astype(np.uint64, copy=False),
            table["b"].astype(np.uint64, copy=False),
            table["kind"].astype(np.uint8, copy=False),
            table["strength"].astype(np.uint32, copy=False),
            table["tie"].astype(np.uint64, copy=False),
        )


def no_rows() -> Rows:
    """A table without rows."""
    names = np.empty(0, np.uint64)
    return Rows(names, names, np.empty(0, np.uint8), np.empty(0, np.uint32), names)


def united(parts: Iterable[Rows]) -> Rows:
    """All rows of several tables."""
    every = [no_rows(), *parts]
    a, b, kind, strength, tie = (
        np.concatenate([getattr(rows, column) for rows in every]) for column in ("a", "b", "kind", "strength", "tie")
    )
    return Rows(a, b, kind, strength, tie)


def positions(names: U64) -> NDArray[np.int64]:
    """Where the voxels with these ids lie, as columns z, y, x."""
    code = (names - np.uint64(1)).astype(np.int64)
    return np.stack([code >> 2 * AXIS_BITS, code >> AXIS_BITS & AXIS_MASK, code & AXIS_MASK], axis=-1)


def names_at(position: NDArray[np.int64]) -> U64:
    """The ids of the voxels at rows z, y, x."""
    z, y, x = position[..., 0], position[..., 1], position[..., 2]
    return (1 + (z << 2 * AXIS_BITS | y << AXIS_BITS | x)).astype(np.uint64)


def inside(names: U64, box: Box) -> NDArray[np.bool_]:
    """Which voxels lie in a box."""
    position = positions(names)
    within = (position >= np.array(box.begin)) & (position < np.array(box.end))
    return np.asarray(within.all(axis=-1), np.bool_)


def strongest(rows: Rows) -> Rows:
    """The strongest row of every pair and kind; a pair is (a, b) as it stands."""
    ordered = rows.take(rows.order())
    _, first = np.unique(ordered.a, return_inverse=True)
    _, second = np.unique(ordered.b, return_inverse=True)
    return ordered.take(_first_of_each(first, second, ordered.kind))


@compiled
def seen_before(slots: U64, key: np.uint64) -> bool:
    """Whether a key, not 0, is in a set; it is afterwards. The set must have a free slot."""
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    slot = np.int64((mixed >> np.uint64(32)) & np.uint64(slots.size - 1))
    while slots[slot] != 0:
        if slots[slot] == key:
            return True
        slot = (slot + 1) & (slots.size - 1)
    slots[slot] = key
    return False


@compiled
def room_for(count: int) -> U64:
    """An empty set with room for so many keys."""
    size = 64
    while size < 2 * count:
        size *= 2
    return np.zeros(size, np.uint64)


@compiled
def _first_of_each(first: NDArray[np.int64], second: NDArray[np.int64], kind: U8) -> NDArray[np.bool_]:
    """Which rows are the first of their pair and kind; fewer than 2**31 nodes."""
    slots = room_for(first.size)
    keep = np.zeros(first.size, np.bool_)
    for row in range(first.size):
        key = np.uint64(first[row] + 1) << np.uint64(33) | np.uint64(second[row]) << np.uint64(2) | np.uint64(kind[row])
        keep[row] = not seen_before(slots, key)
    return keep
