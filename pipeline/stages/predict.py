"""predict: the network's affinities, quantised to uint8 codes. The only stage that needs torch, and only to compute.

Reads the resampled image around a block: all that the lattice patches touching it show. A region with an override
gets the other network's codes, voxel by voxel; where regions overlap the later override holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import NEAREST
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import predict as op
from pipeline.stages.code_source import CodeSource
from pipeline.stages.masks import Absences, skip_content
from pipeline.stages.networks import Networks, Part
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.volumes import ArraySpec, Volume
from workers.block import BlockRef

BLOCKS = "blocks"
CHANNELS = len(NEAREST)
CHOSEN_BLOCK_BYTES = 1 << 30  # the largest block that is chosen unasked; a constant, or a pool's size would move blocks
ONE_BEFORE: Index = (1, 1, 1)
NOTHING_AFTER: Index = (0, 0, 0)


@dataclass(frozen=True)
class Inputs:
    """A block, its parts (later ones hold where they overlap), and which voxels are absent (from one before)."""

    box: Box
    parts: tuple[Part, ...]
    absent_ZYX: NDArray[np.bool_]


@dataclass(frozen=True)
class Outputs:
    """Codes and the histogram of the edges that exist."""

    codes_CZYX: NDArray[np.uint8]
    histogram: NDArray[np.int64]


class Predict(CodeSource[Inputs, Outputs]):
    """Image to affinity codes."""

    name = "predict"
    pool = "gpu"

    @cached_property
    def _networks(self) -> Networks:
        return Networks(self.site)

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether no affinities are given."""
        return self.site.config.affinities is None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The resampled image."""
        return (self._resample,)

    def content(self) -> dict[str, Any]:
        """The weights, where the layer and its region end, and the masks. Overrides count block by block."""
        layer = self.site.layer
        return {
            "weights": self._networks.identity(0),
            "layer": layer.shape,
            "roi": [layer.roi.begin, layer.roi.end],
            "masks": skip_content(self.site),
        }

    def block_content(self, sweep: str, index: Index) -> Any:
        """The overrides that touch the block, cut to it, and the accepted holes in it or just before it."""
        box = self._grid.block_box(index)
        pieces = [(n, piece) for n, piece in self._networks.pieces(box) if n > 0]
        overrides = [[piece.begin, piece.end, self._networks.identity(n)] for n, piece in pieces]
        holes = [hole.clip(box.grow(ONE_BEFORE, NOTHING_AFTER)) for hole in self._absences.holes]
        missing = [[hole.begin, hole.end] for hole in holes if hole.voxels]
        return {"overrides": overrides, "holes": missing} if overrides or missing else None

    def passes(self) -> tuple[Pass, ...]:
        """One sweep; its grid is its own, later stages have another."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The resampled blocks that any patch of the block shows."""
        refs: dict[BlockRef, None] = {}
        for network, box in self._networks.pieces(self._grid.block_box(index)):
            for task in self._resample.passes():
                refs.update(dict.fromkeys(self._resample.refs(task.name, self._networks.context(network, box))))
        return refs

    def masked(self, sweep: str, index: Index) -> bool:
        """Whether skip masks cover the block, or the user accepted it as a hole."""
        return self._absences.cover(self._grid.block_box(index))

    def redundancy(self) -> float:
        """Patches evaluated per patch needed: what cutting into blocks costs."""
        return op.redundancy(self._networks.lattice(0), self._grid)

    def device_class(self) -> str:
        """The device that the network runs on in this process."""
        from models.engine import device_class

        return device_class(self.site.config.predict.device)

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the array of codes."""
        roi, config = self.site.layer.roi, self.site.config
        spec = ArraySpec(
            shape=(CHANNELS, *roi.shape),
            dtype="uint8",
            block=self._grid.block,
            chunk=config.blocks.chunk,
            voxel_size=self.site.layer.voxel_size,
            offset=roi.begin,
            channels=CHANNELS,
        )
        Volume.create(self.folder / "affinities", spec)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The image with context, and the masks."""
        box = self._grid.block_box(index)
        parts = []
        for network, piece in self._networks.pieces(box):
            image_box = self._networks.context(network, piece)
            parts.append(Part(network, piece, image_box, self._resample.image.read(image_box)))
        return Inputs(box, tuple(parts), self._absences.voxels(box.grow(ONE_BEFORE, NOTHING_AFTER)))

    def compute(self, inputs: Inputs) -> Outputs:
        """Evaluate, blend, quantise; drop the edges that do not exist."""
        codes = np.zeros((CHANNELS, *inputs.box.shape), np.uint8)
        for part in inputs.parts:
            codes[(..., *part.box.slices(inputs.box.begin))] = self._networks.evaluate(part)
        return Outputs(codes, op.keep_existing_edges(codes, inputs.absent_ZYX))

    def write(self, sweep: str, index: Index, outputs: Outputs) -> Written:
        """Codes, shells and histogram."""
        return self.store_codes(index, outputs.codes_CZYX, outputs.histogram)

    # ---- what others read --------------------------------------------------------------------------------------
    @property
    def offsets(self) -> tuple[Index, ...]:
        """The nearest neighbours."""
        return NEAREST

    @property
    def code_table(self) -> NDArray[np.int64]:
        """The integer behind every code."""
        return self._networks.code_table

    @property
    def code_grid(self) -> Grid:
        """Its blocks, which later stages do not share."""
        return self._grid

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """The image with context, the masks, and what the engine needs."""
        return self._block_bytes(self._grid.block)

    # ---- blocks ------------------------------------------------------------------------------------------------
    @cached_property
    def _resample(self) -> Resample:
        return self.site.find(Resample)

    @cached_property
    def _grid(self) -> Grid:
        config, roi = self.site.config, self.site.layer.roi
        chunk, block = config.blocks.chunk, config.predict.block
        if block is None:
            block = op.choose_block(
                self._networks.lattice(0),
                roi,
                chunk,
                lambda shape: self._networks.plain_bytes(shape) <= CHOSEN_BLOCK_BYTES,
            )
        if any(b % c for b, c in zip(block, chunk, strict=True)):
            raise ConfigError(
                f"predict.block {block} is no multiple of blocks.chunk {chunk}",
                where="predict.block",
                way_out="make it a multiple along every axis, or leave it out: the plan then chooses",
            )
        return Grid(roi, block)

    def _block_bytes(self, block: Index) -> int:
        z, y, x = (min(b, n) for b, n in zip(block, self.site.layer.roi.shape, strict=True))
        masks = 4 * (z + 1) * (y + 1) * (x + 1)
        return masks + 3 * self.shell_bytes((z, y, x)) + self._networks.working_bytes((z, y, x))

    # ---- masks -------------------------------------------------------------------------------------------------
    @cached_property
    def _absences(self) -> Absences:
        return Absences(self.site)
