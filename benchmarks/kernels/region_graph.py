"""Region graph with features, on many small fragments and on few large segments.

Ours: pairs with sum, count, largest affinity and tie-break, in one pass. bioimage-cpp: the graph, then mean and size
of every edge. waterz: its phase "extracting region graph" (mean and count; it has no way to hand out the arrays, so
only the number of edges could be compared, and is not).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import pipeline_calls
from benchmarks.kernels.data import NEAREST, Volume
from benchmarks.kernels.measure import Arrays, Contender

UNIT = "voxel"
CORNER = (slice(0, 8), slice(0, 48), slice(0, 48))


def ours(volume: Volume, *, what: str) -> Callable[[], Any]:
    labels_ZYX, affinities = volume.read(what), volume.read("nearest")
    pipeline_calls.region_graph(labels_ZYX[CORNER].copy(), affinities[(slice(None), *CORNER)].copy())
    return lambda: pipeline_calls.region_graph(labels_ZYX, affinities)


def our_arrays(found: Any) -> Arrays:
    return {"ends": np.stack([found.a, found.b]), "mean": found.total / found.count / 65535, "count": found.count}


def bioimage(volume: Volume, *, what: str) -> Callable[[], Any]:
    from bioimage_cpp.graph import region_adjacency_graph
    from bioimage_cpp.graph.features import affinity_features

    def run(labels_ZYX: NDArray[Any], affinities: NDArray[Any]) -> Any:
        graph = region_adjacency_graph(labels_ZYX, number_of_threads=1)
        return graph, affinity_features(graph, labels_ZYX, affinities, NEAREST, number_of_threads=1)

    labels_ZYX, affinities = volume.read(what), volume.read("nearest")
    run(labels_ZYX[CORNER].copy(), affinities[(slice(None), *CORNER)].copy())
    return lambda: run(labels_ZYX, affinities)


def bioimage_arrays(result: Any) -> Arrays:
    graph, features = result
    ends = np.asarray(graph.uv_ids()).T.astype(np.uint64)
    real = (ends != 0).all(axis=0)  # we have no edges to the background
    return {"ends": ends[:, real], "mean": features[real, 0], "count": features[real, 1]}


def waterz(volume: Volume, *, what: str) -> Callable[[], Any]:
    from waterz import agglomerate

    def run(labels_ZYX: NDArray[Any], affinities: NDArray[Any]) -> Any:
        return next(agglomerate(affinities, [0.0], fragments=labels_ZYX.copy()))

    labels_ZYX, affinities = volume.read(what), volume.read("nearest")
    run(labels_ZYX[CORNER].copy(), affinities[(slice(None), *CORNER)].copy())
    return lambda: run(labels_ZYX, affinities)


def nothing(_: Any) -> Arrays:
    return {}


def agree(mine: Arrays, theirs: Arrays) -> str:
    if not theirs:
        return "gives no arrays"
    if not np.array_equal(mine["ends"], theirs["ends"]) or not np.array_equal(mine["count"], theirs["count"]):
        return f"other pairs or counts ({mine['count'].size:,} / {theirs['count'].size:,})"
    # ours are means of the affinities as integers
    apart = float(np.abs(mine["mean"] - theirs["mean"]).max())
    return f"pairs, counts equal ({mine['count'].size:,}); means within {apart:.1g}"


def _contenders(what: str) -> tuple[Contender, ...]:
    own = f"neurotile, {what}"
    phase = ("extracting region graph", "Region graph")
    return (
        Contender(own, partial(ours, what=what), our_arrays, most_bytes=1),
        Contender(f"bioimage-cpp, {what}", partial(bioimage, what=what), bioimage_arrays, beside=own, target=1.3),
        Contender(f"waterz, {what}", partial(waterz, what=what), nothing, beside=own, phase=phase),
    )


CONTENDERS = (*_contenders("fragments"), *_contenders("segments"))
