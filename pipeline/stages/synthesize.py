"""Synthesize: a generated image and its truth (ops/synthesize.py), as far as the run looks at them.

There is a pass only if the config asks for a generated volume. A block becomes one block of the resampled image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Synthetic
from pipeline.geometry import Box, Grid, Index, VoxelSize
from pipeline.ops.synthesize import generate
from pipeline.stages.context import context_box, source_factor
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.volumes import ArraySpec, Volume, digest
from workers.block import BlockRef

BLOCKS = "blocks"
VOXEL_BYTES = 28  # image and truth, what encoding copies, and the digest's copy
FIXED_BYTES = 64 << 20  # cells, skeletons


@dataclass(frozen=True)
class Inputs:
    """A box of a generated volume; nothing is read."""

    box: Box
    settings: Synthetic


@dataclass(frozen=True)
class Outputs:
    """The voxels of a box."""

    image_ZYX: NDArray[np.uint8]
    truth_ZYX: NDArray[np.uint64]


class Synthesize(Stage[Inputs, Outputs]):
    """From a seed to an image and its truth."""

    name = "synthesize"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether the run's volume is a generated one."""
        return self.site.config.input.synthetic is not None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Nothing."""
        return ()

    def content(self) -> dict[str, Any]:
        """Everything that the generator is told."""
        if not self.active:
            return {}
        settings = self._settings
        told = {
            "seed": settings.seed,
            "size": settings.size,
            "voxel_size_nm": settings.voxel_size_nm,
            "self_touching": settings.self_touching,
        }
        return told if settings.loops is None else {**told, "loops": settings.loops}

    def passes(self) -> tuple[Pass, ...]:
        """One sweep, if there is anything to generate."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Nothing."""
        return ()

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create image and truth."""
        Volume.create(self.folder / "image", self._spec("uint8"))
        Volume.create(self.folder / "truth", self._spec("uint64"))

    def read(self, sweep: str, index: Index) -> Inputs:
        """Only the box: every voxel is a function of its position."""
        return Inputs(self._grid.block_box(index), self._settings)

    def compute(self, inputs: Inputs) -> Outputs:
        """Generate the box."""
        settings = inputs.settings
        image_ZYX, truth_ZYX = generate(
            inputs.box,
            seed=settings.seed,
            shape=settings.size,
            voxel_size_nm=settings.voxel_size_nm,
            self_touching=settings.self_touching,
            loop_kinds=settings.loops,
        )
        return Outputs(image_ZYX, truth_ZYX)

    def write(self, sweep: str, index: Index, outputs: Outputs) -> Written:
        """One shard of the image, one of the truth."""
        box = self._grid.block_box(index)
        image, truth = self.image.write(box, outputs.image_ZYX), self.truth.write(box, outputs.truth_ZYX)
        return Written({"image": image, "truth": truth})

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digests of both shards as they are now."""
        box = self._grid.block_box(index)
        return {"image": digest(self.image.read(box)), "truth": digest(self.truth.read(box))}

    # ---- what others read --------------------------------------------------------------------------------------
    @cached_property
    def image(self) -> Volume:
        """The image, in its own voxels, u8."""
        return Volume.open(self.folder / "image")

    @cached_property
    def truth(self) -> Volume:
        """The truth, in the image's voxels, u64; 0 is membrane."""
        return Volume.open(self.folder / "truth")

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By the voxels of a block."""
        return FIXED_BYTES + VOXEL_BYTES * Box.of_shape(self._grid.block).voxels

    def stored_bytes(self) -> int:
        """A byte for the image, eight for the truth."""
        return 9 * self._grid.box.voxels if self.active else 0

    def inodes(self) -> int:
        """Two shards a block, and the folders of two arrays."""
        if not self.active:
            return 0
        z, y, _ = self._grid.shape
        return 1 + 2 * (self._grid.count + z * (1 + y) + 3)

    # ---- blocks ------------------------------------------------------------------------------------------------
    @property
    def _settings(self) -> Synthetic:
        settings = self.site.config.input.synthetic
        if settings is None:
            raise LookupError("this run has no generated volume")
        return settings

    @cached_property
    def _grid(self) -> Grid:
        factor = source_factor(self.site)
        z, y, x = (b * f for b, f in zip(self.site.config.blocks.shape, factor, strict=True))
        return Grid(context_box(self.site).scale(factor), (z, y, x))

    def _spec(self, dtype: str) -> ArraySpec:
        return ArraySpec(
            shape=self._grid.box.shape,
            dtype=dtype,
            block=self._grid.block,
            chunk=self.site.config.blocks.chunk,
            voxel_size=VoxelSize.from_nm(self._settings.voxel_size_nm),
            offset=self._grid.box.begin,
        )
