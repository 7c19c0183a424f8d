"""VOI and adapted Rand error of a segmentation against the truth, truth 0 left out.

Ours: the table of pairs, then all measures. scikit-image: `variation_of_information` and `adapted_rand_error`, one call
each, on int64 views of the same arrays. waterz: `evaluate`, VOI and its own Rand scores (with the pairs of a voxel
with itself, so those are not compared).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels import agreement
from benchmarks.kernels.data import Volume
from benchmarks.kernels.measure import Arrays, Contender
from pipeline.ops.evaluate import pairs, scores

UNIT = "voxel"


def ours(volume: Volume) -> Callable[[], Any]:
    truth_ZYX, segments_ZYX = volume.read("truth"), volume.read("segments")
    pairs(truth_ZYX[:1], segments_ZYX[:1])
    return lambda: scores(pairs(truth_ZYX, segments_ZYX))


def our_arrays(found: Any) -> Arrays:
    return {name: np.array(found[name]) for name in ("voi_split", "voi_merge", "arand")}


def skimage(volume: Volume) -> Callable[[], Any]:
    from skimage.metrics import adapted_rand_error, variation_of_information

    truth_ZYX, segments_ZYX = (volume.read(name).view(np.int64) for name in ("truth", "segments"))

    def run() -> tuple[float, ...]:
        split, merge = variation_of_information(truth_ZYX, segments_ZYX, ignore_labels=(0,))
        error, _, _ = adapted_rand_error(truth_ZYX, segments_ZYX, ignore_labels=(0,))
        return split, merge, error

    return run


def skimage_arrays(found: Any) -> Arrays:
    return dict(zip(("voi_split", "voi_merge", "arand"), map(np.array, found), strict=True))


def waterz(volume: Volume) -> Callable[[], Any]:
    from waterz import evaluate

    truth_ZYX, segments_ZYX = volume.read("truth"), volume.read("segments")
    return lambda: evaluate(segments_ZYX, truth_ZYX)


def waterz_arrays(found: Any) -> Arrays:
    return {name: np.array(found[name]) for name in ("voi_split", "voi_merge")}


def agree(mine: Arrays, theirs: Arrays) -> str:
    told = [agreement.numbers(mine[name], theirs[name], 1e-6) for name in theirs]
    return f"{', '.join(theirs)}: {told[0]}" if len(set(told)) == 1 else "; ".join(told)


CONTENDERS = (
    Contender("neurotile", ours, our_arrays, most_bytes=1),
    Contender("scikit-image", skimage, skimage_arrays, beside="neurotile", target=8, repeats=2),
    Contender("waterz", waterz, waterz_arrays, beside="neurotile", target=1, repeats=2),
)
