"""Upsample: the segmentation at the image's own voxel size, on request (`relabel.upsample`): every label repeated.

Labels are made at the voxel size of the weights. Voxels of the image that make up no whole voxel there, at its far
borders, have no label. Where both sizes are the same there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index, VoxelSize
from pipeline.ops.resample import upsample_labels
from pipeline.stages.context import source_factor
from pipeline.stages.relabel import BLOCKS as RELABELLED
from pipeline.stages.relabel import Relabel
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.volumes import ArraySpec, Volume, digest
from workers.block import BlockRef

BLOCKS = "blocks"
VOXEL_BYTES = 28  # coarse labels, repeated ones, and what encoding copies
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Inputs:
    """The labels around a block, which of the repeated ones are its own, and how often to repeat."""

    labels_ZYX: U64
    inside: tuple[slice, slice, slice]
    shape: Index
    factor: Index


class Upsample(Stage[Inputs, U64]):
    """From labels to finer labels."""

    name = "upsample"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether it is asked for, and the image is finer than the labels."""
        return self.site.config.relabel.upsample and self._factor != (1, 1, 1)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The labels."""
        return (self._relabel,)

    def content(self) -> dict[str, Any]:
        """How often labels are repeated, and where the image ends."""
        return {"factor": self._factor, "shape": list(self.site.facts["image"]["shape"])}

    def passes(self) -> tuple[Pass, ...]:
        """One sweep in the image's voxels, if it is asked for."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> list[BlockRef]:
        """The labels below."""
        found = self._relabel.refs(RELABELLED, self._below(self._grid.block_box(index)))
        return [ref for ref in found if not self._relabel.masked(RELABELLED, ref.index)]

    def masked(self, sweep: str, index: Index) -> bool:
        """Where everything below is masked."""
        return not self.needs(sweep, index)

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the array."""
        blocks = self.site.config.blocks
        spec = ArraySpec(
            shape=self._box.shape,
            dtype="uint64",
            block=blocks.shape,
            chunk=blocks.chunk,
            voxel_size=VoxelSize(_index(self.site.facts["image"]["voxel_size_pm"])),
            offset=self._box.begin,
        )
        Volume.create(self.folder / "labels", spec)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The coarse labels that touch the block."""
        box = self._grid.block_box(index)
        below = self._below(box)
        covered = below.scale(self._factor)
        part = box.clip(covered)
        return Inputs(
            self._relabel.read_segmentation(below), part.slices(covered.begin), box.shape, factor=self._factor
        )

    def compute(self, inputs: Inputs) -> U64:
        """Repeat them; 0 beyond."""
        repeated = upsample_labels(inputs.labels_ZYX, inputs.factor)[inputs.inside]
        missing = [(0, n - m) for n, m in zip(inputs.shape, repeated.shape, strict=True)]
        return np.pad(repeated, missing)

    def write(self, sweep: str, index: Index, outputs: U64) -> Written:
        """One shard."""
        return Written({"labels": self.labels.write(self._grid.block_box(index), outputs)})

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digest of the shard as it is now."""
        return {"labels": digest(self.labels.read(self._grid.block_box(index)))}

    # ---- what others read --------------------------------------------------------------------------------------
    @cached_property
    def labels(self) -> Volume:
        """The stored labels; masked blocks have none."""
        return Volume.open(self.folder / "labels")

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By the voxels of a block."""
        return VOXEL_BYTES * Box.of_shape(self.site.config.blocks.shape).voxels

    def stored_bytes(self) -> int:
        """Eight bytes a label."""
        return 8 * self._box.voxels if self.active else 0

    def inodes(self) -> int:
        """A shard a block, and the folders."""
        grid = self._grid
        return grid.count + grid.shape[0] * (1 + grid.shape[1]) + 3 if self.active else 0

    # ---- where things lie --------------------------------------------------------------------------------------
    @cached_property
    def _relabel(self) -> Relabel:
        return self.site.find(Relabel)

    @cached_property
    def _factor(self) -> Index:
        return source_factor(self.site)

    @cached_property
    def _box(self) -> Box:
        """The region of interest in the image's voxels; to the image's end where the region ends with the layer."""
        roi, layer = self.site.layer.roi, self.site.layer.shape
        fine, image = roi.scale(self._factor), _index(self.site.facts["image"]["shape"])
        whole = [r == n for r, n in zip(roi.end, layer, strict=True)]
        end = [i if w else f for i, f, w in zip(image, fine.end, whole, strict=True)]
        return Box(fine.begin, _index(end))

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self._box, self.site.config.blocks.shape)

    def _below(self, box: Box) -> Box:
        """The labels' voxels that a box of the image touches."""
        begin = _index([b // f for b, f in zip(box.begin, self._factor, strict=True)])
        end = _index([-(-e // f) for e, f in zip(box.end, self._factor, strict=True)])
        return Box(begin, end).clip(self.site.layer.roi)


def _index(values: list[int] | tuple[int, ...]) -> Index:
    z, y, x = values
    return (z, y, x)
