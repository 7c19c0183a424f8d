"""Fragments of one block: basins of identity edges (steepest ascent, plus everything at or above a high threshold).

An edge (c, p) joins voxel p with the voxel before it along axis c; its code is stored at p. Edges are ordered by
(code descending, c ascending, position of p ascending), strictly.

1. An edge is usable iff its code > low code. An edge that leaves the region of interest does not exist.
2. best(p) is the first usable edge, in this order, among the six edges of p. A voxel without one is background, 0.
3. Identity edges are the best edges of all voxels, and all usable edges with a code >= high code.
4. Fragments are the connected components of identity edges over the whole volume, called by the id of their first
   voxel: 1 + (z << 42 | y << 21 | x). Components with fewer voxels than the dust limit become background.

There is no further linking by size here.

Whether an edge is an identity edge depends on the codes around its two ends alone, never on a block grid, so blocks
can do 1 to 3 by themselves and components are joined over the hierarchy afterwards (ops/pieces.py). A block treats
the edges stored in it. Their other end lies at most one voxel before the block along one axis; that voxel's own six
codes are stored at itself and one voxel behind it along every axis: inside the block grown by one voxel on every
side. Inside the block the components are found in one raster scan: the root of a set is its smallest index, hence
its first voxel, so pieces come out sorted by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.union_find import find

U64 = NDArray[np.uint64]
NO_EDGE = 6  # best edges: 2c is the edge stored at the voxel itself, 2c + 1 the one stored behind it along axis c
HALO: Index = (1, 1, 1)


@dataclass(frozen=True)
class Pieces:
    """The fragments' pieces inside one block: names ascending, voxels, bits of the internal faces they reach."""

    labels_ZYX: U64
    name: U64
    volume: NDArray[np.int64]
    mask: NDArray[np.uint8]
    slabs: Mapping[str, faces.Slab]  # low: only where an identity edge crosses that face; high: all labels


def watershed(codes_CZYX: NDArray[Any], block: Box, roi: Box, *, codes: tuple[int, int], internal: int) -> Pieces:
    """The pieces of a block, from the codes of the block grown by HALO and clipped to the region of interest.

    `codes` is (low code, high code); `internal` holds the bits of the faces that are not the region's own border.
    """
    read = block.grow(HALO).clip(roi)
    edges_CZYX = codes_CZYX.copy()
    for axis in range(3):
        if read.begin[axis] == roi.begin[axis]:
            edges_CZYX[axis][(slice(None),) * axis + (0,)] = 0
    best_ZYX = _best_edges(edges_CZYX, codes[0])
    offset: Index = block.shift((-read.begin[0], -read.begin[1], -read.begin[2])).begin
    parent_ZYX = _components(edges_CZYX, best_ZYX, offset, block.shape, codes)
    labels_ZYX, name, volume, mask = _name_pieces(parent_ZYX, block.begin, internal)
    slabs = {}
    for side in faces.names_of(internal):
        slabs[side] = faces.slab(labels_ZYX, side)
        if side in faces.LOW:
            crossing = _identity_on_low_face(
                edges_CZYX, best_ZYX, block.slices(read.begin), faces.LOW.index(side), codes
            )
            slabs[side][~crossing] = 0
    return Pieces(labels_ZYX, name, volume, mask, slabs)


