"""Renaming by table, and the segments that a merge tree makes at a threshold.

1. A rename table is two columns, old (ascending) and new; a name that is not in it stays. Label 0 always stays.
   Few labels search it by halving, many by a hash table made of it; a run of equal labels is searched for once.
2. Labels that are the numbers 0 to n are renamed by a plain table with one row for each (`look_up`).
3. The merge tree lists (a, b, score): the clusters with smallest fragments a and b became one at that score. Mean
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
Labels = NDArray[np.unsignedinteger]

CACHED_BYTES = 1 << 18  # of a table that is read in vectors
STRETCH = 2048  # labels that are checked at once
FEW = 4  # labels per row of a table below which turning the table into a hash table does not pay


def look_up(labels: Labels, table: Labels, out: Labels | None = None) -> Labels:
    """Every label replaced by table[label], for labels 0 to n; `out` may be the labels themselves.

    The result is `out`, or a new array of the table's type. After an error `out` holds nothing of use.
    """
    flat = np.ascontiguousarray(labels).reshape(-1)
    found = np.empty(labels.shape, table.dtype) if out is None else out
    if found.shape != labels.shape or not found.flags.c_contiguous or flat.dtype.kind != "u" or not table.size:
        raise ValueError("labels must be unsigned, the table must have rows, `out` be C-contiguous and of their shape")
    if not flat.size:
        return found
    table = np.ascontiguousarray(table)
    if table.nbytes > CACHED_BYTES:
        largest = int(_look_up_far(flat, table, found.reshape(-1)))
    else:
        last = flat.dtype.type(min(table.size - 1, np.iinfo(flat.dtype).max))
        largest = int(_look_up(flat, table, found.reshape(-1), last))
    if largest >= table.size:
        raise ChunkCorrupt(
            f"a label is {largest}, and the table of names has {table.size} rows",
            way_out="run `neurotile verify`, then `neurotile run` redoes the damaged blocks",
        )
    return found


@compiled
def _look_up(labels: Labels, table: Labels, found: Labels, last: np.unsignedinteger) -> int:
    """The largest label. One without a row gets the last row, which keeps the loop free of branches."""
    largest = labels[0]
    for i in range(labels.size):
        label = labels[i]
        largest = max(largest, label)
        found[i] = table[min(label, last)]
    return largest  # type: ignore[no-any-return]


@compiled
def _look_up_far(labels: Labels, table: Labels, found: Labels) -> int:
    """The same for a table that the nearest caches do not hold: there, one load after the other beats vectors of them.

    Stops at the first stretch with a label that has no row; the largest label up to there.
    """
    largest = labels[0]
    for begin in range(0, labels.size, STRETCH):
        part, out = labels[begin : begin + STRETCH], found[begin : begin + STRETCH]
        for label in part:
            largest = max(largest, label)
        if largest >= table.size:
            break
        for i in range(part.size):
            out[i] = table[part[i]]
    return largest  # type: ignore[no-any-return]


def rename(labels: U64, old: U64, new: U64) -> U64:
    """A copy of the labels with every name that the table lists replaced."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    renamed = np.empty(labels.shape, np.uint64)
    if flat.size < FEW * old.size:
        _rename(flat, old, new, renamed.reshape(-1))
    else:
        _rename_hashed(flat, _hashed(old, new), renamed.reshape(-1))
    return renamed


@compiled
def _rename(labels: U64, old: U64, new: U64, renamed: U64) -> None:
    last_old = np.uint64(0)
    last_new = np.uint64(0)
    for i in range(labels.size):
        label = labels[i]
        if label != last_old:  # labels come in runs
            last_old = label
            row = np.searchsorted(old, label)
            last_new = new[row] if row < old.size and old[row] == label and label != 0 else label
        renamed[i] = last_new


@compiled
def _slot(rows: U64, name: np.uint64) -> int:
    """Where a name is, or may be put, in an open hash table; 0 is no name."""
    mask = np.uint64(rows.shape[0] - 1)
    spread = (name ^ (name >> np.uint64(21))) * np.uint64(0x9E3779B97F4A7C15)
    slot = (spread ^ (spread >> np.uint64(32))) & mask
    while rows[slot, 0] != 0 and rows[slot, 0] != name:
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@compiled
def _hashed(old: U64, new: U64) -> U64:
    """A rename table as a hash table of rows (old, new), at most half full."""
    size = 16
    while size < 2 * old.size:
        size *= 2
    rows = np.zeros((size, 2), np.uint64)
    for row in range(old.size):
        if old[row] != 0:
            slot = _slot(rows, old[row])
            rows[slot, 0], rows[slot, 1] = old[row], new[row]
    return rows


@compiled
def _rename_hashed(labels: U64, rows: U64, renamed: U64) -> None:
    last_old = np.uint64(0)
    last_new = np.uint64(0)
    for i in range(labels.size):
        label = labels[i]
        if label != last_old:  # labels come in runs
            last_old, last_new = label, label
            if label != 0:
                slot = _slot(rows, label)
                if rows[slot, 0] == label:
                    last_new = rows[slot, 1]
        renamed[i] = last_new


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
    return components(a[chosen], b[chosen])


def components(first: U64, second: U64) -> tuple[U64, U64]:
    """The rename table name -> smallest name of the component, for the graph of some pairs."""
    names = np.unique(np.concatenate([first, second]))
    roots = unite_pairs(names.size, np.searchsorted(names, first), np.searchsorted(names, second))
    changed = roots != np.arange(names.size)
    return names[changed], names[roots[changed]]
