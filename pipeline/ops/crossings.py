"""Edges across the faces between the children of a block: which clusters they join, how strongly, in which place.

A crossing is one number for each voxel of a low face: the strength of the edge to the voxel before it, 0 if that is not
usable, with the highest bit set if it is an identity edge. Both sides together know what it joins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.edges import CHANNEL_SHIFT

U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
Slab = U32
Slabs = Mapping[str, Slab]
Child = tuple[Box, Slabs, Mapping[str, U32], I32]  # its box, its slabs, its crossings, and the rows of its nodes

IDENTITY = np.uint32(1 << 31)  # above all strengths: float32 affinities have no sign


class Crossing(NamedTuple):
    """Edges, as the rows of the clusters that they join, strengths, ties, and whether they are identity edges."""

    before: I32
    after: I32
    strength: U32
    tie: NDArray[np.uint64]
    identity: NDArray[np.bool_]


def crossings(children: Sequence[Child], roi: Box) -> Crossing:
    """All usable edges across the faces between children. Positions are counted in the region of interest."""
    kinds = (np.int32, np.int32, np.uint32, np.uint64, np.bool_)
    nothing: list[Any] = [np.empty(0, kind) for kind in kinds]
    found = [Crossing(*nothing)]
    for box, slabs, crossed, rows in children:
        for axis in range(3):
            for other, other_slabs, _, other_rows in children:
                if _follows(box, other, axis):
                    low, high = faces.LOW[axis], faces.HIGH[axis]
                    place = np.flatnonzero(crossed[low])
                    value = crossed[low].reshape(-1)[place]
                    found.append(
                        Crossing(
                            _rows(other_slabs[high], place, other_rows),
                            _rows(slabs[low], place, rows),
                            value & ~IDENTITY,
                            _ties(box, axis, place, roi),
                            value & IDENTITY != 0,
                        )
                    )
    columns: list[Any] = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return Crossing(*columns)


def _rows(slab: Slab, place: NDArray[np.int64], rows: I32) -> I32:
    number = slab.reshape(-1)[place]
    if number.size and (number.min() == 0 or number.max() > rows.size):
        raise ChunkCorrupt(
            "a face slab names something that its block's own table does not list",
            way_out="run `neurotile verify`, then `neurotile run` redoes the damaged blocks",
        )
    return rows[number.astype(np.int64) - 1]


def _ties(box: Box, axis: int, place: NDArray[np.int64], roi: Box) -> NDArray[np.uint64]:
    """Channel and position, as one number, of edges stored at voxels on a low face."""
    first, second = np.divmod(place, faces.slab_shape(box.shape, faces.LOW[axis])[1])
    inside = [first, second]
    inside.insert(axis, np.zeros_like(place))
    z, y, x = (part + b - r for part, b, r in zip(inside, box.begin, roi.begin, strict=True))
    position = (z * roi.shape[1] + y) * roi.shape[2] + x
    ties: NDArray[np.uint64] = position.astype(np.uint64) | np.uint64(axis << CHANNEL_SHIFT)
    return ties


def _follows(box: Box, other: Box, axis: int) -> bool:
    """Whether a box comes right after another of the same level along an axis."""
    return all(
        box.begin[a] == (other.end[a] if a == axis else other.begin[a]) and (a == axis or box.end[a] == other.end[a])
        for a in range(3)
    )
