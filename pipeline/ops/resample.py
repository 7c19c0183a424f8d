"""Change of voxel size by whole factors: exact, and the same for every machine.

1. An image gets coarser by the mean of the voxels that make up a coarse one, in integers, a half rounded up. At a far
   border that is no multiple of the factor, a coarse voxel is the mean of what there is.
2. Labels get coarser by the first voxel (z, y, x order) of the coarse one: no vote, no new label.
3. Labels get finer by repetition.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index


def mean_image(image_ZYX: NDArray[np.uint8], factor: Index) -> NDArray[np.uint8]:
    """Coarser by the mean, half rounded up."""
    if factor == (1, 1, 1):
        return image_ZYX
    z, y, x = (-(-n // f) for n, f in zip(image_ZYX.shape, factor, strict=True))
    total = np.zeros((z, y, x), np.uint32)
    for corner in product(*(range(f) for f in factor)):
        part = image_ZYX[tuple(slice(o, None, f) for o, f in zip(corner, factor, strict=True))]
        total[tuple(slice(n) for n in part.shape)] += part
    members = _members(image_ZYX.shape, factor)
    total *= 2
    total += members
    total //= 2 * members
    return total.astype(np.uint8)


def _members(shape: tuple[int, ...], factor: Index) -> NDArray[np.uint32]:
    """How many fine voxels make up each coarse one; broadcast along axes where all are alike."""
    members = np.ones((1, 1, 1), np.uint32)
    for axis, (n, f) in enumerate(zip(shape, factor, strict=True)):
        along = np.full(-(-n // f) if n % f else 1, f, np.uint32)
        if n % f:
            along[-1] = n % f
        members = members * np.expand_dims(along, [a for a in range(3) if a != axis])
    return members


def first_labels(labels_ZYX: NDArray[Any], factor: Index) -> NDArray[Any]:
    """Coarser by the first voxel of each coarse one."""
    z, y, x = factor
    return np.ascontiguousarray(labels_ZYX[::z, ::y, ::x])


def upsample_labels(labels_ZYX: NDArray[Any], factor: Index) -> NDArray[Any]:
    """Finer by repetition."""
    for axis, f in enumerate(factor):
        if f > 1:
            labels_ZYX = np.repeat(labels_ZYX, f, axis)
    return labels_ZYX
