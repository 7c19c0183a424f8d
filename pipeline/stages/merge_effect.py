"""Merge effect: what merging each candidate would do to the scores, and other thresholds (ops/merge_effect.py).

`blocks` counts pairs (truth, segment) block by block; segments are those that self_touch begins with. `total` adds the
pairs up, reads the decisions, and stores a row for each of them and one for every threshold of the distance. `total` is
global: its memory grows with the pairs of the volume. Without a truth or self_touch there are no passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Grid, Index
from pipeline.ops.evaluate import Pairs, merge
from pipeline.ops.merge_effect import Effect, Point, best, effect_by_round, sweep
from pipeline.ops.relabel import rename
from pipeline.ops.self_touch import APART, MERGE
from pipeline.stages.cut import Cut
from pipeline.stages.evaluate import BLOCKS, COLUMNS, PAIR_BYTES, TOTAL, VOXELS_PER_PAIR, Evaluate
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.sweep import MEASURES, VOXEL_BYTES, Count
from pipeline.stages.tabular import Tables, TabularStage, Work
from workers.block import BlockRef

ONLY: Index = (0, 0, 0)
THRESHOLDS = tuple(n / 4 for n in range(13))  # of the distance, beside the run's own


@dataclass(frozen=True)
class _Total:
    """The pairs of all blocks, and the decisions."""

    pairs: tuple[Pairs, ...]
    decisions: Mapping[str, NDArray[Any]]
    thresholds: Sequence[float]
    ignore_zero: bool

    def compute(self) -> Tables:
        """Two tables: a row a decision, and a row a threshold."""
        found, counted = self.decisions, merge(self.pairs)
        if not found:
            found = {name: np.empty(0) for name in ("distance", "decision", "round")}
            found |= {name: np.empty(0, np.uint64) for name in ("s1", "s2")}
        both, merged = (found["s1"], found["s2"]), found["decision"] == MERGE
        change = effect_by_round(counted, both, found["round"], merged, ignore_truth_zero=self.ignore_zero)
        first, eligible = found["round"] == 1, merged | (found["decision"] == APART)
        points = sweep(
            counted,
            (found["s1"][first], found["s2"][first]),
            found["distance"][first],
            eligible[first],
            self.thresholds,
            ignore_truth_zero=self.ignore_zero,
        )
        tables = {"effect": {"split": change.split, "merge": change.merge}, "sweep": _columns(points)}
        right, least = int(((change.sum < 0) & merged).sum()), best(points)
        told = {"merged": int(merged.sum()), "rightly": right, "best": None if least is None else least.threshold}
        return Tables(tables, told)


def _columns(points: Sequence[Point]) -> dict[str, NDArray[Any]]:
    table: dict[str, NDArray[Any]] = {"threshold": np.array([p.threshold for p in points], np.float64)}
    for name in MEASURES:
        table[name] = np.array([getattr(point, name) for point in points], np.float64)  # None becomes NaN
    return {**table, "accepted": np.array([p.accepted for p in points], np.int64)}


class MergeEffect(TabularStage):
    """From decisions and truth to what they are worth."""

    name = "merge_effect"

    @property
    def active(self) -> bool:
        """Whether there are a truth and decisions."""
        return self._evaluate.active and self._self_touch.active

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those that are tried."""
        return tuple(sorted({*THRESHOLDS, self.site.config.self_touch.theta_d}))

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments and their names, the decisions, and the generator if the truth is a generated one."""
        generated = tuple(stage for stage in self._evaluate.upstream() if stage.name == "synthesize")
        cut = (self._cut,) if self._cut.active else ()
        return (self._fragments, *cut, self._self_touch, *generated)

    def content(self) -> dict[str, Any]:
        """The thresholds, and what decides the comparison."""
        return {**self._evaluate.content(), "thresholds": list(self.thresholds)}

    def passes(self) -> tuple[Pass, ...]:
        """Blocks, then all of them together."""
        roi = self.site.layer.roi
        return (Pass(BLOCKS, self.grids[0]), Pass(TOTAL, Grid(roi, roi.shape))) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """A block's fragments, their names and truth; or all blocks and the decisions."""
        if sweep == BLOCKS:
            names = [*self._fragments.label_refs(index), *self._cut.name_refs(index)]
            return [*names, *self._evaluate.truth_refs(self.box(sweep, index))]
        counted = [BlockRef(self.task(BLOCKS), block) for block in self.grids[0]]
        return [*counted, *self._self_touch.decision_refs()]

    def read(self, sweep: str, index: Index) -> Work:
        """Truth and segments of a block; or everything that was counted and decided."""
        if sweep == BLOCKS:
            box = self.box(sweep, index)
            segments_ZYX = rename(self._fragments.read_labels(box), *self._cut.names(index))
            return Count(self._evaluate.read_truth(box), segments_ZYX, self._evaluate.read_counts(box))
        stored = (self.tables(BLOCKS, block, "pairs")["pairs"] for block in self.grids[0])
        counted = tuple(Pairs(*(table[column] for column in COLUMNS)) for table in stored)
        ignore = self.site.config.evaluate.ignore_truth_zero
        return _Total(counted, self._self_touch.decisions(), self.thresholds, ignore)

    # ---- what others read --------------------------------------------------------------------------------------
    def effect(self) -> Effect:
        """Of every decision, in their order."""
        return Effect(**self.tables(TOTAL, ONLY, "effect")["effect"])

    def points(self) -> list[Point]:
        """The scores at every threshold."""
        table = self.tables(TOTAL, ONLY, "sweep")["sweep"]
        measures = [[None if np.isnan(v) else float(v) for v in table[name]] for name in MEASURES]
        rows = zip(table["threshold"].tolist(), table["accepted"].tolist(), *measures, strict=True)
        return [Point(*row) for row in rows]

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """A block's labels and truth; or all pairs, and the decisions."""
        if sweep == TOTAL:
            decided = self._self_touch.memory_bytes("unite")
            return 2 * PAIR_BYTES * self.site.layer.roi.voxels // VOXELS_PER_PAIR + decided
        box = self.box(BLOCKS, ONLY)
        return VOXEL_BYTES * box.voxels + 16 * self._evaluate.truth_box(box).voxels

    def stored_bytes(self) -> int:
        """The pairs, and what becomes of decisions."""
        return 25 * self.site.layer.roi.voxels // VOXELS_PER_PAIR if self.active else 0

    # ---- where things are --------------------------------------------------------------------------------------
    @cached_property
    def _evaluate(self) -> Evaluate:
        """Knows how the truth is read; nothing is read that it has written."""
        return self.site.find(Evaluate)

    @cached_property
    def _self_touch(self) -> SelfTouch:
        return self.site.find(SelfTouch)

    @cached_property
    def _cut(self) -> Cut:
        return self.site.find(Cut)

    @cached_property
    def _fragments(self) -> FragmentSource:
        return self.site.find(FragmentSource)
