"""Pyramid: coarser copies of the segmentation and of the image for viewers (ops/pyramid.py, ops/resample.py).

Each level is made from the one below: labels by their first voxel, the image by its mean. The finest level is not
copied: in the multiscale group it is a link to what relabel and resample wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index, VoxelSize
from pipeline.ops.pyramid import Level, coarse_box, first_voxels, levels
from pipeline.ops.resample import first_labels, mean_image
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.volumes import ArraySpec, Volume, digest, write_multiscale
from workers.block import BlockRef
from workers.files import link_atomically

SEGMENTATION, IMAGE = "segmentation", "image"
KINDS = (SEGMENTATION, IMAGE)
DTYPES = {SEGMENTATION: "uint64", IMAGE: "uint8"}
READ_COPIES = 2  # the finer voxels: the array, and the pieces it is put together from
VOXEL_BYTES = 28  # sums or labels, the result and what encoding copies


@dataclass(frozen=True)
class Inputs:
    """The finer voxels below a block."""

    kind: str
    finer_ZYX: NDArray[Any]
    step: Index


class Pyramid(Stage[Inputs, NDArray[Any]]):
    """From the finest level to coarser ones."""

    name = "pyramid"

    # ---- what it is --------------------------------------------------------------------------------------------
    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Relabel, and resample if there is an image."""
        return (self._relabel, self._resample) if IMAGE in self._kinds else (self._relabel,)

    def content(self) -> dict[str, Any]:
        """How many levels, and which region the finest segmentation covers."""
        roi = self.site.layer.roi
        return {"levels": self.site.config.pyramid.levels, "roi": [roi.begin, roi.end]}

    def passes(self) -> tuple[Pass, ...]:
        """One a level, of the segmentation and of the image."""
        return tuple(
            Pass(f"{kind}{number}", self._grid(kind, number)) for kind in self._kinds for number in self._numbers
        )

    def needs(self, sweep: str, index: Index) -> list[BlockRef]:
        """The finer blocks that it reads: those that are not masked."""
        kind, number = _parse(sweep)
        box = self._finer_box(kind, number, index)
        if number > 1:
            finer, own = f"{kind}{number - 1}", self._grid(kind, number - 1)
            return [BlockRef(self.task(finer), i) for i in own.touching(box) if not self.masked(finer, i)]
        stage: Relabel | Resample = self._relabel if kind == SEGMENTATION else self._resample
        return [ref for ref in stage.refs("blocks", box) if not stage.masked("blocks", ref.index)]

    def masked(self, sweep: str, index: Index) -> bool:
        """Where everything below is masked."""
        return not self.needs(sweep, index)

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the arrays of all levels."""
        blocks = self.site.config.blocks
        for kind in self._kinds:
            for number in self._numbers:
                box = self._box(kind, number)
                spec = ArraySpec(
                    shape=box.shape,
                    dtype=DTYPES[kind],
                    block=blocks.shape,
                    chunk=blocks.chunk,
                    voxel_size=self._levels[number - 1].voxel_size,
                    offset=box.begin,
                )
                Volume.create(self._group(kind) / str(number), spec)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The level below; 0 where the segmentation is masked."""
        kind, number = _parse(sweep)
        box, step = self._finer_box(kind, number, index), self._levels[number - 1].step
        if number > 1:
            return Inputs(kind, self._read_level(kind, number - 1, box), step)
        finer = self._relabel.read_segmentation(box) if kind == SEGMENTATION else self._resample.image.read(box)
        return Inputs(kind, finer, step)

    def compute(self, inputs: Inputs) -> NDArray[Any]:
        """The first label, or the mean."""
        make = first_labels if inputs.kind == SEGMENTATION else mean_image
        return make(inputs.finer_ZYX, inputs.step)

    def write(self, sweep: str, index: Index, outputs: NDArray[Any]) -> Written:
        """One shard."""
        kind, number = _parse(sweep)
        return Written({kind: self._volume(kind, number).write(self._block_box(sweep, index), outputs)})

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digest of the shard as it is now."""
        kind, number = _parse(sweep)
        return {kind: digest(self._volume(kind, number).read(self._block_box(sweep, index)))}

    # ---- the products ------------------------------------------------------------------------------------------
    def datasets(self, kind: str) -> list[tuple[Path, VoxelSize, Index]]:
        """Every level of `segmentation` or `image`, the finest first: where it lies, its voxels, its first voxel."""
        finest = self._relabel.folder / "labels" if kind == SEGMENTATION else self._resample.folder / "image"
        listed = [(finest, self.site.layer.voxel_size, self._box(kind, 0).begin)]
        for number in self._numbers:
            size = self._levels[number - 1].voxel_size
            listed.append((self._group(kind) / str(number), size, self._box(kind, number).begin))
        return listed

    def products(self) -> dict[str, Path]:
        """Finish the multiscale groups and say where they lie. Idempotent."""
        for kind in self._kinds:
            group, found = self._group(kind), self.datasets(kind)
            listed = [(str(number), size, offset) for number, (_, size, offset) in enumerate(found)]
            write_multiscale(group, listed, name=kind, axes=("z", "y", "x"))
            link_atomically(group / "0", found[0][0])
        return {f"{kind}.zarr": self._group(kind) for kind in self._kinds}

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """The finer voxels below a block, and its own."""
        kind, number = _parse(sweep)
        finer = READ_COPIES * np.dtype(DTYPES[kind]).itemsize * prod(self._levels[number - 1].step)
        return (finer + VOXEL_BYTES) * Box.of_shape(self.site.config.blocks.shape).voxels

    def stored_bytes(self) -> int:
        """Eight bytes a label, one a grey value."""
        sizes = {kind: np.dtype(dtype).itemsize for kind, dtype in DTYPES.items()}
        return sum(sizes[kind] * self._box(kind, number).voxels for kind in self._kinds for number in self._numbers)

    def inodes(self) -> int:
        """A shard a block, the folders of every level, the groups."""
        grids = [p.grid for p in self.passes()]
        return 1 + 3 * len(self._kinds) + sum(g.count + g.shape[0] * (1 + g.shape[1]) + 3 for g in grids)

    # ---- levels and blocks -------------------------------------------------------------------------------------
    @cached_property
    def _relabel(self) -> Relabel:
        return self.site.find(Relabel)

    @cached_property
    def _resample(self) -> Resample:
        return self.site.find(Resample)

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        """What there is to make coarser copies of."""
        return KINDS if self._resample.active else (SEGMENTATION,)

    @cached_property
    def _levels(self) -> tuple[Level, ...]:
        """The levels that hold a voxel of everything."""
        made = levels(self.site.layer.voxel_size, self.site.config.pyramid.levels)
        return tuple(level for level in made if coarse_box(self.site.layer.roi, level.factor).voxels)

    @property
    def _numbers(self) -> range:
        return range(1, len(self._levels) + 1)

    def _box(self, kind: str, number: int) -> Box:
        """What a level covers, in its own voxels."""
        finest = self.site.layer.roi if kind == SEGMENTATION else self._resample.sweep("blocks").grid.box
        return finest if number == 0 else coarse_box(finest, self._levels[number - 1].factor)

    def _grid(self, kind: str, number: int) -> Grid:
        return Grid(self._box(kind, number), self.site.config.blocks.shape)

    def _block_box(self, sweep: str, index: Index) -> Box:
        return self._grid(*_parse(sweep)).block_box(index)

    def _finer_box(self, kind: str, number: int, index: Index) -> Box:
        """The voxels of the level below that decide a block."""
        box, step = self._grid(kind, number).block_box(index), self._levels[number - 1].step
        if kind == SEGMENTATION:
            return first_voxels(box, step)
        return box.scale(step).clip(self._box(kind, number - 1))

    # ---- arrays ------------------------------------------------------------------------------------------------
    def _group(self, kind: str) -> Path:
        return self.folder / f"{kind}.zarr"

    @cached_property
    def _open(self) -> dict[tuple[str, int], Volume]:
        return {}

    def _volume(self, kind: str, number: int) -> Volume:
        if (kind, number) not in self._open:
            self._open[kind, number] = Volume.open(self._group(kind) / str(number))
        return self._open[kind, number]

    def _read_level(self, kind: str, number: int, box: Box) -> NDArray[Any]:
        """A box of a coarse level; 0 where it is masked."""
        values = np.zeros(box.shape, DTYPES[kind])
        grid, sweep = self._grid(kind, number), f"{kind}{number}"
        for index in grid.touching(box):
            if not self.masked(sweep, index):
                part = grid.block_box(index).clip(box)
                values[part.slices(box.begin)] = self._volume(kind, number).read(part)
        return values


def _parse(sweep: str) -> tuple[str, int]:
    """A pass's kind and level."""
    found = re.fullmatch(f"({SEGMENTATION}|{IMAGE})([0-9]+)", sweep)
    if found is None:
        raise LookupError(f"pyramid has no pass {sweep!r}")
    return found[1], int(found[2])
