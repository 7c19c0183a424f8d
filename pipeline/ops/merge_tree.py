"""The merge tree cut at a threshold: what every name becomes, chunk by chunk, down the hierarchy.

A merge (a, b, score) says that the clusters whose smallest fragments are a < b became one at that score. Agglomeration
writes it in the chunk in which it decided it. Two facts hold in the tree, whatever the grid:

1. Scores only fall along it: a merge is no better than any merge inside the two clusters it joins.
2. Every fragment but a cluster's smallest is the larger name of exactly one merge inside that cluster.

Keeping the merges with a score above a threshold is therefore closed downward: with a merge, all that it presupposes
are kept. The segments are the connected components of the kept merges, and one chunk needs no other to know its part:

3. `cut` unites what the chunk's own kept merges join; the smallest name of a component is its root.
4. `compose` (ops/pieces.py) goes on where the parent goes on: with the names of the clusters that the chunk handed
   up. If the parent renames one of them, a merge above was kept, hence all merges inside that cluster were: all its
   fragments have that cluster's name as their root, and follow it. If some were not kept, no merge above was, and the
   parent leaves the name alone.

So a chunk reads its own merges and what its parent renames, and never the tree.

Where the whole tree is at hand, `links` sorts it once by larger name (fact 2 makes that a key), and `cut_links` gives
the segments at any threshold in one pass over the rows, smaller names first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.pieces import compose
from pipeline.ops.relabel import segments

U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Renames:
    """What the names of a chunk become: old (ascending), new, changed ones only; and how many merges it kept itself."""

    old: U64
    new: U64
    kept: int


def cut(a: U64, b: U64, score: NDArray[np.float64], *, threshold: float, handed_up: U64, parent: Renames) -> Renames:
    """One step down: a chunk's own merges above the threshold, and what the parent makes of the names it handed up."""
    own_old, own_new = segments(a, b, score, threshold)
    old, new = compose(own_old, own_new, handed_up, parent=(parent.old, parent.new))
    return Renames(old, new, own_old.size)


def unchanged() -> Renames:
    """What stands above the top of the hierarchy."""
    return Renames(np.empty(0, np.uint64), np.empty(0, np.uint64), 0)


@dataclass(frozen=True)
class Links:
    """A whole merge tree, by larger name (ascending, each once): the smaller name of its merge, and the score."""

    larger: U64
    smaller: U64
    score: NDArray[np.float64]
    above: NDArray[np.int64]  # the row in which the smaller name is the larger one; -1 if there is none

    @property
    def size(self) -> int:
        """Merges."""
        return int(self.larger.size)


def links(a: U64, b: U64, score: NDArray[np.float64]) -> Links:
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
def _cut_links(
    larger: U64, smaller: U64, score: NDArray[np.float64], above: NDArray[np.int64], threshold: float
) -> U64:
    segment = larger.copy()
    for row in range(larger.size):  # ascending: a smaller name's own row has been settled
        if score[row] > threshold:
            if above[row] >= 0:
                segment[row] = segment[above[row]]
            else:
                segment[row] = smaller[row]
    return segment
