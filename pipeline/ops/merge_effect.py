"""What merging pairs of segments does to the variation of information: each pair alone, and all up to a distance.

1. From the pairs (truth, segment, voxels) of ops/evaluate.py; truth 0 is left out on request. N voxels count.
2. Let m(a, b) = a log2((a + b) / a) + b log2((a + b) / b), 0 if either is 0: what mixing two sets costs.
3. Two segments of S and T voxels, which share a_i and b_i voxels with truth object i: merging them changes VI split by
   -sum m(a_i, b_i) / N and VI merge by (m(S, T) - sum m(a_i, b_i)) / N, in bits. Only rows of the two segments count.
4. A merge is right if the sum of both falls, wrong if it rises, and open if it does not change: then no voxel that
   counts lies in one of them, or the truth objects are as well apart as together.
5. Merging many pairs: segments that pairs connect get the smallest of their ids; pairs that become alike add up.
6. At a threshold all eligible pairs with a smaller distance are merged. A distance of NaN is never smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.evaluate import Pairs, merge, scores
from pipeline.ops.relabel import rename
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Effect:
    """The changes of VI in bits if a pair alone were merged, an entry a pair; NaN if no voxel counts."""

    split: F64
    merge: F64

    @property
    def sum(self) -> F64:
        """The change of the sum: below 0, the merge is right."""
        total: F64 = self.split + self.merge
        return total

    def take(self, rows: NDArray[np.integer] | Bool) -> Effect:
        """Of some of the pairs."""
        return Effect(self.split[rows], self.merge[rows])


@dataclass(frozen=True)
class Point:
    """What there is when all pairs below a distance are merged; None where nothing can be measured."""

    threshold: float
    accepted: int  # pairs
    voi_split: float | None
    voi_merge: float | None
    voi: float | None
    arand: float | None


def effect(counted: Pairs, first: U64, second: U64, *, ignore_truth_zero: bool = True) -> Effect:
    """What merging each pair of segments alone would change."""
    truth, segment, voxels = _by_segment(counted, ignore_truth_zero)
    total = int(voxels.sum())
    if not total:
        return Effect(*np.full((2, first.size), np.nan))
    found = np.zeros((2, first.size))
    begins = np.searchsorted(segment, np.stack([first, second]), side="left")
    ends = np.searchsorted(segment, np.stack([first, second]), side="right")
    for row in np.flatnonzero(first != second):  # a segment is merged with itself already
        one, other = (slice(begins[side, row], ends[side, row]) for side in (0, 1))
        _, here, there = np.intersect1d(truth[one], truth[other], assume_unique=True, return_indices=True)
        shared = _mixing(voxels[one][here], voxels[other][there])
        whole = _mixing(*(voxels[part].sum(keepdims=True) for part in (one, other)))
        found[:, row] = -math.fsum(shared) / total, math.fsum([*whole, *-shared]) / total
    return Effect(*found)


def effect_by_round(
    counted: Pairs, pairs: tuple[U64, U64], rounds: NDArray[np.integer], merged: Bool, *, ignore_truth_zero: bool = True
) -> Effect:
    """The same for candidates of several rounds: a round begins with what those before it have merged."""
    first, second = pairs
    found = np.full((2, first.size), np.nan)
    for number in np.unique(rounds):
        rows = np.flatnonzero(rounds == number)
        own = effect(counted, first[rows], second[rows], ignore_truth_zero=ignore_truth_zero)
        found[:, rows] = own.split, own.merge
        joined = rows[merged[rows]]
        counted = united(counted, first[joined], second[joined])
    return Effect(*found)


def _by_segment(counted: Pairs, ignore_truth_zero: bool) -> tuple[U64, U64, I64]:
    """The rows that count, sorted by segment, then by truth."""
    kept = np.flatnonzero(counted.truth) if ignore_truth_zero else np.arange(counted.size)
    rows = kept[np.lexsort((counted.truth[kept], counted.segment[kept]))]
    return counted.truth[rows], counted.segment[rows], counted.voxels[rows]


def _mixing(a: I64, b: I64) -> F64:
    """What mixing sets of a and b voxels costs, in bits times voxels."""
    cost = np.zeros(a.size)
    both = (a > 0) & (b > 0)
    a, b = a[both], b[both]
    cost[both] = a * np.log2((a + b) / a) + b * np.log2((a + b) / b)
    return cost


def united(counted: Pairs, first: U64, second: U64) -> Pairs:
    """The pairs (truth, segment) after merging pairs of segments: the smallest id is that of all."""
    names, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    roots = unite_pairs(names.size, *place.reshape(2, -1).astype(np.int64))
    return merge([Pairs(counted.truth, rename(counted.segment, names, names[roots]), counted.voxels)])


def accepted(distance: F64, eligible: Bool, threshold: float) -> Bool:
    """Which pairs are merged at a threshold."""
    below: Bool = eligible & (distance < threshold)  # NaN is not
    return below


def sweep(
    counted: Pairs,
    pairs: tuple[U64, U64],
    distance: F64,
    eligible: Bool,
    thresholds: Iterable[float],
    *,
    ignore_truth_zero: bool = True,
) -> list[Point]:
    """The measures at every threshold; `eligible` leaves out pairs that no distance would merge."""
    points = []
    for threshold in thresholds:
        chosen = accepted(distance, eligible, threshold)
        table = united(counted, pairs[0][chosen], pairs[1][chosen])
        found = scores(table, ignore_truth_zero=ignore_truth_zero)
        measures = (found[name] for name in ("voi_split", "voi_merge", "voi", "arand"))
        points.append(Point(threshold, int(chosen.sum()), *measures))
    return points


def best(points: Iterable[Point]) -> Point | None:
    """The point with the least VOI; of equals the lowest threshold, which merges least."""
    measured = [point for point in points if point.voi is not None]
    return min(measured, key=lambda point: (point.voi, point.threshold), default=None)
