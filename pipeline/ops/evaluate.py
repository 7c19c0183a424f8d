"""How well a segmentation agrees with the truth: pair counts, variation of information, adapted Rand error.

1. `pairs` counts, for every pair (truth, segment), the voxels that have it: runs along x are counted at once, and a
   hash table adds up the runs. Labels of any unsigned type are read as they are, without a copy.
2. Tables of blocks are merged by adding counts: whole numbers, so the cut into blocks cannot show.
3. Truth 0 (membrane, unlabelled) is left out on request. Segment 0 (background) is one segment like any other.
4. With S the segmentation and T the truth: VI split = H(S|T), VI merge = H(T|S), in bits (log2) and in nats.
   Adapted Rand error = 1 - F1 of the pairs of voxels that both put together (as skimage defines it, without pairs of
   a voxel with itself): precision counts pairs that S puts together, recall those that T does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Labels = NDArray[np.unsignedinteger]

SMALLEST = 1024  # slots of a hash table


@dataclass(frozen=True)
class Pairs:
    """How many voxels have each pair of labels; sorted, every pair once."""

    truth: U64
    segment: U64
    voxels: I64

    @property
    def size(self) -> int:
        """The number of pairs."""
        return int(self.voxels.size)


@compiled
def _slot(truths: U64, segments: U64, voxels: I64, truth: np.uint64, segment: np.uint64) -> int:
    """Where a pair is, or may be put, in an open hash table."""
    mask = np.uint64(truths.size - 1)
    spread = truth * np.uint64(0x9E3779B97F4A7C15) + segment
    spread = (spread ^ (spread >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    slot = (spread ^ (spread >> np.uint64(32))) & mask
    while voxels[slot] and (truths[slot] != truth or segments[slot] != segment):
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@compiled
def _grown(truths: U64, segments: U64, voxels: I64) -> tuple[U64, U64, I64]:
    """The same table with twice the room."""
    wide = (np.zeros(2 * truths.size, np.uint64), np.zeros(2 * truths.size, np.uint64))
    counts = np.zeros(2 * truths.size, np.int64)
    for old in range(voxels.size):
        if voxels[old]:
            slot = _slot(wide[0], wide[1], counts, truths[old], segments[old])
            wide[0][slot], wide[1][slot], counts[slot] = truths[old], segments[old], voxels[old]
    return wide[0], wide[1], counts


@compiled
def _count(truth: Labels, segment: Labels, smallest: int) -> tuple[U64, U64, I64]:
    """Count the pairs of two flat arrays."""
    truths, segments = np.zeros(smallest, np.uint64), np.zeros(smallest, np.uint64)
    voxels = np.zeros(smallest, np.int64)
    used, begin = 0, 0
    while begin < truth.size:
        a, b, end = truth[begin], segment[begin], begin + 1
        while end < truth.size and truth[end] == a and segment[end] == b:
            end += 1
        slot = _slot(truths, segments, voxels, np.uint64(a), np.uint64(b))
        if voxels[slot] == 0:
            used += 1
            truths[slot], segments[slot] = a, b
        voxels[slot] += end - begin
        begin = end
        if 3 * used > 2 * truths.size:
            truths, segments, voxels = _grown(truths, segments, voxels)
    held = np.nonzero(voxels)[0]
    return truths[held], segments[held], voxels[held]


def pairs(truth_ZYX: Labels, segments_ZYX: Labels) -> Pairs:
    """Count the pairs of labels of two volumes."""
    if truth_ZYX.shape != segments_ZYX.shape:
        raise ValueError(f"the truth has shape {truth_ZYX.shape}, the segmentation {segments_ZYX.shape}")
    return _sorted(*_count(_flat(truth_ZYX), _flat(segments_ZYX), SMALLEST))


def _flat(labels_ZYX: Labels) -> Labels:
    """The labels in one row; signed ones are converted (a kernel for every type would take long to compile)."""
    as_is = labels_ZYX.dtype in (np.uint32, np.uint64)
    return np.ascontiguousarray(labels_ZYX, None if as_is else np.uint64).reshape(-1)


def merge(tables: Iterable[Pairs]) -> Pairs:
    """Add up the tables of blocks."""
    listed = [Pairs(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64)), *tables]
    truth, segment = (np.concatenate([getattr(t, name) for t in listed]) for name in ("truth", "segment"))
    return _sorted(truth, segment, np.concatenate([t.voxels for t in listed]))


def _sorted(truth: U64, segment: U64, voxels: I64) -> Pairs:
    """Sort pairs and add up those that occur more than once."""
    if not voxels.size:
        return Pairs(truth, segment, voxels)
    order = np.lexsort((segment, truth))
    truth, segment = truth[order], segment[order]
    new = np.append(True, (truth[1:] != truth[:-1]) | (segment[1:] != segment[:-1]))
    return Pairs(truth[new], segment[new], np.add.reduceat(voxels[order], np.flatnonzero(new)))


def scores(counted: Pairs, *, ignore_truth_zero: bool = True) -> dict[str, float | int | None]:
    """The measures; None where there is nothing left that they could be measured on."""
    if ignore_truth_zero:
        keep = counted.truth != 0
        counted = Pairs(counted.truth[keep], counted.segment[keep], counted.voxels[keep])
    truth_of, truth_voxels = _totals(counted.truth, counted.voxels)
    segment_of, segment_voxels = _totals(counted.segment, counted.voxels)
    total = int(counted.voxels.sum())
    split = _entropy(counted.voxels, truth_voxels[truth_of], total)
    merged = _entropy(counted.voxels, segment_voxels[segment_of], total)
    both, by_truth, by_segment = (_voxel_pairs(v) for v in (counted.voxels, truth_voxels, segment_voxels))
    rand = _ratio(2 * both, by_truth + by_segment)
    return {
        "voi_split": split,
        "voi_merge": merged,
        "voi": None if split is None or merged is None else split + merged,
        "voi_split_nats": _nats(split),
        "voi_merge_nats": _nats(merged),
        "voi_nats": None if split is None or merged is None else (split + merged) * math.log(2),
        "arand": None if rand is None else 1.0 - rand,
        "precision": _ratio(both, by_segment),
        "recall": _ratio(both, by_truth),
        "truth_objects": int(truth_voxels.size),
        "segments": int(segment_voxels.size),
        "voxels": total,
    }


def _totals(label: U64, voxels: I64) -> tuple[I64, I64]:
    """For every row which label it has, and the voxels of every label."""
    names, row = np.unique(label, return_inverse=True)
    total = np.zeros(names.size, np.int64)
    np.add.at(total, row, voxels)
    return row, total


def _entropy(part: I64, whole: I64, total: int) -> float | None:
    """Conditional entropy in bits; a correctly rounded sum, so that the order of rows does not count."""
    if not total:
        return None
    return math.fsum(part * np.log2(whole / part)) / total


def _voxel_pairs(voxels: I64) -> int:
    """Ordered pairs of different voxels within each group; any size is exact."""
    return sum(n * (n - 1) for n in voxels.tolist())


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _nats(bits: float | None) -> float | None:
    return None if bits is None else bits * math.log(2)
