"""What is integer about predicting: which edges exist, and how blocks cut through the lattice of patches.

1. An edge exists if both its voxels are in the region of interest and neither is masked. An edge that does not exist
   has code 0 and is not counted in the histogram. This is decided voxel by voxel: no block plays a part.
2. A patch that straddles blocks is evaluated by each of them. Redundancy is the number of evaluations over the number
   of patches that the region needs at all. It is a product of one factor per axis.
3. The block is chosen among multiples of the chunk that double: the smallest one whose redundancy stays below
   `ENOUGH`, and if memory allows none, the one with the least redundancy.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.lattice import Axis, Lattice
from models.spec import CODES, NEAREST
from pipeline.geometry import Box, Grid, Index

ENOUGH = 1.25


def keep_existing_edges(codes_CZYX: NDArray[np.uint8], absent_ZYX: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Set the codes of edges with an absent voxel to 0, in place; returns the histogram of the edges that exist.

    `absent_ZYX` begins one voxel before the codes along every axis.
    """
    here = absent_ZYX[1:, 1:, 1:]
    histogram = np.zeros(CODES, np.int64)
    for codes, offset in zip(codes_CZYX, NEAREST, strict=True):
        partner = absent_ZYX[tuple(slice(1 + o, n + o) for o, n in zip(offset, absent_ZYX.shape, strict=True))]
        exists = ~(here | partner)
        codes[~exists] = 0
        histogram += np.bincount(codes[exists], minlength=CODES)
    return histogram


def redundancy(lattice: Lattice, grid: Grid) -> float:
    """How many patches are evaluated per patch that the grid's box needs."""
    factors = [
        _evaluations(axis, box, length) / len(axis.touching(*box))
        for axis, box, length in zip(lattice.axes, _spans(grid.box), grid.block, strict=True)
    ]
    return float(np.prod(factors))


def choose_block(lattice: Lattice, roi: Box, chunk: Index, fits: Callable[[Index], bool]) -> Index:
    """The block to predict with: a multiple of the chunk; see the module."""
    candidates = [_block(lengths) for lengths in product(*map(_doublings, roi.shape, chunk))]
    fitting = [block for block in candidates if fits(block)] or [chunk]
    by_size = sorted(fitting, key=lambda block: (block[0] * block[1] * block[2], block))
    for block in by_size:
        if redundancy(lattice, Grid(roi, block)) < ENOUGH:
            return block
    return min(by_size, key=lambda block: redundancy(lattice, Grid(roi, block)))


def _doublings(extent: int, chunk: int) -> list[int]:
    """The chunk's length, doubled until it covers the extent."""
    lengths = [chunk]
    while lengths[-1] < extent:
        lengths.append(2 * lengths[-1])
    return lengths


def _block(lengths: tuple[int, ...]) -> Index:
    z, y, x = lengths
    return (z, y, x)


def _spans(box: Box) -> list[tuple[int, int]]:
    return list(zip(box.begin, box.end, strict=True))


def _evaluations(axis: Axis, span: tuple[int, int], block: int) -> int:
    """Patches along an axis, counted once for every block that they touch."""
    begin, end = span
    return sum(len(axis.touching(b, min(b + block, end))) for b in range(begin, end, block))
