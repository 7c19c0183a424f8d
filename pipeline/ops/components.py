"""The pieces of a block: connected components of its identity edges, in one raster scan, and what is known of each.

The root of a set is its smallest index, hence its first voxel, so pieces are numbered in the order of their names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index
from pipeline.ops.compiled import compiled
from pipeline.ops.identity_edges import Ordered
from pipeline.ops.union_find import find

I32 = NDArray[np.int32]


class Components(NamedTuple):
    """The number of every voxel's piece (-1: background), and by number: first voxel's name, voxels, best edge."""

    number_ZYX: I32
    name: NDArray[np.uint64]
    size: NDArray[np.int64]
    height: NDArray[np.uint32]


def components(bits_ZYX: NDArray[np.uint8], edges_CZYX: Ordered, offset: Index, origin: Index) -> Components:
    """The components inside a block whose first voxel is `origin`; the block begins at `offset` in the edges."""
    parent_ZYX, count = _forest(bits_ZYX)
    return _number(parent_ZYX, count, bits_ZYX, edges_CZYX, offset, origin)


@compiled
def _join(parent: I32, root: int, other: int) -> int:
    """Join a set, given by its root, with the set of another item; the new root."""
    other_root = find(parent, other)
    if other_root < root:
        parent[root] = other_root
        return other_root
    parent[other_root] = root
    return root


@compiled
def _forest(bits_ZYX: NDArray[np.uint8]) -> tuple[I32, int]:
    """A union-find forest over the block's voxels: parents never come later; -1 for background. And its roots."""
    depth, height, width = bits_ZYX.shape
    parent_ZYX = np.empty((depth, height, width), np.int32)
    parent = parent_ZYX.reshape(-1)
    here = -1
    for z in range(depth):
        for y in range(height):
            inside = (z > 0) | (y > 0) << 1
            root = 0
            for x in range(width):
                here += 1
                bits = bits_ZYX[z, y, x]
                if bits == 0:
                    parent[here] = -1
                    continue
                if bits & 4 == 0 or x == 0:  # otherwise the root of the voxel before is still the root
                    root = here
                parent[here] = root
                if bits & inside & 2:
                    root = _join(parent, root, here - width)
                if bits & inside & 1:
                    root = _join(parent, root, here - height * width)
    count = 0
    for item in range(parent.size):
        count += parent[item] == item
    return parent_ZYX, count


@compiled
def _number(
    parent_ZYX: I32, count: int, bits_ZYX: NDArray[np.uint8], edges_CZYX: Ordered, offset: Index, origin: Index
) -> Components:
    """Number the pieces; the forest becomes the numbers."""
    depth, height, width = parent_ZYX.shape
    parent = parent_ZYX.reshape(-1)
    name, size = np.empty(count, np.uint64), np.zeros(count, np.int64)
    top = np.zeros(count, np.uint32)
    found = 0
    here = -1
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                here += 1
                before = parent[here]
                if before == -1:
                    continue
                if before == here:
                    name[found] = 1 + ((z + origin[0]) << 42 | (y + origin[1]) << 21 | (x + origin[2]))
                    piece = found
                    found += 1
                else:
                    piece = parent[before]
                parent[here] = piece
                size[piece] += 1
                bits = bits_ZYX[z, y, x]
                best = np.uint32(0)
                for channel in range(3):
                    code = np.uint32(edges_CZYX[channel, z + offset[0], y + offset[1], x + offset[2]])
                    best = max(best, code * np.uint32(bits >> channel & 1))
                top[piece] = max(top[piece], best)
    return Components(parent_ZYX, name, size, top)
