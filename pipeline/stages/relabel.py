"""Relabel: from fragments and the merge tree to the segmentation at one threshold (ops/relabel.py).

`forest` reads the whole merge tree and writes one table, fragment -> segment. This step is global: its memory grows
with the number of merges in the volume, is bounded by limits.table_gb, and it refuses to start beyond. `blocks` then
writes the labels, block by block; each holds that table in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops.relabel import rename, segments
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, TabularStage, Work
from pipeline.volumes import Volume
from workers.block import BlockRef
from workers.errors import Poison

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)

MERGE_BYTES = 128  # a merge while the forest is made; measured: 100
TABLE_BYTES = 32  # its row in the table, as a block reads it
VOXEL_BYTES = 32  # pieces, segments, their shard being encoded, a sorted copy of distinct names


@dataclass(frozen=True)
class _Forest:
    """The merge tree."""

    a: U64
    b: U64
    score: NDArray[np.float64]
    threshold: float

    def compute(self) -> Tables:
        fragment, segment = segments(self.a, self.b, self.score, self.threshold)
        return Tables({"lut": {"fragment": fragment, "segment": segment}}, {"merged": fragment.size})


@dataclass(frozen=True)
class _Labels:
    """A block's pieces, their fragments, and the table of the forest."""

    pieces_ZYX: U64
    names: tuple[U64, U64]
    lut: tuple[U64, U64]

    def compute(self) -> Tables:
        piece, fragment = self.names
        segment = rename(fragment, *self.lut)
        labels_ZYX = rename(self.pieces_ZYX, piece, segment)
        distinct = np.unique(segment[segment != 0]).size
        summary = {"segments": distinct, "voxels": int(np.count_nonzero(labels_ZYX))}
        return Tables({"segments": {"name": np.unique(segment[segment != 0])}}, summary, labels_ZYX)


class Relabel(TabularStage):
    """From fragments and merges to segments."""

    name = "relabel"
    labelled = frozenset({"blocks"})

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @cached_property
    def agglomerate(self) -> Agglomerate:
        """The stage that made the merge tree."""
        return self.site.find(Agglomerate)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments and agglomerate."""
        return (self.fragments, self.agglomerate)

    def content(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.site.config.relabel.threshold}

    def passes(self) -> tuple[Pass, ...]:
        """The forest, then blocks."""
        roi = self.site.layer.roi
        return (Pass("forest", Grid(roi, roi.shape)), Pass("blocks", self.grids[0]))

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return sweep == "blocks" and self.fragments.empty(0, index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """All of the merge tree; or a block's fragments and the forest."""
        if sweep == "blocks":
            return [*self.fragments.label_refs(index), BlockRef(self.task("forest"), ONLY)]
        return [
            BlockRef(self.agglomerate.task(level.name), chunk)
            for level in self.agglomerate.passes()
            for chunk in level.grid
            if not self.agglomerate.masked(level.name, chunk)
        ]

    def read(self, sweep: str, index: Index) -> Work:
        """The merge tree, or a block."""
        if sweep == "blocks":
            names = self.fragments.fragment_names(index)
            return _Labels(self.fragments.read_pieces(self.box(sweep, index)), names, self._lut)
        refs = list(self.needs(sweep, index))
        self._refuse_beyond_limit(sum(int(self.site.summary(ref)["merges"]) for ref in refs))
        threshold = self.site.config.relabel.threshold * FULL_SCALE
        parts = [_above(self._merges(ref), threshold) for ref in refs]
        a, b = (np.concatenate([np.empty(0, np.uint64), *(part[end] for part in parts)]) for end in ("a", "b"))
        score = np.concatenate([np.empty(0, np.float64), *(part["score"] for part in parts)])
        return _Forest(a, b, score, threshold)

    def _merges(self, ref: BlockRef) -> dict[str, NDArray[Any]]:
        return self.agglomerate.tables(ref.task.rpartition("/")[2], ref.index, "merges")["merges"]

    def _refuse_beyond_limit(self, merges: int) -> None:
        limit_gb = self.site.config.limits.table_gb
        if merges * MERGE_BYTES > limit_gb * 1e9:
            raise Poison(
                f"the merge tree has {merges:,} rows: {merges * MERGE_BYTES / 1e9:.1f} GB, the limit is {limit_gb} GB",
                where=self.task("forest"),
                way_out="raise limits.table_gb, or segment the volume in parts with [roi]",
            )

    @cached_property
    def _lut(self) -> tuple[U64, U64]:
        """The table of the forest, read once in a worker: a stage object lives no longer than its run's plan."""
        lut = self.tables("forest", ONLY, "lut")["lut"]
        return lut["fragment"], lut["segment"]

    # ---- what others read --------------------------------------------------------------------------------------
    @property
    def segmentation(self) -> Volume:
        """The stored labels; masked blocks have none."""
        return self.labels

    def read_segmentation(self, box: Box) -> U64:
        """Labels of a box inside the region of interest; 0 in masked blocks."""
        labels_ZYX = np.zeros(box.shape, np.uint64)
        for index in self.grids[0].touching(box):
            if not self.masked("blocks", index):
                piece = self.grids[0].block_box(index).clip(box)
                labels_ZYX[piece.slices(box.begin)] = self.labels.read(piece)
        return labels_ZYX

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """The forest: all merges at the density that estimates assume, up to the limit; a block: it and its voxels."""
        merges = FRAGMENTS_PER_VOXEL * self.site.layer.roi.voxels
        if sweep == "forest":
            return int(min(MERGE_BYTES * merges, self.site.config.limits.table_gb * 1e9))
        return int(TABLE_BYTES * merges + VOXEL_BYTES * self.box(sweep, ONLY).voxels)

    def stored_bytes(self) -> int:
        """Labels and the table."""
        return int((8 + 24 * FRAGMENTS_PER_VOXEL) * self.site.layer.roi.voxels)


def _above(merges: dict[str, NDArray[Any]], threshold: float) -> dict[str, NDArray[Any]]:
    """The merges that a threshold keeps."""
    keep = merges["score"] > threshold
    return {name: column[keep] for name, column in merges.items()}
