"""How good the segmentation is at every threshold, without making any.

1. The pairs (truth, fragment) of the volume are counted once. Fragments never change with the threshold.
2. At a threshold every fragment becomes its segment (ops/merge_tree.py). Pairs that become alike add up, which gives
   the very pairs (truth, segment) that a segmentation at that threshold would be counted to have.
3. The measures are those of ops/evaluate.py, from the same pairs, hence the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.ops.evaluate import Pairs, merge, scores
from pipeline.ops.merge_tree import Links, cut_links
from pipeline.ops.relabel import rename


@dataclass(frozen=True)
class Point:
    """The measures at a threshold, a share of the affinity range; None where nothing can be measured."""

    threshold: float
    segments: int
    voi_split: float | None
    voi_merge: float | None
    voi: float | None
    arand: float | None


def sweep(counted: Pairs, tree: Links, thresholds: Iterable[float], *, full: int, ignore_zero: bool) -> list[Point]:
    """The measures at every threshold; `full` is the score that the threshold 1 stands for."""
    points = []
    for threshold in thresholds:
        segment = rename(counted.segment, tree.larger, cut_links(tree, threshold * full))
        found = scores(merge([Pairs(counted.truth, segment, counted.voxels)]), ignore_truth_zero=ignore_zero)
        measures = (found[name] for name in ("voi_split", "voi_merge", "voi", "arand"))
        points.append(Point(threshold, int(found["segments"] or 0), *measures))
    return points


def best(points: Sequence[Point]) -> Point | None:
    """The point with the least VOI; of equals the lowest threshold."""
    measured = [point for point in points if point.voi is not None]
    return min(measured, key=lambda point: (point.voi, point.threshold), default=None)
