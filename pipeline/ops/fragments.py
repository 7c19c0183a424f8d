"""Fragments: basins of identity edges (steepest ascent, plus everything above a high threshold), linked by size.

An edge (c, p) joins voxel p with the voxel before it along axis c; its affinity is stored at p. Edges are ordered by
(affinity descending, c ascending, position of p ascending), strictly. Affinities are uint8 or uint16 codes or float32.

1. An edge is usable iff its affinity > low. An edge that leaves the region of interest does not exist.
2. best(p) is the first usable edge, in this order, among the six edges of p. A voxel without one is background, 0.
3. Identity edges are the best edges of all voxels, and all usable edges with an affinity >= high. Their connected
   components are basins.
4. If a size limit is given, basins are linked: the other usable edges are visited in their order, and the clusters
   at their ends joined unless both are large enough and higher than the edge (ops/linking.py). A limit of 1 joins the
   parts of plateaus alone; 0 leaves basins as they are.
5. Fragments are the clusters, called by the id of their first voxel: 1 + (z << 42 | y << 21 | x). Those with fewer
   voxels than the dust limit become background.

Whether an edge is an identity edge depends on the affinities around its two ends alone, never on a block grid, so
blocks can do 1 to 3 by themselves, in pieces, and pieces are joined and linked over the hierarchy (ops/pieces.py). A
block treats the edges stored in it. Their other end lies at most one voxel before the block along one axis; that
voxel's own six affinities are stored at itself and one voxel behind it along every axis: inside the block grown by one
voxel on every side.

A block is treated in passes over its voxels: identity edges (ops/identity_edges.py), their components (ops/
components.py), and for linking the strongest spanning forest of the pieces (ops/spanning.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.components import components
from pipeline.ops.crossings import IDENTITY
from pipeline.ops.identity_edges import USABLE_SHIFT, Limits, Ordered, edge_bits, ordered
from pipeline.ops.linking import states
from pipeline.ops.pieces import Nodes, Part, Pending, nothing_pending
from pipeline.ops.spanning import ends, spanning_forest

U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
HALO: Index = (1, 1, 1)


@dataclass(frozen=True)
class Pieces:
    """The fragments' pieces inside one block, by number (-1: background); `part` lists them, ascending by name."""

    number_ZYX: I32
    part: Part

    @property
    def name(self) -> U64:
        """The pieces' names, ascending."""
        return self.part.nodes.name

    @property
    def volume(self) -> NDArray[np.int64]:
        """The pieces' voxels."""
        return self.part.nodes.volume

    @cached_property
    def labels_ZYX(self) -> U64:
        """The name of every voxel's piece."""
        return _look_up(self.number_ZYX, self.name)


def watershed(
    codes_CZYX: NDArray[np.generic],
    block: Box,
    roi: Box,
    *,
    codes: tuple[float, float],
    internal: int,
    size_vx: int = 0,
) -> Pieces:
    """The pieces of a block, from the codes of the block grown by HALO and clipped to the region of interest.

    `codes` is (low, high), in the numbers of the array; `internal` holds the bits of the faces that are not the
    region's own border. Without a `size_vx` only identity edges are kept for the hierarchy.
    """
    read = block.grow(HALO).clip(roi)
    limits = _limits(codes_CZYX.dtype, codes)
    edges_CZYX = ordered(codes_CZYX)
    bits_ZYX = edge_bits(edges_CZYX, read, block, roi, limits)
    offset: Index = block.shift((-read.begin[0], -read.begin[1], -read.begin[2])).begin
    found = components(bits_ZYX, edges_CZYX, offset, block.begin)
    slabs = {side: (faces.slab(found.number_ZYX, side) + 1).astype(np.uint32) for side in faces.names_of(internal)}
    crossings = {
        side: _crossing(bits_ZYX, edges_CZYX[(slice(None), *block.slices(read.begin))], side, linked=size_vx > 0)
        for side in faces.names_of(internal & faces.LOW_BITS)
    }
    del bits_ZYX
    pending = nothing_pending()
    if size_vx:
        keys = spanning_forest(found.number_ZYX, found.name.size, edges_CZYX, offset, limits.low)
        before: Index = block.shift((-roi.begin[0], -roi.begin[1], -roi.begin[2])).begin
        pending = Pending(*ends(keys, found.number_ZYX, before, roi.shape))
    nodes = Nodes(found.name, found.size, _masks(found.name.size, slabs), states(found.size, found.height, size_vx))
    return Pieces(found.number_ZYX, Part(block, nodes, pending, slabs, crossings))


def _limits(kind: np.dtype[np.generic], codes: tuple[float, float]) -> Limits:
    """Thresholds as numbers of the same order as the edges'."""
    low, high = codes
    if kind == np.float32:
        low, high = (int(np.float32(code).view(np.int32)) for code in codes)
    return Limits(int(low), max(int(low), int(high) - 1))


def _crossing(bits_ZYX: NDArray[np.uint8], edges_CZYX: Ordered, side: str, *, linked: bool) -> NDArray[np.uint32]:
    """What crosses a low face of the block (ops/crossings.py)."""
    axis = faces.LOW.index(side)
    bits = faces.slab(bits_ZYX, side) >> axis
    identity = bits & 1 != 0
    kept = identity | (linked & (bits >> USABLE_SHIFT & 1 != 0))
    strength = faces.slab(edges_CZYX[axis], side).astype(np.uint32)
    return np.where(kept, strength | np.where(identity, IDENTITY, np.uint32(0)), np.uint32(0))


def _masks(count: int, slabs: Mapping[str, NDArray[np.uint32]]) -> NDArray[np.uint8]:
    """The bits of the internal faces that pieces reach."""
    mask = np.zeros(count, np.uint8)
    for side, slab in slabs.items():
        reached = slab[slab != 0].astype(np.int64) - 1
        mask[reached] |= np.uint8(1 << faces.NAMES.index(side))
    return mask


@compiled
def _look_up(number_ZYX: I32, name: U64) -> U64:
    labels_ZYX = np.empty(number_ZYX.shape, np.uint64)
    number, labels = number_ZYX.reshape(-1), labels_ZYX.reshape(-1)
    for voxel in range(number.size):
        piece = number[voxel]
        labels[voxel] = name[piece] if piece >= 0 else np.uint64(0)
    return labels_ZYX
