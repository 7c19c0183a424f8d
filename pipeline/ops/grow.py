"""Growing segments into background, in the plane, before contacts are taken.

A background voxel takes a label of one of its four neighbours in the plane, the smallest one; after `steps` rounds of
that every voxel has the label of the nearest segment in steps along y and x, up to so many; of several as near, the
smallest label that has come to it. Every grown voxel is tied to its segment through grown voxels of the same label, so
a segment stays in one piece (the nearest label by Euclidean distance would not do that, and a segment that comes apart
can be complete in a chunk of the hierarchy and go on in another).

What a voxel becomes depends on the voxels within `steps` steps of it: on its place alone, for any grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces

U64 = NDArray[np.uint64]
FARTHEST = np.iinfo(np.uint64).max


class Grown(NamedTuple):
    """A block after growing: its labels, those across its low faces, and a bit for every channel of every voxel whose
    edge has an end that was background; and the labels before."""

    labels_ZYX: U64
    before: dict[str, faces.Slab]
    edges_ZYX: NDArray[np.uint8]
    own_ZYX: U64


def halo(steps: int) -> tuple[Index, Index]:
    """What must be read before and after a block: one voxel for its edges, and what may grow into it."""
    return (1, steps + 1, steps + 1), (0, steps, steps)


def grow(labels_ZYX: U64, steps: int) -> U64:
    """Labels after some rounds; voxels nearer than that to the border of the array know too little."""
    for _ in range(steps):
        nearest_ZYX = np.full(labels_ZYX.shape, FARTHEST)
        for axis in (1, 2):
            here, there = np.moveaxis(nearest_ZYX, axis, 0), np.moveaxis(labels_ZYX, axis, 0)
            for to, of in ((slice(1, None), slice(-1)), (slice(-1), slice(1, None))):
                np.minimum(here[to], np.where(there[of] == 0, FARTHEST, there[of]), out=here[to])
        grows_ZYX = (labels_ZYX == 0) & (nearest_ZYX != FARTHEST)
        labels_ZYX = np.where(grows_ZYX, nearest_ZYX, labels_ZYX)
    return labels_ZYX


def grown_block(labels_ZYX: U64, seen: Box, box: Box, steps: int) -> Grown:
    """A block's part of the labels around it; what is seen is the block with its halo, as far as there are voxels."""
    wide_ZYX, inside = grow(labels_ZYX, steps), box.slices(seen.begin)
    edges_ZYX, before = np.zeros(box.shape, np.uint8), {}
    was_ZYX = labels_ZYX != 0
    for axis, side in enumerate(faces.LOW):
        there_is = inside[axis].start > 0
        slab = tuple(slice(i.start - 1, i.start) if a == axis else i for a, i in enumerate(inside))
        first = np.zeros_like(was_ZYX[inside].take([0], axis))
        if there_is:
            before[side] = np.ascontiguousarray(wide_ZYX[slab].squeeze(axis))
            first = was_ZYX[slab]
        own_ZYX = was_ZYX[inside]
        shifted_ZYX = np.concatenate([first, own_ZYX.take(range(own_ZYX.shape[axis] - 1), axis)], axis)
        edges_ZYX |= (~(own_ZYX & shifted_ZYX)).astype(np.uint8) << axis
    own = np.ascontiguousarray(labels_ZYX[inside])
    return Grown(np.ascontiguousarray(wide_ZYX[inside]), before, edges_ZYX, own)
