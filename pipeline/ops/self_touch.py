"""Self-touch: pairs of segments that may be one object, and what becomes of them.

Greedy clustering parts an object that touches itself: the weak evidence at the touch is heard before the strong
evidence elsewhere. Its two halves then touch at two places or more, and at the best of these nothing parts them.

1. A pair of segments is a candidate if at least two places of it count (ops/segment_pairs.py) and the best one's mean
   affinity is above a threshold: sum * 1000 > thousandths * 65535 * edges, in integers.
2. Its point is the best place's centre: the mean of the edges' positions, half up.
3. Where embeddings of the two segments around the point have been compared, the pair is merged if the distance is
   below a threshold, and both had enough voxels there; with too few nothing is decided, and it stays apart.
4. Accepted pairs are united all at once, under the smallest name. With guards, pairs are taken by (distance, s1, s2): a
   pair is refused if the object would have too many voxels, or fragments of two classes. That is an order of the pairs
   and not of their arrival, so what is refused depends on the set alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.classes import CONFLICT
from pipeline.ops.relabel import components, rename
from pipeline.ops.segment_pairs import PairRows

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Rows = NDArray[np.integer] | NDArray[np.bool_]

PARTS = 1000  # thresholds are in thousandths
FULL = 65535
APART, MERGE, ABSTAINED, REFUSED = range(4)
AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Candidates:
    """Pairs s1 < s2, by (s1, s2): a point, how many contacts count, and the sum and the edges of the best one."""

    s1: U64
    s2: U64
    point: I64
    contacts: I64
    score_sum: I64
    edges: I64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.s1.size

    def take(self, rows: Rows) -> Candidates:
        """Some of the rows."""
        return Candidates(*(column[rows] for column in vars(self).values()))

    def inside(self, box: Box) -> Candidates:
        """Those whose point lies in a box."""
        there = (self.point >= np.array(box.begin)) & (self.point < np.array(box.end))
        return self.take(np.asarray(there.all(axis=1)))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        point = {axis: np.ascontiguousarray(self.point[:, i]) for i, axis in enumerate(AXES)}
        later = {"contacts": self.contacts, "score_sum": self.score_sum, "edges": self.edges}
        return {"s1": self.s1, "s2": self.s2, **point, **later}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> Candidates:
        """From a table."""
        s1, s2 = (table[name].astype(np.uint64, copy=False) for name in ("s1", "s2"))
        point = np.stack([table[axis].astype(np.int64, copy=False) for axis in AXES], axis=1)
        return cls(s1, s2, point, *(table[n].astype(np.int64, copy=False) for n in ("contacts", "score_sum", "edges")))


def candidates(pairs: PairRows, *, threshold: int) -> Candidates:
    """The pairs that are looked at; the threshold is in thousandths."""
    score_sum, scored, edges = (pairs.best[:, number] for number in range(3))
    wanted = (pairs.places >= 2) & (score_sum * PARTS > threshold * FULL * scored)
    point = (2 * pairs.best[:, 3:6] + edges[:, None]) // (2 * np.maximum(edges, 1)[:, None])
    found = Candidates(pairs.a, pairs.b, point, pairs.places, score_sum, scored)
    return in_order([found.take(wanted)])


def in_order(parts: list[Candidates]) -> Candidates:
    """All rows, by (s1, s2)."""
    none = np.empty(0, np.uint64)
    count = np.empty(0, np.int64)
    every = [Candidates(none, none, np.empty((0, 3), np.int64), count, count, count), *parts]
    rows = Candidates(*(np.concatenate(column) for column in zip(*(vars(p).values() for p in every), strict=True)))
    return rows.take(np.lexsort((rows.s2, rows.s1)))


def decide(voxels: I64, distance: NDArray[np.float64], *, largest: float, least_voxels: int) -> U8:
    """Merge, apart or abstained, for voxels (N, 2) and distances (N,); NaN is a segment that is not there."""
    decision = np.where(distance < largest, MERGE, APART)
    decision[(voxels < least_voxels).any(axis=1) | np.isnan(distance)] = ABSTAINED
    return decision.astype(np.uint8)


@dataclass(frozen=True)
class Guard:
    """What must not come about: objects of more voxels than a limit (0: none), and of two classes. With what is known
    of segments: their voxels, and their classes (none: 0)."""

    largest_vx: int
    voxels: Mapping[int, int]
    kinds: Mapping[int, int]


def unite(s1: U64, s2: U64, distance: NDArray[np.float64], decision: U8, guard: Guard) -> tuple[U8, tuple[U64, U64]]:
    """Decisions with those that a guard refuses, and what segments become: old (ascending), new."""
    decided = decision.copy()
    wanted = np.flatnonzero(decision == MERGE)
    wanted = wanted[np.lexsort((s2[wanted], s1[wanted], distance[wanted]))]
    objects = _Objects(guard)
    for row in wanted.tolist():
        if not objects.join(int(s1[row]), int(s2[row])):
            decided[row] = REFUSED
    merged = decided == MERGE
    return decided, components(s1[merged], s2[merged])


class _Objects:
    """Sets of segments under a guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._parent: dict[int, int] = {}
        self._voxels = dict(guard.voxels)
        self._kinds = dict(guard.kinds)

    def join(self, one: int, two: int) -> bool:
        """Make one set of two segments' sets, unless that is refused."""
        low, high = sorted((self._root(one), self._root(two)))
        if low == high:
            return True
        voxels = self._voxels.get(low, 0) + self._voxels.get(high, 0)
        kinds = {self._kinds.get(low, 0), self._kinds.get(high, 0)} - {0}
        if (self._guard.largest_vx and voxels > self._guard.largest_vx) or len(kinds) > 1 or CONFLICT in kinds:
            return False
        self._parent[high] = low
        self._voxels[low] = voxels
        self._kinds[low] = max(kinds, default=0)
        return True

    def _root(self, name: int) -> int:
        while name in self._parent:
            name = self._parent[name]
        return name


def after(earlier: tuple[U64, U64], later: tuple[U64, U64]) -> tuple[U64, U64]:
    """Two rename tables, one after the other, as one."""
    fresh = ~np.isin(later[0], earlier[0])
    old = np.concatenate([earlier[0], later[0][fresh]])
    new = np.concatenate([rename(earlier[1], *later), later[1][fresh]])
    order = np.argsort(old)
    return old[order], new[order]
