"""Mutex watershed on twelve offsets: the nearest attract, the further ones repel.

All get the same strengths: a for the nearest channels, 1 - a for the others, and all end with a label per voxel. What a
peer needs its input turned into (mwatershed: signed float64) is prepared outside the measurement, in the peer's favour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import agreement
from benchmarks.kernels.data import OFFSETS, Volume
from benchmarks.kernels.measure import Arrays, Contender

UNIT = "voxel"
CORNER = (slice(None), slice(0, 8), slice(0, 48), slice(0, 48))


def ours(volume: Volume) -> Callable[[], Any]:
    from pipeline.ops.mutex_watershed import mutex_watershed

    affinities_CZYX = volume.read("affinities")
    mutex_watershed(affinities_CZYX[CORNER].copy(), OFFSETS, attractive=3)
    return lambda: mutex_watershed(affinities_CZYX, OFFSETS, attractive=3)[0]


def bioimage(volume: Volume) -> Callable[[], Any]:
    from bioimage_cpp.segmentation import mutex_watershed

    affinities_CZYX = volume.read("affinities")
    affinities_CZYX[3:] = 1 - affinities_CZYX[3:]
    mutex_watershed(affinities_CZYX[CORNER].copy(), OFFSETS, 3)
    return lambda: mutex_watershed(affinities_CZYX, OFFSETS, 3)


def mwatershed(volume: Volume) -> Callable[[], Any]:
    from mwatershed import agglom

    affinities_CZYX = volume.read("affinities").astype(np.float64)
    affinities_CZYX[3:] -= 1
    offsets = [list(offset) for offset in OFFSETS]
    agglom(affinities_CZYX[CORNER].copy(), offsets)
    return lambda: agglom(affinities_CZYX, offsets)


def labels(result: NDArray[np.generic]) -> Arrays:
    return {"labels": result}


def agree(mine: Arrays, theirs: Arrays) -> str:
    return agreement.partitions(mine["labels"], theirs["labels"])


CONTENDERS = (
    Contender("neurotile", ours, labels, most_bytes=60, repeats=2),
    Contender("bioimage-cpp", bioimage, labels, beside="neurotile", target=3, repeats=1),
    Contender("mwatershed", mwatershed, labels, beside="neurotile", target=3, repeats=1, most_voxels=1 << 22),
)
