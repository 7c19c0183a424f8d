"""From pieces to fragments over the hierarchy of blocks: exact connected components, whatever the grid.

Going up, a block of level l joins what its up to eight children of level l - 1 hand it:
1. Nodes are the children's clusters that reach an internal face of their block: only those can still grow.
2. Where a child's low slab holds a label, an identity edge crosses that face: the label and the one opposite, on the
   high slab of the child before it, are one cluster. A child that is not there (masked out) is empty.
3. A joined cluster takes its smallest name, adds volumes, and unites the face bits that are still on the outside.
4. A cluster that reaches no internal face any more is complete. If it has fewer voxels than the dust limit, its name
   becomes 0: dust is decided on true volumes only.
5. The outer slabs are put together and renamed for the parent. The labels of voxels are never read again.

Going down, the rename table of the parent is composed with the block's own, until a block of level 0 knows the final
name of each of its pieces. The smallest of all pieces' names is the id of the fragment's first voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.relabel import index_of, rename
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Part:
    """What a block of any level hands to its parent: clusters that may grow, and the slabs of its internal faces."""

    box: Box
    name: U64
    volume: NDArray[np.int64]
    mask: NDArray[np.uint8]
    slabs: Mapping[str, faces.Slab]


@dataclass(frozen=True)
class Joined:
    """A part, the rename table (old ascending, changed names only) and how many clusters are complete or dust."""

    part: Part
    old: U64
    new: U64
    closed: int
    dust: int


def join(children: Sequence[Part], box: Box, *, internal: int, dust_vx: int) -> Joined:
    """One step up: join the children's clusters across the faces between them and settle the complete ones."""
    name = np.concatenate([np.empty(0, np.uint64), *(child.name for child in children)])
    volume = np.concatenate([np.empty(0, np.int64), *(child.volume for child in children)])
    mask = np.concatenate(
        [np.empty(0, np.uint8), *(child.mask & np.uint8(faces.outer_bits(child.box, box)) for child in children)]
    )
    order = np.argsort(name)
    name, volume, mask = name[order], volume[order], mask[order]
    crossings = list(_crossings(children))
    before, after = (
        index_of(name, np.concatenate([np.empty(0, np.uint64), *side]), what="a face slab")
        for side in (zip(*crossings, strict=True) if crossings else ((), ()))
    )
    root = unite_pairs(name.size, before, after)
    slabs = faces.mosaic(((child.box, child.slabs) for child in children), box, internal)
    return _settle(Part(box, name, volume, mask, slabs), root, dust_vx)


def _settle(part: Part, root: NDArray[np.int64], dust_vx: int) -> Joined:
    """Fold nodes into their roots; complete clusters leave, as dust or under their final name."""
    volume = np.zeros_like(part.volume)
    mask = np.zeros_like(part.mask)
    np.add.at(volume, root, part.volume)
    np.bitwise_or.at(mask, root, part.mask)
    is_root = root == np.arange(root.size)
    complete = is_root & (mask == 0)
    dust = complete & (volume < dust_vx)
    growing = is_root & (mask != 0)
    new = np.where(dust, np.uint64(0), part.name)[root]
    changed = new != part.name
    old, new = part.name[changed], new[changed]
    slabs = {side: rename(slab, old, new) for side, slab in part.slabs.items()}
    upward = Part(part.box, part.name[growing], volume[growing], mask[growing], slabs)
    return Joined(upward, old, new, closed=int(complete.sum() - dust.sum()), dust=int(dust.sum()))


def _crossings(children: Sequence[Part]) -> Iterator[tuple[U64, U64]]:
    """Pairs of clusters (before, after) that an identity edge joins across a face between two children."""
    at = {child.box.begin: child for child in children}
    for child in children:
        for axis in range(3):
            for other in at.values():
                if _follows(child.box, other.box, axis):
                    after = child.slabs[faces.LOW[axis]]
                    crossing = after != 0
                    yield other.slabs[faces.HIGH[axis]][crossing], after[crossing]


def _follows(box: Box, other: Box, axis: int) -> bool:
    """Whether a box comes right after another of the same level along an axis."""
    return all(
        box.begin[a] == (other.end[a] if a == axis else other.begin[a]) and (a == axis or box.end[a] == other.end[a])
        for a in range(3)
    )


def compose(joined_old: U64, joined_new: U64, growing: U64, *, parent: tuple[U64, U64]) -> tuple[U64, U64]:
    """One step down: the final names behind a block's own rename table and behind its clusters that grew."""
    parent_old, parent_new = parent
    old = np.concatenate([joined_old, growing])
    new = rename(np.concatenate([joined_new, growing]), parent_old, parent_new)
    order = np.argsort(old)
    old, new = old[order], new[order]
    changed = old != new
    return old[changed], new[changed]
