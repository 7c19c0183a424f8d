"""Renaming by table, and the segments that a merge tree makes at a threshold.

1. A rename table is two columns, old (ascending) and new; a name that is not in it stays. Label 0 always stays.
2. The merge tree lists (a, b, score): the clusters with smallest fragments a and b became one at that score. Mean
   affinity only falls along the tree, so the segments at a threshold are the connected components of the rows with
   score > threshold. A segment is named after its smallest fragment, whose first voxel is the segment's first voxel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChunkCorrupt
from pipeline.ops.compiled import compiled
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]


def rename(labels: U64, old: U64, new: U64) -> U64:
    """A copy of the labels with every name that the table lists replaced."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    return np.asarray(_rename(flat, old, new), dtype=np.uint64).reshape(labels.shape)


@compiled
def _rename(labels: U64, old: U64, new: U64) -> U64:
    renamed = np.empty_like(labels)
    last_old = np.uint64(0)
    last_new = np.uint64(0)
    for i in range(labels.size):
        label = labels[i]
        if label != last_old:  # labels come in runs
            last_old = label
            row = np.searchsorted(old, label)
            last_new = new[row] if row < old.size and old[row] == label and label != 0 else label
        renamed[i] = last_new
    return renamed


def index_of(names: U64, values: U64, *, what: str) -> NDArray[np.int64]:
    """Where values stand in a sorted list of names; all must be there."""
    index = np.searchsorted(names, values)
    if values.size and (names.size == 0 or not np.array_equal(names[np.minimum(index, names.size - 1)], values)):
        raise ChunkCorrupt(
            f"{what} names something that its block's own table does not list",
            way_out="run `neurotile verify`, then `neurotile run` redoes the damaged blocks",
        )
    return index


def segments(a: U64, b: U64, score: NDArray[np.float64], threshold: float) -> tuple[U64, U64]:
    """The rename table fragment -> segment: connected components of all merges with a score above the threshold."""
    chosen = score > threshold
    first, second = a[chosen], b[chosen]
    names = np.unique(np.concatenate([first, second]))
    roots = unite_pairs(names.size, np.searchsorted(names, first), np.searchsorted(names, second))
    changed = roots != np.arange(names.size)
    return names[changed], names[roots[changed]]
