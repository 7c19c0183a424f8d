"""Fragments from tiles: the cut of a volume that belongs to a method, not to how the work is done.

A method that cannot be exact over blocks sees one tile at a time, core and halo, and keeps what lies in the core. Tiles
are anchored at the corner of the region of interest and have a fixed shape, so the result is a function of the codes
and of the tiles: blocks only group whole tiles.

What a method joins in a tile may fall apart when the halo is cut off. So that fragments are connected, they are the
face-connected components, inside the core, of the method's labels; each is named after its first voxel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from pipeline.geometry import Box, Grid, Index

U64 = NDArray[np.uint64]
Method = Callable[[NDArray[np.float32]], NDArray[np.integer]]  # affinities CZYX in 0..1 to labels ZYX, 0 background

FULL_SCALE = 65535


def tiled(decoded_CZYX: NDArray[np.uint16], read: Box, block: Box, *, tiles: Grid, halo: Index, method: Method) -> U64:
    """The fragments of a block, from decoded codes of the box `read`: the block and its halo."""
    labels_ZYX = np.zeros(block.shape, np.uint64)
    for index in tiles.touching(block):
        core = tiles.block_box(index)
        around = core.grow(halo).clip(tiles.box)
        affinities = decoded_CZYX[(slice(None), *around.slices(read.begin))].astype(np.float32) / np.float32(FULL_SCALE)
        for axis in range(3):  # edges that leave the tile
            affinities[axis][(slice(None),) * axis + (0,)] = 0
        found = method(affinities)
        labels_ZYX[core.slices(block.begin)] = named_components(found[core.slices(around.begin)], core.begin)
    return labels_ZYX


def named_components(labels_ZYX: NDArray[np.integer], origin: Index) -> U64:
    """Face-connected components of equal labels, each named after its first voxel."""
    components = label(labels_ZYX, background=0, connectivity=1)
    number, first = np.unique(components.reshape(-1), return_index=True)
    z, y, x = (where + begin for where, begin in zip(np.unravel_index(first, labels_ZYX.shape), origin, strict=True))
    names = (1 + (z << 42 | y << 21 | x)).astype(np.uint64)
    names[number == 0] = 0
    table = np.zeros(int(components.max(initial=0)) + 1, np.uint64)
    table[number] = names
    return np.asarray(table[components], np.uint64)
