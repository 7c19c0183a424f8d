"""The contacts of merged segments, from the contacts of their fragments; no voxel is looked at.

1. Fragments take the names of their segments. A contact inside one segment is none any more.
2. The contacts of a pair of segments are the connected components, over the stored adjacency, of the contacts between
   a fragment of one and a fragment of the other. Counting the stored rows instead would invent contacts.
3. Counts of edges, sums and positions (weighted by edges) add, since every edge belongs to one contact; boxes unite;
   the smallest name is the name. So a row is what the relabelled voxels would have given.
4. Voxels do not add: one can lie in several contacts. The number of voxels is that of the stored rows, each counted
   for itself: an upper bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.contact_table import Adjacency, ContactRows, fold
from pipeline.ops.relabel import index_of, rename
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]


def join_contacts(contacts: ContactRows, adjacency: Adjacency, segments: tuple[U64, U64]) -> ContactRows:
    """The contacts between segments, by (a, b, name); `segments` is the rename table fragment -> segment."""
    one, two = rename(contacts.a, *segments), rename(contacts.b, *segments)
    kept = np.flatnonzero(one != two)
    kept = kept[np.argsort(contacts.name[kept])]
    low, high = np.minimum(one, two)[kept], np.maximum(one, two)[kept]
    chosen = contacts.take(kept)
    between = ContactRows(chosen.name, low, high, chosen.sums, chosen.begin, chosen.end)
    inside = np.isin(adjacency.first, between.name) & np.isin(adjacency.second, between.name)
    first = index_of(between.name, adjacency.first[inside], what="the adjacency of contacts")
    second = index_of(between.name, adjacency.second[inside], what="the adjacency of contacts")
    same = (low[first] == low[second]) & (high[first] == high[second])
    joined = fold(between, unite_pairs(between.size, first[same], second[same]))
    return joined.take(np.lexsort((joined.name, joined.b, joined.a)))
