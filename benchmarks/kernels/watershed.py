"""Steepest-ascent watershed of the nearest channels: a label per voxel, and the sizes of all basins.

waterz offers it only as the first phase of `agglomerate`; that phase is what is measured (from its line "performing
initial watershed" to "creating region graph"). It makes labels and sizes; ours makes names and the faces they reach,
too. bioimage-cpp has a watershed from seeds only, which is another problem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import agreement, pipeline_calls
from benchmarks.kernels.data import HIGH, LOW, Volume
from benchmarks.kernels.measure import Arrays, Contender

UNIT = "voxel"
CORNER = (slice(None), slice(0, 8), slice(0, 48), slice(0, 48))


def ours(volume: Volume) -> Callable[[], Any]:
    nearest_CZYX = volume.read("nearest")
    pipeline_calls.watershed(nearest_CZYX[CORNER].copy(), LOW, HIGH)
    return lambda: pipeline_calls.watershed(nearest_CZYX, LOW, HIGH)


def waterz(volume: Volume) -> Callable[[], Any]:
    from waterz import agglomerate

    def run(affinities_CZYX: NDArray[np.float32]) -> Any:
        return next(agglomerate(affinities_CZYX, [0.0], aff_threshold_low=LOW, aff_threshold_high=HIGH))

    nearest_CZYX = volume.read("nearest")
    run(nearest_CZYX[CORNER].copy())
    return lambda: run(nearest_CZYX)


def labels(result: NDArray[np.generic]) -> Arrays:
    return {"labels": result}


def agree(mine: Arrays, theirs: Arrays) -> str:
    return agreement.partitions(mine["labels"], theirs["labels"])


CONTENDERS = (
    Contender("neurotile", ours, labels),
    Contender(
        "waterz", waterz, labels, beside="neurotile", target=1.3, phase=("performing initial", "creating region graph")
    ),
)
