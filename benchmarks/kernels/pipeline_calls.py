"""Our own kernels as the benchmarks call them: float32 affinities, a volume as one block, nothing but the op."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.agglomerate import Part, agglomerate
from pipeline.ops.edges import Edges
from pipeline.ops.region_graph import Place, contacts
from pipeline.ops.relabel import rename, segments
from pipeline.ops.whole_volume import watershed_volume

U64 = NDArray[np.uint64]
Affinities = NDArray[np.float32]


def watershed(nearest_CZYX: Affinities, low: float, high: float, size_vx: int = 0) -> U64:
    """Basins of the nearest channels, linked up to a size on request."""
    return watershed_volume(nearest_CZYX, low, high, size_vx, 0)


def region_graph(fragments_ZYX: U64, nearest_CZYX: Affinities) -> Edges:
    """Pairs of fragments with sums, counts and largest affinities."""
    place = Place((0, 0, 0), fragments_ZYX.shape)
    return contacts(fragments_ZYX, nearest_CZYX, {}, code_table=None, place=place)["inner"]


def part_of(name: U64, edges: Edges) -> Part:
    """A graph that nothing lies around."""
    none = edges.take(np.empty(0, np.int64))
    return Part(Box.of_shape((1, 1, 1)), name, np.zeros(name.size, np.uint8), edges, (none, none, none))


def clusters(part: Part, floor: float) -> U64:
    """The segment of every node, by the greedy run down to the floor."""
    merges = agglomerate([part], part.box, floor=floor).tree
    return rename(part.name, *segments(merges.a, merges.b, merges.score, floor))
