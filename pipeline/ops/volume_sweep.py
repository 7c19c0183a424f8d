"""A volume in memory: from affinity codes to fragments, merge tree and scores at many thresholds.

The ops that a run calls block by block, for all of it: watershed, region graph, agglomeration, one count of fragments
against the truth. The labels are those of a run, whatever its blocks. For volumes that fit into memory, such as those
that a training is judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.agglomerate import MEAN_SCORE, Part, Tree, agglomerate
from pipeline.ops.evaluate import pairs
from pipeline.ops.merge_tree import links
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.scores import Score
from pipeline.ops.sweep import Point, sweep
from pipeline.ops.thresholds import FULL_SCALE, absolute_codes
from pipeline.ops.whole_volume import watershed_volume

U64 = NDArray[np.uint64]
NEAREST = 3


@dataclass(frozen=True)
class Segmented:
    """Fragments and how they merge."""

    fragments_ZYX: U64
    tree: Tree

    def segments(self, threshold: float) -> U64:
        """The labels at a threshold, a share of the affinity range."""
        tree = self.tree
        return rename(self.fragments_ZYX, *segments(tree.a, tree.b, tree.score, threshold * FULL_SCALE))

    def scores(self, truth_ZYX: U64, thresholds: Iterable[float]) -> list[Point]:
        """The measures at every threshold; voxels whose truth is 0 are left out."""
        counted = pairs(truth_ZYX, self.fragments_ZYX)
        tree = links(self.tree.a, self.tree.b, self.tree.score)
        return sweep(counted, tree, thresholds, full=FULL_SCALE, ignore_zero=True)


def segment_volume(
    codes_CZYX: NDArray[np.uint8], code_table: Sequence[int], *, low: float, high: float, floor: float, size_vx: int = 0
) -> Segmented:
    """Watershed between two shares of the affinity range, then the merges with a mean affinity above the floor."""
    codes_CZYX = np.ascontiguousarray(codes_CZYX[:NEAREST])
    fragments_ZYX = fragments_of(codes_CZYX, code_table, low=low, high=high, size_vx=size_vx)
    return merges_of(fragments_ZYX, codes_CZYX, code_table, floor=floor)


def fragments_of(
    codes_CZYX: NDArray[np.uint8], code_table: Sequence[int], *, low: float, high: float, size_vx: int = 0
) -> U64:
    """The watershed's fragments, from the nearest edges."""
    limits = absolute_codes(np.asarray(code_table, np.int64), low, high)
    return watershed_volume(np.ascontiguousarray(codes_CZYX[:NEAREST]), *limits, size_vx, 0)


def merges_of(
    fragments_ZYX: U64,
    codes_CZYX: NDArray[np.uint8],
    code_table: Sequence[int],
    *,
    floor: float,
    score: Score = MEAN_SCORE,
) -> Segmented:
    """Any fragments and their merges with a score above the floor."""
    table = np.asarray(code_table, np.int64)
    graph = graph_of(fragments_ZYX, codes_CZYX, table, histograms=score.name == "quantile")
    return merge_fragments(fragments_ZYX, graph, floor=floor, score=score)


def graph_of(
    fragments_ZYX: U64, codes_CZYX: NDArray[Any], code_table: NDArray[np.integer] | None, *, histograms: bool = False
) -> Part:
    """The region graph of a volume; histograms for a quantile. Float affinities of 0 to 1 come without a table."""
    box = Box.of_shape(fragments_ZYX.shape)
    place = Place(box.begin, box.shape)
    edges = contacts(fragments_ZYX, codes_CZYX, {}, code_table=code_table, place=place, histograms=histograms)
    own = nodes(fragments_ZYX, 0)
    return Part(box, own.name, own.mask, edges["inner"], (edges["low_z"], edges["low_y"], edges["low_x"]))


def merge_fragments(fragments_ZYX: U64, graph: Part, *, floor: float, score: Score = MEAN_SCORE) -> Segmented:
    """Merges with a score above the floor, of fragments whose graph is known: one graph serves several scores."""
    return Segmented(fragments_ZYX, agglomerate([graph], graph.box, floor=floor * FULL_SCALE, score=score).tree)
