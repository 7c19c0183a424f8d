"""The merge tree cut at a threshold: what every name becomes, chunk by chunk, down the hierarchy.

A merge (a, b, score) says that the clusters whose smallest fragments are a < b became one at that score. Agglomeration
writes it in the chunk in which it decided it, with the sizes of both clusters. Three facts hold, whatever the grid:

1. Scores only fall along the tree: a merge is no better than any merge inside the two clusters it joins.
2. Sizes only grow along it; so do the sets of classes (ops/classes.py) in the clusters.
3. Every fragment but a cluster's smallest is the larger name of exactly one merge inside that cluster.

`kept` keeps the merges with a score above a threshold and, as guards, a merged size up to a limit and no two classes
in the merged cluster. By 1 and 2 it is closed: with a merge, all that it presupposes are kept. So the outcome depends
on no order, and the segments are the connected components of the kept merges. One chunk needs no other to know its
part:

4. `cut` unites what the chunk's own kept merges join; the smallest name of a component is its root.
5. `compose` (ops/pieces.py) goes on where the parent goes on: with the names of the clusters that the chunk handed
   up. If the parent renames one of them, a merge above was kept, hence all merges inside that cluster were: all its
   fragments have that cluster's name as their root, and follow it. If some were not kept, no merge above was, and the
   parent leaves the name alone.

So a chunk reads its own merges and what its parent renames, and never the tree.

Where the whole tree is at hand, `links` sorts it once by larger name (3 makes that a key), and `cut_links` gives the
segments at any threshold in one pass over the rows, smaller names first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.classes import CONFLICT
from pipeline.ops.compiled import compiled
from pipeline.ops.pieces import compose
from pipeline.ops.relabel import components

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Merges:
    """Rows of the merge tree. `tie` names the voxel edge that decided; sizes are those of the two clusters.

    `kind` is the class of the merged cluster, if fragments have classes.
    """

    a: U64
    b: U64
    score: F64
    tie: U64
    voxels_a: I64
    voxels_b: I64
    kind: NDArray[np.uint16] | None = None

    @property
    def size(self) -> int:
        """Rows."""
        return int(self.a.size)

    @property
    def voxels(self) -> I64:
        """The sizes of the merged clusters."""
        return self.voxels_a + self.voxels_b

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Merges:
        """Some of the rows."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Merges(**{name: column[rows] for name, column in columns.items() if column is not None})

    @property
    def conflicting(self) -> NDArray[np.bool_]:
        """Which of them make a cluster with fragments of several classes."""
        return np.zeros(self.size, np.bool_) if self.kind is None else self.kind == CONFLICT


def kept(merges: Merges, *, threshold: float, largest_vx: int = 0, one_class: bool = False) -> Merges:
    """The merges above a threshold whose cluster is no larger than a limit (0: none), and of one class if so wanted."""
    keep = merges.score > threshold
    if largest_vx:
        keep &= merges.voxels <= largest_vx
    if one_class:
        keep &= ~merges.conflicting
    return merges.take(keep)


@dataclass(frozen=True)
class Renames:
    """What the names of a chunk become: old (ascending), new, changed ones only; and how many merges it kept itself."""

    old: U64
    new: U64
    kept: int


def cut(own: Merges, *, handed_up: U64, parent: Renames) -> Renames:
    """One step down: a chunk's own kept merges, and what the parent makes of the names that the chunk handed up."""
    joined = components(own.a, own.b)
    old, new = compose(*joined, handed_up, parent=(parent.old, parent.new))
    return Renames(old, new, own.size)


def unchanged() -> Renames:
    """What stands above the top of the hierarchy."""
    return Renames(np.empty(0, np.uint64), np.empty(0, np.uint64), 0)


@dataclass(frozen=True)
class Links:
    """A whole merge tree, by larger name (ascending, each once): the smaller name of its merge, and the score."""

    larger: U64
    smaller: U64
    score: F64
    above: I64  # the row in which the smaller name is the larger one; -1 if there is none

    @property
    def size(self) -> int:
        """Merges."""
        return int(self.larger.size)


def links(a: U64, b: U64, score: F64) -> Links:
    """Sort a tree for cuts at many thresholds."""
    order = np.argsort(b)
    larger, smaller = b[order], a[order]
    above = np.searchsorted(larger, smaller)
    if larger.size:
        above[larger[np.minimum(above, larger.size - 1)] != smaller] = -1
    return Links(larger, smaller, score[order], above)


def cut_links(tree: Links, threshold: float) -> U64:
    """What every larger name becomes at a threshold: its segment's smallest fragment."""
    return np.asarray(_cut_links(tree.larger, tree.smaller, tree.score, tree.above, threshold), np.uint64)


@compiled
def _cut_links(larger: U64, smaller: U64, score: F64, above: I64, threshold: float) -> U64:
    segment = larger.copy()
    for row in range(larger.size):  # ascending: a smaller name's own row has been settled
        if score[row] > threshold:
            if above[row] >= 0:
                segment[row] = segment[above[row]]
            else:
                segment[row] = smaller[row]
    return segment
