"""The six faces of a block: what a block hands to its parent instead of its voxels.

A slab is the labels of the one-voxel layer on a face, as an array over the two other axes (or whatever else there is
one of for each of its voxels). Bits and names go z-, z+,
y-, y+, x-, x+ from bit 0, as in Grid.internal_faces; `low` is the minus side, `high` the plus side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import AXES, Box, Index

Slab = NDArray[np.uint64]

Kind = TypeVar("Kind", bound=np.generic)

LOW = tuple(f"low_{axis}" for axis in AXES)
HIGH = tuple(f"high_{axis}" for axis in AXES)
LOW_BITS = 0b010101
NAMES = tuple(name for pair in zip(LOW, HIGH, strict=True) for name in pair)  # in the order of the bits


def names_of(bits: int) -> tuple[str, ...]:
    """The names of the faces whose bits are set."""
    return tuple(name for bit, name in enumerate(NAMES) if bits >> bit & 1)


def slab_shape(shape: Index, name: str) -> tuple[int, int]:
    """The extent of a face of a block."""
    axis = NAMES.index(name) // 2
    first, second = (extent for other, extent in enumerate(shape) if other != axis)
    return first, second


def slab(labels_ZYX: NDArray[Kind], name: str) -> NDArray[Kind]:
    """The labels on one face of a block."""
    axis, side = divmod(NAMES.index(name), 2)
    return np.ascontiguousarray(np.take(labels_ZYX, -side, axis=axis))


def outer_bits(child: Box, parent: Box) -> int:
    """The faces of a child that lie on the same face of its parent."""
    bits = 0
    for axis in range(3):
        bits |= (child.begin[axis] == parent.begin[axis]) << (2 * axis)
        bits |= (child.end[axis] == parent.end[axis]) << (2 * axis + 1)
    return bits


def mosaic(
    children: Iterable[tuple[Box, Mapping[str, NDArray[np.uint32]]]], box: Box, bits: int
) -> dict[str, NDArray[np.uint32]]:
    """The slabs of a parent, put together from its children's; a child that is not there leaves zeros."""
    whole = {name: np.zeros(slab_shape(box.shape, name), np.uint32) for name in names_of(bits)}
    for child, slabs in children:
        where = child.slices(box.begin)
        for name in names_of(bits & outer_bits(child, box)):
            axis = NAMES.index(name) // 2
            first, second = (part for other, part in enumerate(where) if other != axis)
            whole[name][first, second] = slabs[name]
    return whole
