"""Sweep: the scores at many thresholds, from one count of fragments against the truth (ops/sweep.py).

`blocks` counts pairs (truth, fragment) block by block. `total` adds them up, reads the merge tree, and stores the
scores of every threshold as a table. It does not depend on the run's own threshold: a run at another one shares it.
`total` is global: its memory grows with the pairs and the merges of the volume. `sweep.thresholds = []` does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Grid, Index
from pipeline.ops.evaluate import Pairs, merge, pairs
from pipeline.ops.merge_tree import Merges, kept, links
from pipeline.ops.sweep import Point, best, sweep
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.evaluate import BLOCKS, COLUMNS, PAIR_BYTES, TOTAL, VOXELS_PER_PAIR, Evaluate
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, TabularStage, Work
from workers.block import BlockRef

MERGE_BYTES = 128  # a merge while the tree is sorted and cut; measured: 105
VOXEL_BYTES = 60  # fragments, their pieces, the truth, a mask, contiguous copies of what is compared
MEASURES = ("voi_split", "voi_merge", "voi", "arand")


@dataclass(frozen=True)
class Count:
    """Truth and fragments of a block, and which voxels count."""

    truth_ZYX: NDArray[np.uint64]
    fragments_ZYX: NDArray[np.uint64]
    counts_ZYX: NDArray[np.bool_] | None

    def pairs(self) -> Pairs:
        """Count them."""
        if self.counts_ZYX is None:
            return pairs(self.truth_ZYX, self.fragments_ZYX)
        return pairs(self.truth_ZYX[self.counts_ZYX], self.fragments_ZYX[self.counts_ZYX])

    def compute(self) -> Tables:
        """As tables."""
        found = self.pairs()
        table = {column: getattr(found, column) for column in COLUMNS}
        return Tables({"pairs": table}, {"pairs": found.size, "voxels": int(found.voxels.sum())})


@dataclass(frozen=True)
class Cuts:
    """The pairs of all blocks and the merge tree."""

    pairs: tuple[Pairs, ...]
    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    score: NDArray[np.float64]
    thresholds: Sequence[float]
    ignore_zero: bool

    def points(self) -> list[Point]:
        """The scores at every threshold."""
        tree = links(self.a, self.b, self.score)
        return sweep(merge(self.pairs), tree, self.thresholds, full=FULL_SCALE, ignore_zero=self.ignore_zero)

    def compute(self) -> Tables:
        """As a table, and the best of them."""
        points = self.points()
        table: dict[str, NDArray[Any]] = {"threshold": np.array([p.threshold for p in points], np.float64)}
        for name in MEASURES:
            table[name] = np.array([getattr(point, name) for point in points], np.float64)  # None becomes NaN
        table["segments"] = np.array([p.segments for p in points], np.int64)
        least = best(points)
        return Tables({"sweep": table}, {"merges": self.a.size, "best": None if least is None else least.threshold})


class Sweep(TabularStage):
    """From fragments, merges and truth to scores by threshold."""

    name = "sweep"

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @cached_property
    def agglomerate(self) -> Agglomerate:
        """The stage that made the merge tree."""
        return self.site.find(Agglomerate)

    @cached_property
    def _evaluate(self) -> Evaluate:
        """Knows how the truth is read; the sweep reads nothing that it has written."""
        return self.site.find(Evaluate)

    @property
    def active(self) -> bool:
        """Whether there are a truth, a merge tree and a threshold."""
        return self._evaluate.active and self.agglomerate.active and bool(self.thresholds)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those of the config that the merge tree reaches down to, ascending."""
        settings = self.site.config
        return tuple(sorted({t for t in settings.sweep.thresholds if t >= settings.agglomerate.floor}))

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments, agglomerate, and the generator if the truth is a generated one."""
        generated = tuple(stage for stage in self._evaluate.upstream() if stage.name == "synthesize")
        return (self.fragments, self.agglomerate, *generated)

    def content(self) -> dict[str, Any]:
        """The thresholds, and what decides the comparison."""
        return {**self._evaluate.content(), **self.agglomerate.guards, "thresholds": list(self.thresholds)}

    def passes(self) -> tuple[Pass, ...]:
        """Blocks, then all of them together."""
        roi = self.site.layer.roi
        return (Pass(BLOCKS, self.grids[0]), Pass(TOTAL, Grid(roi, roi.shape)))

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """A block's fragments and truth; or all blocks and the merge tree."""
        if sweep == BLOCKS:
            return [*self.fragments.label_refs(index), *self._evaluate.truth_refs(self.box(sweep, index))]
        return [*(BlockRef(self.task(BLOCKS), block) for block in self.grids[0]), *self._tree_refs()]

    def read(self, sweep: str, index: Index) -> Work:
        """Truth and fragments of a block; or everything that was counted, and the tree."""
        if sweep == BLOCKS:
            return self.read_block(index)
        counted = (self.tables(BLOCKS, block, "pairs")["pairs"] for block in self.grids[0])
        return self.cuts([Pairs(*(table[column] for column in COLUMNS)) for table in counted], self.thresholds)

    def read_block(self, index: Index) -> Count:
        """Truth and fragments of a block."""
        box = self.box(BLOCKS, index)
        truth, counts = self._evaluate.read_truth(box), self._evaluate.read_counts(box)
        return Count(truth, self.fragments.read_labels(box), counts)

    def cuts(self, counted: Iterable[Pairs], thresholds: Sequence[float]) -> Cuts:
        """What any thresholds can be evaluated from: pairs, and the merges above the least of them."""
        least = min(thresholds) * FULL_SCALE
        a, b = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        score: list[NDArray[np.float64]] = [np.empty(0, np.float64)]
        for ref in self._tree_refs():
            merges = self.agglomerate.tables(ref.task.rpartition("/")[2], ref.index, "merges")["merges"]
            own = kept(Merges(**merges), threshold=least, **self.agglomerate.guards)
            a.append(own.a)
            b.append(own.b)
            score.append(own.score)
        ignore = self.site.config.evaluate.ignore_truth_zero
        return Cuts(tuple(counted), np.concatenate(a), np.concatenate(b), np.concatenate(score), thresholds, ignore)

    def stored_points(self) -> list[Point]:
        """The table that was stored."""
        table = self.tables(TOTAL, (0, 0, 0), "sweep")["sweep"]
        measures = [[None if np.isnan(v) else float(v) for v in table[name]] for name in MEASURES]
        rows = zip(table["threshold"].tolist(), table["segments"].tolist(), *measures, strict=True)
        return [Point(*row) for row in rows]

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """A block's labels and truth; or all pairs and merges at the density that estimates assume."""
        if sweep == TOTAL:
            rows = PAIR_BYTES / VOXELS_PER_PAIR + MERGE_BYTES * FRAGMENTS_PER_VOXEL
            return int((1 << 20) + rows * self.site.layer.roi.voxels)
        box = self.box(BLOCKS, (0, 0, 0))
        return VOXEL_BYTES * box.voxels + 16 * self._evaluate.truth_box(box).voxels

    def stored_bytes(self) -> int:
        """The pairs."""
        return 24 * self.site.layer.roi.voxels // VOXELS_PER_PAIR

    def _tree_refs(self) -> list[BlockRef]:
        """The blocks that hold the merge tree."""
        tree = self.agglomerate
        return [
            BlockRef(tree.task(level.name), chunk)
            for level in tree.passes()
            for chunk in level.grid
            if not tree.masked(level.name, chunk)
        ]
