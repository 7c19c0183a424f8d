"""Evaluate: how well the segmentation agrees with the truth (ops/evaluate.py). No truth, no passes.

`blocks` counts pairs of labels block by block, `total` adds them up; its receipt carries the measures. The truth is
brought to the layer's voxel size by first voxels, or by repetition where it is coarser. What skip masks leave out does
not count; an accepted hole counts as background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Grid, Index, VoxelSize
from pipeline.ops.evaluate import Pairs, merge, pairs, scores
from pipeline.ops.pyramid import first_voxels
from pipeline.ops.resample import first_labels, upsample_labels
from pipeline.sources import Source, open_source
from pipeline.stages.masks import SkipMask, skip_masks, skipped
from pipeline.stages.relabel import Relabel
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.stages.synthesize import Synthesize
from pipeline.tables import digest_tables, read_tables, write_tables
from pipeline.volumes import Volume
from workers.block import BlockRef

BLOCKS, TOTAL = "blocks", "total"
VOXEL_BYTES = 36  # two label volumes, a mask, contiguous copies of what is compared
PAIR_BYTES = 160  # a row in all blocks' tables and while they are sorted
VOXELS_PER_PAIR = 500  # assumed by estimates
COLUMNS = ("truth", "segment", "voxels")


@dataclass(frozen=True)
class Inputs:
    """Two volumes and what of them counts; or, for the total, the tables of all blocks."""

    truth_ZYX: NDArray[np.uint64] | None = None
    segments_ZYX: NDArray[np.uint64] | None = None
    counts_ZYX: NDArray[np.bool_] | None = None
    tables: tuple[Pairs, ...] = ()


class Evaluate(Stage[Inputs, Pairs]):
    """From segmentation and truth to measures."""

    name = "evaluate"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether there is a truth."""
        return self.site.facts["truth"] is not None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Relabel, and the generator if the truth is a generated one."""
        generated = (self._synthesize,) if self._synthesize.active else ()
        return (self._relabel, *generated)

    def content(self) -> dict[str, Any]:
        """Which truth and region, and what is left out."""
        roi, truth = self.site.layer.roi, self.site.facts["truth"]
        return {
            "ignore_truth_zero": self.site.config.evaluate.ignore_truth_zero,
            "truth": None if truth is None else [truth["fingerprint"], list(truth["voxel_size_pm"])],
            "roi": [roi.begin, roi.end],
        }

    def passes(self) -> tuple[Pass, ...]:
        """Blocks, then all of them together; nothing if there is no truth."""
        roi = self.site.layer.roi
        return (Pass(BLOCKS, self._grid), Pass(TOTAL, Grid(roi, roi.shape))) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """A block's labels and its truth; or all blocks."""
        if sweep == TOTAL:
            return (BlockRef(self.task(BLOCKS), block) for block in self._grid)
        box = self._grid.block_box(index)
        refs = [ref for ref in self._relabel.refs("blocks", box) if not self._relabel.masked("blocks", ref.index)]
        return [*refs, *self.truth_refs(box)]

    # ---- the work ----------------------------------------------------------------------------------------------
    def read(self, sweep: str, index: Index) -> Inputs:
        """Labels and truth of a block, or the tables of all blocks."""
        if sweep == TOTAL:
            return Inputs(tables=tuple(self._pairs(BLOCKS, block) for block in self._grid))
        box = self._grid.block_box(index)
        return Inputs(self.read_truth(box), self._relabel.read_segmentation(box), self.read_counts(box))

    def compute(self, inputs: Inputs) -> Pairs:
        """Count, or add up."""
        if inputs.truth_ZYX is None or inputs.segments_ZYX is None:
            return merge(inputs.tables)
        if inputs.counts_ZYX is None:
            return pairs(inputs.truth_ZYX, inputs.segments_ZYX)
        return pairs(inputs.truth_ZYX[inputs.counts_ZYX], inputs.segments_ZYX[inputs.counts_ZYX])

    def write(self, sweep: str, index: Index, outputs: Pairs) -> Written:
        """The table; for the total the measures as well."""
        table = {column: getattr(outputs, column) for column in COLUMNS}
        parts = {"pairs": write_tables(self.table_path(sweep, index), {"pairs": table})}
        if sweep == BLOCKS:
            return Written(parts, {"pairs": outputs.size, "voxels": int(outputs.voxels.sum())})
        return Written(parts, scores(outputs, ignore_truth_zero=self.site.config.evaluate.ignore_truth_zero))

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digest of the table as it is now."""
        return {"pairs": digest_tables(read_tables(self.table_path(sweep, index)))}

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """Two label volumes (the truth possibly finer); or all pairs of the volume."""
        if sweep == TOTAL:
            return (1 << 20) + PAIR_BYTES * self.site.layer.roi.voxels // VOXELS_PER_PAIR
        box = self._grid.block_box((0, 0, 0))
        return VOXEL_BYTES * box.voxels + 16 * self.truth_box(box).voxels

    def stored_bytes(self) -> int:
        """The pairs, twice."""
        return 48 * self.site.layer.roi.voxels // VOXELS_PER_PAIR if self.active else 0

    # ---- the truth ---------------------------------------------------------------------------------------------
    @cached_property
    def _finer(self) -> Index:
        """How many voxels of the truth make up one of the layer along each axis; 1 where it is the coarser one."""
        return _factor(self.site.layer.voxel_size, self._truth_size)

    @cached_property
    def _coarser(self) -> Index:
        """How many voxels of the layer make up one of the truth; 1 where it is the finer one."""
        return _factor(self._truth_size, self.site.layer.voxel_size)

    @property
    def _truth_size(self) -> VoxelSize:
        z, y, x = self.site.facts["truth"]["voxel_size_pm"]
        return VoxelSize((z, y, x))

    def truth_refs(self, box: Box) -> list[BlockRef]:
        """The blocks that the truth of a box is read from; none where it is given in a file."""
        return list(self._synthesize.refs("blocks", self.truth_box(box))) if self._synthesize.active else []

    def read_counts(self, box: Box) -> NDArray[np.bool_] | None:
        """Which voxels of a box count; None if all do."""
        return ~skipped(self._masks, box) if self._masks else None

    def truth_box(self, box: Box) -> Box:
        """The voxels of the truth that decide a box of the layer."""
        fine = first_voxels(box, self._finer)
        low = tuple(b // c for b, c in zip(fine.begin, self._coarser, strict=True))
        high = tuple(-(-e // c) for e, c in zip(fine.end, self._coarser, strict=True))
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def read_truth(self, box: Box) -> NDArray[np.uint64]:
        """The truth of a box of the layer, at the layer's voxel size."""
        given = self.truth_box(box)
        labels = first_labels(self._truth.read(given), self._finer)
        z, y, x = (b * c // f for b, c, f in zip(given.begin, self._coarser, self._finer, strict=True))
        return np.asarray(upsample_labels(labels, self._coarser)[box.slices((z, y, x))], np.uint64)

    @cached_property
    def _truth(self) -> Volume | Source:
        if self._synthesize.active:
            return self._synthesize.truth
        location = str(self.site.config.input.truth)
        source = open_source(location)
        if not source.box.contains(self.truth_box(self.site.layer.roi)):
            raise WrongShape(
                f"the truth of shape {source.shape} does not cover the region {self.site.layer.roi} of the layer",
                where=location,
                way_out="restrict the run with [roi], or give a truth that covers it",
            )
        return source

    # ---- the rest ----------------------------------------------------------------------------------------------
    @cached_property
    def _relabel(self) -> Relabel:
        return self.site.find(Relabel)

    @cached_property
    def _synthesize(self) -> Synthesize:
        return self.site.find(Synthesize)

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self.site.layer.roi, self.site.config.blocks.shape)

    @cached_property
    def _masks(self) -> tuple[SkipMask, ...]:
        return skip_masks(self.site)

    def _pairs(self, sweep: str, index: Index) -> Pairs:
        table = read_tables(self.table_path(sweep, index), ["pairs"])["pairs"]
        return Pairs(*(table[column] for column in COLUMNS))


def _factor(coarse: VoxelSize, fine: VoxelSize) -> Index:
    """Axis by axis, how often the fine size fits; 1 where it is not the finer one."""
    factor = []
    for c, f in zip(coarse.pm, fine.pm, strict=True):
        if max(c, f) % min(c, f):
            raise WrongVoxelSize(
                f"voxels of {coarse} and of {fine} do not fit: neither is a whole multiple of the other",
                where="input.truth",
                way_out="state the right input.truth_voxel_size_nm, or resample the truth",
            )
        factor.append(max(c // f, 1))
    return (factor[0], factor[1], factor[2])
