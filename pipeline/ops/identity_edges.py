"""Which edges of a block are identity edges: plane by plane, row by row, in loops that compilers turn into vectors.

Every voxel of the result has a byte about the three edges stored in it: bit c says that the edge of channel c is an
identity edge (ops/fragments.py), bit 3 + c that it is usable without being one. Bit 6 says that some edge of the
voxel is usable, wherever it is stored: without one the voxel is background.

Best edges are kept for two planes at a time. Inputs are integers that order like the affinities: codes as they are,
float32 as its bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.compiled import compiled

U8 = NDArray[np.uint8]
Ordered = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]

Number = np.unsignedinteger | np.signedinteger  # of the edges' own type, so that loops stay narrow

NO_EDGE = 6  # best edges: 2c is the edge stored at the voxel itself, 2c + 1 the one stored behind it along axis c
IDENTITY_BITS, USABLE_SHIFT, FOREGROUND = 7, 3, 64
INFINITE_BITS = 0x7F800000  # of a float32; what lies above is NaN


class Limits(NamedTuple):
    """Edges with a larger number than `low` are usable, those with a larger one than `always` are identity edges."""

    low: int
    always: int


def ordered(affinities_CZYX: NDArray[np.generic]) -> Ordered:
    """Affinities as integers of the same order, without a copy unless there is a NaN, which counts as 0.

    A float that is not negative orders like its bits; negative ones, and -0.0, become negative: never usable.
    """
    if affinities_CZYX.dtype != np.float32:
        return np.ascontiguousarray(affinities_CZYX)
    bits = np.ascontiguousarray(affinities_CZYX).view(np.int32)
    if bits.size and bits.max() > INFINITE_BITS:
        bits = np.where(bits > INFINITE_BITS, np.int32(0), bits)
    return bits


def edge_bits(edges_CZYX: Ordered, read: Box, block: Box, roi: Box, limits: Limits) -> U8:
    """The byte of every voxel of the block. `read` is the box of the edges; those that leave `roi` do not exist."""
    offset: Index = block.shift((-read.begin[0], -read.begin[1], -read.begin[2])).begin
    z, y, x = (b == r for b, r in zip(read.begin, roi.begin, strict=True))
    kind, largest = edges_CZYX.dtype.type, int(np.iinfo(edges_CZYX.dtype).max)
    numbers = (kind(min(limits.low, largest)), kind(min(limits.always, largest)))
    return _edge_bits(edges_CZYX, offset, block.shape, (z, y, x), numbers)


@compiled
def _edge_bits(
    edges_CZYX: Ordered, offset: Index, shape: Index, closed: tuple[bool, bool, bool], limits: tuple[Number, Number]
) -> U8:
    _, depth, height, width = edges_CZYX.shape
    z0, y0, x0 = offset
    bits_ZYX = np.empty(shape, np.uint8)
    best = np.full((2, height + 1, width + 1), np.uint8(NO_EDGE))  # two planes, with a row and a column before
    nothing = np.zeros(width, edges_CZYX.dtype)
    along_x = np.zeros(width + 1, edges_CZYX.dtype)
    for z in range(max(z0 - 1, 0), z0 + shape[0]):
        now, before = z & 1, 1 - (z & 1)
        for y in range(max(y0 - 1, 0), y0 + shape[1]):
            own_z = nothing if z == 0 and closed[0] else edges_CZYX[0, z, y]
            next_z = edges_CZYX[0, z + 1, y] if z + 1 < depth else nothing
            own_y = nothing if y == 0 and closed[1] else edges_CZYX[1, z, y]
            next_y = edges_CZYX[1, z, y + 1] if y + 1 < height else nothing
            along_x[:width] = edges_CZYX[2, z, y]
            if closed[2]:
                along_x[0] = 0
            row = best[now, y + 1, 1:]
            best_row(row, (own_z, next_z, own_y, next_y, along_x[:width], along_x[1:]), limits[0])
            if z >= z0 and y >= y0:
                end = x0 + shape[2]
                _bits_row(
                    bits_ZYX[z - z0, y - y0],
                    (row[x0:end], best[before, y + 1, 1 + x0 :], best[now, y, 1 + x0 :], best[now, y + 1, x0:]),
                    (own_z[x0:], own_y[x0:], along_x[x0:]),
                    limits,
                )
    return bits_ZYX


@compiled
def best_row(best: U8, edges: tuple[Ordered, ...], low: Number) -> None:
    """The first usable edge, in the order of edges, of every voxel of a row: a later one must be strictly better."""
    own_z, next_z, own_y, next_y, own_x, next_x = edges
    for x in range(best.size):
        top = low
        choice = np.uint8(NO_EDGE)
        if own_z[x] > top:
            top = own_z[x]
            choice = np.uint8(0)
        if next_z[x] > top:
            top = next_z[x]
            choice = np.uint8(1)
        if own_y[x] > top:
            top = own_y[x]
            choice = np.uint8(2)
        if next_y[x] > top:
            top = next_y[x]
            choice = np.uint8(3)
        if own_x[x] > top:
            top = own_x[x]
            choice = np.uint8(4)
        if next_x[x] > top:
            choice = np.uint8(5)
        best[x] = choice


@compiled
def _bits_row(
    bits: U8, best: tuple[U8, U8, U8, U8], edges: tuple[Ordered, Ordered, Ordered], limits: tuple[Number, Number]
) -> None:
    """The bytes of a row, from the best edges of its voxels and of those before them along z, y and x."""
    own, before_z, before_y, before_x = best
    code_z, code_y, code_x = edges
    low, always = limits
    for x in range(bits.size):
        z_used, z_same = code_z[x] > low, (own[x] == 0) | (before_z[x] == 1) | (code_z[x] > always)
        y_used, y_same = code_y[x] > low, (own[x] == 2) | (before_y[x] == 3) | (code_y[x] > always)
        x_used, x_same = code_x[x] > low, (own[x] == 4) | (before_x[x] == 5) | (code_x[x] > always)
        identity = np.uint8(z_used & z_same) | np.uint8(y_used & y_same) << 1 | np.uint8(x_used & x_same) << 2
        usable = np.uint8(z_used & ~z_same) | np.uint8(y_used & ~y_same) << 1 | np.uint8(x_used & ~x_same) << 2
        bits[x] = np.uint8(identity | usable << USABLE_SHIFT | np.uint8(own[x] != NO_EDGE) << 6)
