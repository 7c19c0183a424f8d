"""A volume in memory: from fragments to a merge tree and scores at many thresholds.

The ops that a run calls block by block, for all of it: region graph, agglomeration, one count of fragments against the
truth. The labels are those of a run, whatever its blocks. For volumes that fit into memory, such as those that a
training is judged by.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from pipeline.ops.thresholds import FULL_SCALE

U64 = NDArray[np.uint64]


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
