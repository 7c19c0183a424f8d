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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
