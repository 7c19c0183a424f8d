"""Whether two results are the same: as partitions, or as numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.evaluate import pairs, scores


def partitions(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> str:
    """Equal, or how far apart in bits of variation of information."""
    counted = pairs(ours.astype(np.uint64), theirs.astype(np.uint64))
    found = scores(counted, ignore_truth_zero=False)
    if counted.size == found["truth_objects"] == found["segments"]:
        return f"equal ({counted.size:,})"
    return f"VI {found['voi']:.2g} ({found['truth_objects']:,} / {found['segments']:,})"


def numbers(ours: NDArray[np.generic], theirs: NDArray[np.generic], relative: float) -> str:
    """Equal within a relative error, or the largest difference."""
    if ours.shape != theirs.shape:
        return f"{ours.shape} against {theirs.shape}"
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    apart = float(np.max(np.abs(mine - other) / np.maximum(np.abs(mine), 1e-12), initial=0.0))
    return f"equal to {relative:g}" if apart <= relative else f"differ by {apart:.2g}"
