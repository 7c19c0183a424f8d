"""The watershed of a volume in memory, by the hierarchy itself: blocks that fit a core's cache are faster than one go.

1. Every block is cut into pieces; their numbers are written where the labels will be.
2. Levels of blocks are joined, upwards, until one is left. Then final names go down to the pieces.
3. Numbers become names.

The result is that of one block (ops/pieces.py): the blocks are a matter of speed and memory alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops.compiled import compiled
from pipeline.ops.fragments import HALO, watershed
from pipeline.ops.pieces import Joined, Rules, close, compose, join
from pipeline.ops.relabel import rename

U64 = NDArray[np.uint64]
BLOCK: Index = (32, 256, 256)


def watershed_volume(
    affinities_CZYX: NDArray[np.generic], low: float, high: float, size_vx: int, dust_vx: int, block: Index = BLOCK
) -> U64:
    """The fragments of a volume at the layer's origin; thresholds in the numbers of the array."""
    depth, height, width = affinities_CZYX.shape[1:]
    roi, rules = Box.of_shape((depth, height, width)), Rules(size_vx, dust_vx)
    grids = Grid(roi, block).levels
    labels_ZYX = np.empty(roi.shape, np.uint64)
    names: dict[Index, U64] = {}
    up: list[dict[Index, Joined]] = [{}]
    for index in grids[0]:
        box, internal = grids[0].block_box(index), grids[0].internal_faces(index)
        codes_CZYX = np.ascontiguousarray(affinities_CZYX[(slice(None), *box.grow(HALO).clip(roi).slices())])
        found = watershed(codes_CZYX, box, roi, codes=(low, high), internal=internal, size_vx=size_vx)
        labels_ZYX[box.slices()] = found.number_ZYX + 1
        names[index] = found.name.copy()
        up[0][index] = close(found.part, rules)
    for finer, grid in pairwise(grids):
        up.append({})
        for index in grid:
            parts = [up[-2][child].part for child in finer.children(index)]
            box, internal = grid.block_box(index), grid.internal_faces(index)
            up[-1][index] = join(parts, box, internal=internal, roi=roi, rules=rules)
    for index, (old, new) in _final(up).items():
        final = np.concatenate([np.zeros(1, np.uint64), rename(names[index], old, new)])
        _look_up(labels_ZYX[grids[0].block_box(index).slices()], final)
    return labels_ZYX


def _final(up: list[dict[Index, Joined]]) -> dict[Index, tuple[U64, U64]]:
    """The rename table, piece to fragment, of every block of level 0."""
    final = {index: (top.old, top.new) for index, top in up[-1].items()}
    for level in reversed(up[:-1]):
        final = {
            (z, y, x): compose(own.old, own.new, own.part.nodes.name, parent=final[(z // 2, y // 2, x // 2)])
            for (z, y, x), own in level.items()
        }
    return final


@compiled
def _look_up(labels_ZYX: U64, final: U64) -> None:
    """Replace numbers by names, in place."""
    for z in range(labels_ZYX.shape[0]):
        for y in range(labels_ZYX.shape[1]):
            for x in range(labels_ZYX.shape[2]):
                labels_ZYX[z, y, x] = final[labels_ZYX[z, y, x]]
