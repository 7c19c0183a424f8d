"""A stand-in for relabel: labels from memory, and blocks that are masked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.geometry import Grid, Index
from pipeline.stages.relabel import BLOCKS, Relabel
from pipeline.stages.stage import Pass, Stage
from pipeline.volumes import ArraySpec, Volume
from workers.block import BlockRef


class LabelsInMemory(Relabel):
    """Labels from memory; some blocks masked."""

    hidden: frozenset[Index] = frozenset()
    tree = None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        return ()

    def passes(self) -> tuple[Pass, ...]:
        return (Pass(BLOCKS, Grid(self.site.layer.roi, self.site.config.blocks.shape)),)

    def masked(self, sweep: str, index: Index) -> bool:
        return index in self.hidden

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        return ()

    def fill(self, labels: np.ndarray) -> None:
        blocks, layer = self.site.config.blocks.shape, self.site.layer
        spec = ArraySpec(layer.roi.shape, "uint64", blocks, blocks, layer.voxel_size, layer.roi.begin)
        volume = Volume.create(self.folder / "labels", spec)
        (sweep,) = self.passes()
        for index in sweep.grid:
            if index not in self.hidden:
                box = sweep.grid.block_box(index)
                volume.write(box, labels[box.slices()])
