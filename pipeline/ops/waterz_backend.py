"""waterz as it is: its watershed and its mean-affinity agglomeration on one volume, for comparison.

waterz decides ties by the order in which it meets edges, so its answer is its own; the rest of the pipeline goes on
from its segments as fragments.
"""

from __future__ import annotations

import numpy as np
import waterz
from numpy.typing import NDArray


def waterz_segments(
    affinities_CZYX: NDArray[np.float32], *, low: float, high: float, threshold: float
) -> NDArray[np.uint64]:
    """Segments after merging everything with a mean affinity above the threshold; 0 is background."""
    nearest = np.ascontiguousarray(affinities_CZYX[:3])
    found = waterz.agglomerate(nearest, [1 - threshold], aff_threshold_low=low, aff_threshold_high=high)
    return np.asarray(next(iter(found)), np.uint64)
