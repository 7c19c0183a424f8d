"""What is integer about predicting: which edges exist, and how blocks cut through the lattice of patches.

1. An edge exists if both its voxels are in the region of interest and neither is masked. An edge that does not exist
   has code 0 and is not counted in the histogram. This is decided voxel by voxel: no block plays a part.
2. Where the network knows the background, a nearest edge with an end in it does not exist either, and further edges
   stored at a background voxel have code 0. Further edges that end at one keep their codes: whoever uses them takes no
   edge to a voxel without nearest edges, and how far a block sees must not show.
3. A patch that straddles blocks is evaluated by each of them. Redundancy is the number of evaluations over the number
   of patches that the region needs at all. It is a product of one factor per axis.
4. The block is chosen among multiples of the chunk that double: the smallest one whose redundancy stays below
   `ENOUGH`, and if memory allows none, the one with the least redundancy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.lattice import Axis, Lattice
from models.spec import NEAREST
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import affinities as edges

ENOUGH = 1.25


def keep_existing_edges(
    codes_CZYX: NDArray[np.uint8],
    absent_ZYX: NDArray[np.bool_],
    offsets: Sequence[Index],
    background_ZYX: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Set the codes of edges that do not exist to 0, in place; returns the histogram of the nearest ones that do.

    `absent_ZYX` covers the voxels of the codes and the offsets' `reach` around, `background_ZYX` one voxel before.
    """
    if background_ZYX is None:
        return edges.keep_existing_edges(codes_CZYX, absent_ZYX, offsets)
    edges.keep_existing_edges(codes_CZYX, absent_ZYX, offsets)
    codes_CZYX[len(NEAREST) :, background_ZYX[1:, 1:, 1:]] = 0
    before, _ = edges.reach(offsets)
    near = tuple(slice(b - 1, b - 1 + n) for b, n in zip(before, background_ZYX.shape, strict=True))
    return edges.keep_existing_edges(codes_CZYX[: len(NEAREST)], absent_ZYX[near] | background_ZYX, NEAREST)


def redundancy(lattice: Lattice, grid: Grid, before: int = 0) -> float:
    """How many patches are evaluated per patch that the grid's box needs; blocks look at `before` voxels more."""
    factors = [
        _evaluations(axis, box, length, before) / len(axis.touching(*box))
        for axis, box, length in zip(lattice.axes, _spans(grid.box), grid.block, strict=True)
    ]
    return float(np.prod(factors))


def choose_block(lattice: Lattice, roi: Box, chunk: Index, fits: Callable[[Index], bool], before: int = 0) -> Index:
    """The block to predict with: a multiple of the chunk; see the module."""
    candidates = [_block(lengths) for lengths in product(*map(_doublings, roi.shape, chunk))]
    fitting = [block for block in candidates if fits(block)] or [chunk]
    by_size = sorted(fitting, key=lambda block: (block[0] * block[1] * block[2], block))
    for block in by_size:
        if redundancy(lattice, Grid(roi, block), before) < ENOUGH:
            return block
    return min(by_size, key=lambda block: redundancy(lattice, Grid(roi, block), before))


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


def _evaluations(axis: Axis, span: tuple[int, int], block: int, before: int) -> int:
    """Patches along an axis, counted once for every block that looks at them."""
    begin, end = span
    return sum(len(axis.touching(max(b - before, begin), min(b + block, end))) for b in range(begin, end, block))
