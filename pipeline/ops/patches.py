"""Patches around a point, where voxels may be coarser than the layer's, and the layer may end.

1. A coarse voxel c is the layer's voxels [c * f, (c + 1) * f); only whole ones exist. A point belongs to the coarse
   voxel that holds it, or to the last one.
2. A patch of n voxels begins n // 2 before its point. Beyond the layer an image is mirrored at the outermost voxel
   (`numpy.pad`'s "reflect", as in `models.lattice`); labels are not: there is nothing.
3. A coarse image voxel is the mean of the fine ones (ops/resample.py), a coarse label the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.resample import first_labels, mean_image

I64 = NDArray[np.int64]
Positions = tuple[I64, I64, I64]


@dataclass(frozen=True)
class Coarse:
    """A layer seen in voxels that are `factor` times as long."""

    layer: Index
    factor: Index

    @property
    def shape(self) -> Index:
        """Whole coarse voxels along each axis."""
        z, y, x = (n // f for n, f in zip(self.layer, self.factor, strict=True))
        return z, y, x

    def around(self, point: Index, extent: Index) -> Box:
        """The patch of that extent around a point of the layer, in coarse voxels; it may reach beyond."""
        z, y, x = (
            min(p // f, n - 1) - e // 2 for p, f, n, e in zip(point, self.factor, self.shape, extent, strict=True)
        )
        return Box((z, y, x), (z + extent[0], y + extent[1], x + extent[2]))

    def shown(self, patch: Box) -> Positions:
        """For every voxel of a patch, axis by axis, the coarse voxel that it shows."""
        z, y, x = (_folded(b, e, n) for b, e, n in zip(patch.begin, patch.end, self.shape, strict=True))
        return z, y, x

    def seen(self, patches: list[Box]) -> Box:
        """The coarse voxels that some patches show, as one box."""
        every = [self.shown(patch) for patch in patches]
        begin = [min(int(positions[axis].min()) for positions in every) for axis in range(3)]
        end = [max(int(positions[axis].max()) for positions in every) + 1 for axis in range(3)]
        return Box((begin[0], begin[1], begin[2]), (end[0], end[1], end[2]))


def _folded(begin: int, end: int, length: int) -> I64:
    """The voxels [begin, end) of an axis, mirrored at its ends."""
    voxels = np.arange(begin, end)
    if length == 1:
        return np.zeros_like(voxels)
    folded = voxels % (2 * (length - 1))
    return np.minimum(folded, 2 * (length - 1) - folded)


@dataclass(frozen=True)
class Seen:
    """A part of the coarse image."""

    coarse: Coarse
    box: Box
    image_ZYX: NDArray[np.uint8]

    def patch(self, patch: Box) -> NDArray[np.uint8]:
        """A patch that shows voxels of this part alone."""
        z, y, x = (p - b for p, b in zip(self.coarse.shown(patch), self.box.begin, strict=True))
        return np.ascontiguousarray(self.image_ZYX[np.ix_(z, y, x)])


def see(coarse: Coarse, patches: list[Box], read: Callable[[Box], NDArray[np.uint8]]) -> Seen:
    """The image that some patches show; `read` gives it in voxels of the layer."""
    box = coarse.seen(patches)
    return Seen(coarse, box, mean_image(read(box.scale(coarse.factor)), coarse.factor))


def sides(
    coarse: Coarse, window: Box, pair: tuple[int, int], read: Callable[[Box], NDArray[np.uint64]], *, other: int = 0
) -> NDArray[np.uint8]:
    """Which coarse voxels of a window belong to the first (1) and the second (2) of two segments, and to `other` ones;
    0 elsewhere."""
    found_ZYX = np.zeros(window.shape, np.uint8)
    inside = window.clip(Box.of_shape(coarse.shape))
    labels_ZYX = first_labels(read(inside.scale(coarse.factor)), coarse.factor)
    found_ZYX[inside.slices(window.begin)][labels_ZYX != 0] = other
    for side, segment in enumerate(pair, start=1):
        found_ZYX[inside.slices(window.begin)][labels_ZYX == np.uint64(segment)] = side
    return found_ZYX
