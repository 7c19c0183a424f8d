"""Classes of fragments (vessel, soma, glia, ...): a vote over each whole fragment, and what follows for its neighbours.

1. A voxel of a fragment is a vote for the class that a class volume gives it: 1 to 255, or 0 for none. `count` counts
   the votes of a block by (class, fragment).
2. Up: `tally` adds up the votes of a chunk's children. A fragment is complete in the chunk in which agglomeration
   takes it as complete (ops/agglomerate.py): it reaches no internal face, and its level `until` is reached. Its class
   is decided there, on all its votes. The votes of the others go up.
3. A class is decided by most votes, of equals the smaller number, if these are at least a share of all voxels of the
   fragment; otherwise the fragment has no class. All numbers are whole.
4. Down: `descend` adds to what a chunk has decided what its parent says of the fragments that it handed up. A block
   of level 0 then knows the classes of all its fragments.
5. `separate` drops the edges between two fragments of different classes before anything merges. It looks at nothing
   but the two ends, so every grid drops the same voxel edges. Later it could not be done: once a fragment has merged,
   its neighbours' statistics are added up with those of others.
6. Fragments of two classes may still come together through fragments without a class. `join` says for every merge what
   class its cluster has: none, one, or CONFLICT. That only grows along the merge tree (ops/merge_tree.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import Edges
from pipeline.ops.evaluate import Pairs, merge, pairs

U64 = NDArray[np.uint64]
U16 = NDArray[np.uint16]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

LARGEST = 255  # number of a class
CONFLICT = 256  # the class of a cluster that holds fragments of several
PARTS = 1000  # a share is a whole number of thousandths


@dataclass(frozen=True)
class Classes:
    """The fragments that have a class, ascending, and which."""

    name: U64
    kind: U16

    @property
    def size(self) -> int:
        """How many."""
        return int(self.name.size)

    def of(self, names: U64) -> U16:
        """The classes of some fragments; 0 for those that are not listed."""
        if not self.size:
            return np.zeros(names.size, np.uint16)
        row = np.minimum(np.searchsorted(self.name, names), self.size - 1)
        return np.where(self.name[row] == names, self.kind[row], np.uint16(0))


def no_classes() -> Classes:
    """A table without rows."""
    return Classes(np.empty(0, np.uint64), np.empty(0, np.uint16))


def together(tables: Sequence[Classes]) -> Classes:
    """Several tables as one; a fragment that is in two of them has the same class in both."""
    name, first = np.unique(np.concatenate([no_classes().name, *(t.name for t in tables)]), return_index=True)
    return Classes(name, np.concatenate([no_classes().kind, *(t.kind for t in tables)])[first])


@dataclass(frozen=True)
class Part:
    """What a chunk hands to its parent: incomplete fragments (ascending), the internal faces they reach, the level at
    which each is complete unless it reaches a face, and the votes: `truth` is the class, `segment` the fragment."""

    box: Box
    name: U64
    mask: U8
    until: U8
    votes: Pairs


@dataclass(frozen=True)
class Tallied:
    """What is left for the parent, and the classes that were decided here."""

    part: Part
    decided: Classes


def count(labels_ZYX: U64, classes_ZYX: U8) -> Pairs:
    """The votes of a block, by class (0: none) and fragment."""
    found = pairs(classes_ZYX, labels_ZYX)
    return _take(found, found.segment != 0)


def tally(children: Sequence[Part], box: Box, *, share: int, level: int) -> Tallied:
    """One step up, to a chunk of a level: at level 0 the block is its own child. The share is in thousandths."""
    name, place = np.unique(np.concatenate([child.name for child in children]), return_inverse=True)
    mask, until = np.zeros(name.size, np.uint8), np.zeros(name.size, np.uint8)
    rows = 0
    for child in children:
        here = place[rows : rows + child.name.size]  # a child's names differ
        rows += here.size
        mask[here] |= child.mask & np.uint8(faces.outer_bits(child.box, box))
        until[here] = np.maximum(until[here], child.until)
    waits = (mask != 0) | (until > level)
    votes = merge(child.votes for child in children)
    waiting = np.isin(votes.segment, name[waits])
    part = Part(box, name[waits], mask[waits], until[waits], _take(votes, waiting))
    return Tallied(part, decide(_take(votes, ~waiting), share))


def decide(votes: Pairs, share: int) -> Classes:
    """The classes of fragments whose votes are all there."""
    if not votes.size:
        return no_classes()
    order = np.lexsort((votes.truth, -votes.voxels, votes.truth == 0, votes.segment))
    fragment, voxels = votes.segment[order], votes.voxels[order]
    first = np.flatnonzero(np.append(True, fragment[1:] != fragment[:-1]))
    kind = votes.truth[order][first].astype(np.uint16)  # 0 comes last: it is first where there is nothing else
    enough = (kind != 0) & (voxels[first] * PARTS >= share * np.add.reduceat(voxels, first))
    return Classes(fragment[first][enough], kind[enough])


def descend(own: Classes, handed_up: U64, parent: Classes) -> Classes:
    """One step down: what the chunk decided itself, and what became of the fragments that it handed up."""
    known = np.isin(parent.name, handed_up)
    return together([own, Classes(parent.name[known], parent.kind[known])])


def separate(edges: Edges, classes: Classes) -> tuple[Edges, int]:
    """The edges that are not between two different classes; and of how many voxel edges the others are made."""
    first, second = classes.of(edges.a), classes.of(edges.b)
    apart = (first != 0) & (second != 0) & (first != second)
    if not apart.any():
        return edges, 0
    return edges.take(np.flatnonzero(~apart)), int(edges.count[apart].sum())


@compiled
def join(kind: U16, a: I32, b: I32) -> U16:
    """The class of the cluster at every merge; a cluster's class comes to stand at its smallest node."""
    joined = np.empty(a.size, np.uint16)
    for row in range(a.size):
        one, other = kind[a[row]], kind[b[row]]
        if one == 0:
            one = other
        elif other != 0 and other != one:
            one = np.uint16(CONFLICT)
        kind[a[row]] = one
        joined[row] = one
    return joined


def _take(votes: Pairs, rows: NDArray[np.bool_]) -> Pairs:
    return Pairs(votes.truth[rows], votes.segment[rows], votes.voxels[rows])