def _identity_on_low_face(
    edges_CZYX: NDArray[Any],
    best_ZYX: NDArray[np.uint8],
    inner: tuple[slice, slice, slice],
    axis: int,
    codes: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which edges across a block's low face along an axis are identity edges."""
    own: list[slice | int] = list(inner)
    before: list[slice | int] = list(inner)
    own[axis], before[axis] = inner[axis].start, inner[axis].start - 1
    code = edges_CZYX[axis][tuple(own)]
    chosen = (best_ZYX[tuple(own)] == 2 * axis) | (best_ZYX[tuple(before)] == 2 * axis + 1)
    crossing: NDArray[np.bool_] = (code > codes[0]) & (chosen | (code >= codes[1]))
    return crossing


@compiled
def _best_edges(edges_CZYX: NDArray[Any], low_code: int) -> NDArray[np.uint8]:
    """The best edge of every voxel; right wherever all six edges of a voxel are in the array."""
    _, depth, height, width = edges_CZYX.shape
    best_ZYX = np.empty((depth, height, width), np.uint8)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                top = np.int64(low_code)
                choice = NO_EDGE
                # the order of the six is that of (c, position): a later edge must be strictly better
                if edges_CZYX[0, z, y, x] > top:
                    top, choice = np.int64(edges_CZYX[0, z, y, x]), 0
                if z + 1 < depth and edges_CZYX[0, z + 1, y, x] > top:
                    top, choice = np.int64(edges_CZYX[0, z + 1, y, x]), 1
                if edges_CZYX[1, z, y, x] > top:
                    top, choice = np.int64(edges_CZYX[1, z, y, x]), 2
                if y + 1 < height and edges_CZYX[1, z, y + 1, x] > top:
                    top, choice = np.int64(edges_CZYX[1, z, y + 1, x]), 3
                if edges_CZYX[2, z, y, x] > top:
                    top, choice = np.int64(edges_CZYX[2, z, y, x]), 4
                if x + 1 < width and edges_CZYX[2, z, y, x + 1] > top:
                    choice = 5
                best_ZYX[z, y, x] = choice
    return best_ZYX


@compiled
def _join(parent: NDArray[np.int32], root: int, other: int) -> int:
    """Join a set, given by its root, with the set of another item; the new root."""
    other_root = find(parent, other)
    if other_root < root:
        parent[root] = other_root
        return other_root
    parent[other_root] = root
    return root


@compiled
def _components(
    edges_CZYX: NDArray[Any],
    best_ZYX: NDArray[np.uint8],
    offset: Index,
    shape: Index,
    codes: tuple[int, int],
) -> NDArray[np.int32]:
    """A union-find forest over the block's voxels: parents never come later; -1 for background."""
    low_code, high_code = codes
    depth, height, width = shape
    parent_ZYX = np.empty((depth, height, width), np.int32)
    parent = parent_ZYX.reshape(-1)
    here = -1
    for bz in range(depth):
        z = bz + offset[0]
        for by in range(height):
            y = by + offset[1]
            for bx in range(width):
                x = bx + offset[2]
                here += 1
                own = best_ZYX[z, y, x]
                if own == NO_EDGE:
                    parent[here] = -1
                    continue
                parent[here] = here
                root = here
                code = edges_CZYX[0, z, y, x]
                if bz > 0 and code > low_code and (own == 0 or code >= high_code or best_ZYX[z - 1, y, x] == 1):
                    root = _join(parent, root, here - height * width)
                code = edges_CZYX[1, z, y, x]
                if by > 0 and code > low_code and (own == 2 or code >= high_code or best_ZYX[z, y - 1, x] == 3):
                    root = _join(parent, root, here - width)
                code = edges_CZYX[2, z, y, x]
                if bx > 0 and code > low_code and (own == 4 or code >= high_code or best_ZYX[z, y, x - 1] == 5):
                    root = _join(parent, root, here - 1)
    return parent_ZYX


@compiled
def _name_pieces(
    parent_ZYX: NDArray[np.int32], origin: Index, internal: int
) -> tuple[U64, U64, NDArray[np.int64], NDArray[np.uint8]]:
    """Labels, names, volumes and face bits of the pieces. Consumes the forest."""
    depth, height, width = parent_ZYX.shape
    parent = parent_ZYX.reshape(-1)
    count = 0
    for item in range(parent.size):
        count += parent[item] == item
    labels_ZYX = np.zeros((depth, height, width), np.uint64)
    name = np.empty(count, np.uint64)
    volume = np.zeros(count, np.int64)
    mask = np.zeros(count, np.uint8)
    found = 0
    here = -1
    for z in range(depth):
        z_bits = (z == 0) | (z == depth - 1) << 1
        for y in range(height):
            zy_bits = z_bits | (y == 0) << 2 | (y == height - 1) << 3
            for x in range(width):
                here += 1
                before = parent[here]
                if before == -1:
                    continue
                if before == here:
                    name[found] = 1 + ((z + origin[0]) << 42 | (y + origin[1]) << 21 | (x + origin[2]))
                    parent[here] = -2 - found  # a visited voxel holds its piece's number, below -1
                    found += 1
                else:
                    parent[here] = parent[before]
                piece = -2 - parent[here]
                labels_ZYX[z, y, x] = name[piece]
                volume[piece] += 1
                mask[piece] |= (zy_bits | (x == 0) << 4 | (x == width - 1) << 5) & internal
    return labels_ZYX, name, volume, mask
