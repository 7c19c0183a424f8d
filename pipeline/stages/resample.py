"""Resample: the image at the layer's voxel size (ops/resample.py), in a volume of the run's own.

Beside affinities made elsewhere the image is optional, and only shown.
With a factor of 1 it is a copy, so that whatever comes after reads checked bytes. It covers the region of interest and
what the networks see around it; its blocks are anchored at the corner of that box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops.resample import mean_image
from pipeline.sources import Source, open_source
from pipeline.stages.context import context_box, source_factor
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.stages.synthesize import Synthesize
from pipeline.volumes import ArraySpec, Volume, digest
from workers.block import BlockRef

BLOCKS = "blocks"
READ_COPIES = 3  # the fine voxels as they come from a file: chunks around them, the array, a contiguous copy
VOXEL_BYTES = 12  # sums, counts, the result and what encoding copies


@dataclass(frozen=True)
class Inputs:
    """The fine voxels of a block, and how many make up one along each axis."""

    image_ZYX: NDArray[np.uint8]
    factor: Index


class Resample(Stage[Inputs, NDArray[np.uint8]]):
    """From the image as it is given to the layer's image."""

    name = "resample"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether there is an image that is looked at."""
        return self.site.config.affinities is None or self.site.config.input.image is not None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The generator, if the volume is a generated one."""
        return (self._synthesize,) if self._synthesize.active else ()

    def content(self) -> dict[str, Any]:
        """Which image, and the change of voxel size."""
        image = self.site.facts["image"]
        return {
            "image": image["fingerprint"],
            "shape": list(image["shape"]),
            "voxel_size_pm": list(image["voxel_size_pm"]),
            "factor": self._factor,
        }

    def passes(self) -> tuple[Pass, ...]:
        """One sweep, if there is an image."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The generated blocks below; nothing if the image is a file."""
        if not self._synthesize.active:
            return ()
        fine = self._grid.block_box(index).scale(self._factor)
        return [ref for task in self._synthesize.passes() for ref in self._synthesize.refs(task.name, fine)]

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the image."""
        blocks = self.site.config.blocks
        spec = ArraySpec(
            shape=self._grid.box.shape,
            dtype="uint8",
            block=blocks.shape,
            chunk=blocks.chunk,
            voxel_size=self.site.layer.voxel_size,
            offset=self._grid.box.begin,
        )
        Volume.create(self.folder / "image", spec)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The voxels of the given image that make up the block."""
        fine = self._grid.block_box(index).scale(self._factor)
        given = self._synthesize.image if self._synthesize.active else self._source
        return Inputs(np.asarray(given.read(fine), np.uint8), self._factor)

    def compute(self, inputs: Inputs) -> NDArray[np.uint8]:
        """The mean."""
        return mean_image(inputs.image_ZYX, inputs.factor)

    def write(self, sweep: str, index: Index, outputs: NDArray[np.uint8]) -> Written:
        """One shard."""
        return Written({"image": self.image.write(self._grid.block_box(index), outputs)})

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digest of the shard as it is now."""
        return {"image": digest(self.image.read(self._grid.block_box(index)))}

    # ---- what others read --------------------------------------------------------------------------------------
    @cached_property
    def image(self) -> Volume:
        """The image at the layer's voxel size; covers the region of interest and what networks see around it."""
        return Volume.open(self.folder / "image")

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """The fine voxels of a block, and its own."""
        return (READ_COPIES * prod(self._factor) + VOXEL_BYTES) * Box.of_shape(self._grid.block).voxels

    def stored_bytes(self) -> int:
        """A byte per voxel."""
        return self._grid.box.voxels

    def inodes(self) -> int:
        """A shard a block, and the folders of the array."""
        z, y, _ = self._grid.shape
        return self._grid.count + z * (1 + y) + 4

    # ---- where it reads ----------------------------------------------------------------------------------------
    @cached_property
    def _synthesize(self) -> Synthesize:
        return self.site.find(Synthesize)

    @cached_property
    def _factor(self) -> Index:
        return source_factor(self.site)

    @cached_property
    def _grid(self) -> Grid:
        return Grid(context_box(self.site), self.site.config.blocks.shape)

    @cached_property
    def _source(self) -> Source:
        source = open_source(str(self.site.config.input.image), self.site.config.input.scale)
        source.require("uint8", role="the image")
        return source
