"""Mean-affinity agglomeration to 0.5 of the basins' region graph; rates and memory are per edge.

Ours and bioimage-cpp's GASP start from the same arrays of edges (integer sums and counts); both include building their
own graph. GASP takes signed weights, so it gets mean - 0.5; it pops by |weight|, and an edge below 0 merges nothing.
waterz starts from voxels: its merging phase alone is measured, in its favour, on float means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import agreement, pipeline_calls
from benchmarks.kernels.data import Volume
from benchmarks.kernels.measure import Arrays, Contender
from pipeline.ops.edges import Edges

UNIT = "edge"
CORNER = (slice(0, 8), slice(0, 48), slice(0, 48))
FULL_SCALE = 65535


def graph(volume: Volume) -> tuple[NDArray[np.uint64], Edges]:
    with np.load(volume.folder / "graph.npz") as stored:
        return stored["name"], Edges.of_columns(dict(stored))


def units(volume: Volume) -> int:
    """The number of edges."""
    return graph(volume)[1].size


def ours(volume: Volume) -> Callable[[], Any]:
    name, edges = graph(volume)
    part = pipeline_calls.part_of(name, edges)
    few = edges.take(edges.b < 500)
    pipeline_calls.clusters(pipeline_calls.part_of(name[:500], few), 0.5 * FULL_SCALE)
    return lambda: pipeline_calls.clusters(part, 0.5 * FULL_SCALE)


def gasp(volume: Volume) -> Callable[[], Any]:
    from bioimage_cpp.graph import UndirectedGraph
    from bioimage_cpp.graph.agglomeration import GaspClusterPolicy

    name, edges = graph(volume)
    ends = np.ascontiguousarray(np.stack([edges.a, edges.b], axis=1)) - np.uint64(1)
    weight = edges.total / edges.count / FULL_SCALE - 0.5
    size = edges.count.astype(np.float64)
    policy = GaspClusterPolicy(linkage="mean")

    def run() -> Any:
        whole = UndirectedGraph.from_unique_edges(name.size, ends)
        return policy.optimize(whole, weight, edge_sizes=size)

    run()
    return run


def waterz(volume: Volume) -> Callable[[], Any]:
    from waterz import agglomerate

    def run(labels_ZYX: NDArray[Any], affinities: NDArray[Any]) -> Any:
        return next(agglomerate(affinities, [0.5], fragments=labels_ZYX.copy()))

    labels_ZYX, affinities = volume.read("basins"), volume.read("nearest")
    run(labels_ZYX[CORNER].copy(), affinities[(slice(None), *CORNER)].copy())
    _, first = np.unique(labels_ZYX, return_index=True)
    first = first[labels_ZYX.reshape(-1)[first] != 0]
    return lambda: run(labels_ZYX, affinities).reshape(-1)[first]


def segments(result: NDArray[np.generic]) -> Arrays:
    return {"segments": result}


def agree(mine: Arrays, theirs: Arrays) -> str:
    return agreement.partitions(mine["segments"], theirs["segments"])


MERGING = ("merging until threshold", "merged")
CONTENDERS = (
    Contender("neurotile", ours, segments, most_bytes=100),
    Contender("bioimage-cpp GASP", gasp, segments, beside="neurotile", target=1),
    Contender("waterz, merging only", waterz, segments, beside="neurotile", repeats=2, phase=MERGING),
)
