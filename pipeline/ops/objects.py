"""The largest objects of a segmentation and their weakest bridges, from the merge tree and no voxel.

1. Scores only fall along the tree and sizes grow, so the last merge of an object is the one in which it has its full
   size, and it has the lowest score of all: it is the object's weakest bridge. An object without a merge is a fragment.
2. A chunk looks at its own kept merges, and at the fragments that became complete in it. Of each name that no chunk
   above renames it states the largest size it knows, and its bridge; the LISTED largest of them are its list.
3. The lists of all chunks together hold the largest objects: for every name the largest statement counts. An object
   that is missing in the list of the chunk of its last merge has LISTED others before it, whose sizes only grow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.merge_tree import Merges, Renames
from pipeline.ops.relabel import rename

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
LISTED = 10


@dataclass(frozen=True)
class Objects:
    """Objects, the largest first; of equals the smaller name. `voxels_b` is 0 where there is no bridge."""

    name: U64
    voxels: I64
    score: NDArray[np.float64]  # of the weakest bridge
    tie: U64
    voxels_a: I64
    voxels_b: I64
    kind: NDArray[np.uint16] | None = None  # its class, if fragments have classes

    @property
    def size(self) -> int:
        """How many."""
        return int(self.name.size)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        table = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in table.items() if column is not None}


def list_objects(
    own: Merges, fragment: U64, voxels: I64, renames: Renames, kind: NDArray[np.uint16] | None = None
) -> Objects:
    """A chunk's list: from its kept merges, its complete fragments, and what its names become."""
    bridged = Objects(own.a, own.voxels, own.score, own.tie, own.voxels_a, own.voxels_b, own.kind)
    none = np.zeros(fragment.size, np.int64)
    single = Objects(fragment, voxels, none.astype(np.float64), none.astype(np.uint64), voxels, none, kind)
    final = [_final(objects, renames) for objects in (bridged, single)]
    return largest(final)


def _final(objects: Objects, renames: Renames) -> Objects:
    """Those whose name stays."""
    return _take(objects, np.flatnonzero(rename(objects.name, renames.old, renames.new) == objects.name))


def largest(lists: Iterable[Objects]) -> Objects:
    """Of every name the largest statement, and of those the LISTED largest."""
    found = list(lists)
    tables = [one.columns() for one in found]
    every = Objects(**{name: np.concatenate([table[name] for table in tables]) for name in tables[0]})
    order = np.lexsort((-every.voxels, every.name))
    first = np.ones(order.size, np.bool_)
    first[1:] = every.name[order[1:]] != every.name[order[:-1]]
    rows = order[first]
    return _take(every, rows[np.lexsort((every.name[rows], -every.voxels[rows]))][:LISTED])


def _take(objects: Objects, rows: NDArray[np.integer]) -> Objects:
    return Objects(**{name: column[rows] for name, column in objects.columns().items()})
