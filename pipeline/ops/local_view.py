"""Affinities made from labels as a network with a limited view would give them: what is split inside the view, differs.

1. The layer is cut into tiles at its origin. A tile is seen through a window around it, as a network sees a patch.
2. Inside a window every label is split into its 26-connected parts: nothing there shows that two of them belong
   together. Two arms of a process that touch each other are two objects, unless their bend is in the window.
3. The edges of the tile are made from these parts (`noisy_affinities`).

So at the bend the same process is one object, at its self-contact it is two: the evidence that greedy clustering gets.
Every value is a function of the labels in the window, the seed and its position in the layer alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

from pipeline.errors import WrongShape
from pipeline.geometry import Box, Grid, Index
from pipeline.ops.noisy_affinities import Recipe, noisy_affinities


class View(NamedTuple):
    """What a network sees at once, in voxels."""

    window: Index = (20, 128, 128)
    tile: Index = (10, 64, 64)  # in the middle of a window

    @property
    def margin(self) -> Index:
        """How far a window reaches beyond its tile."""
        z, y, x = ((w - t) // 2 for w, t in zip(self.window, self.tile, strict=True))
        return (z, y, x)


VIEW = View()


def seen_affinities(labels_ZYX: NDArray[np.uint64], how: Recipe, view: View = VIEW) -> NDArray[np.uint16]:
    """Affinities of a whole layer as whole numbers up to 65535."""
    before, after = how.halo
    if any(m < max(b, a) for m, b, a in zip(view.margin, before, after, strict=True)):
        raise WrongShape(
            f"a window reaches {view.margin} voxels beyond its tile, and edges depend on {before} before and "
            f"{after} behind them",
            where="the view",
            way_out="take a larger window, or a smaller tile",
        )
    depth, height, width = labels_ZYX.shape
    layer = Box.of_shape((depth, height, width))
    values_CZYX = np.zeros((len(how.offsets), *layer.shape), np.uint16)
    grid = Grid(layer, view.tile)
    for index in grid:
        tile = grid.block_box(index)
        window = tile.grow(view.margin).clip(layer)
        parts_ZYX = connected(labels_ZYX[window.slices()].astype(np.int64), background=0, connectivity=3)
        values_CZYX[(slice(None), *tile.slices())] = noisy_affinities(parts_ZYX.astype(np.uint64), window, tile, how)
    return values_CZYX
