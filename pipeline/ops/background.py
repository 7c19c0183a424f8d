"""Truth for training: background between objects that touch in a section.

A voxel becomes 0 if its 3 x 3 neighbourhood in the section, itself included, holds at least two different positive
labels: the largest and the smallest positive label there differ. At the border the neighbourhood is what is inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint64]


def widen_background(labels_ZYX: Labels) -> Labels:
    """The labels with 0 wherever two objects meet in the plane."""
    nothing = np.iinfo(np.uint64).max
    labels = labels_ZYX.astype(np.uint64, copy=False)
    largest = _over_neighbours(np.maximum, labels)
    smallest = _over_neighbours(np.minimum, np.where(labels == 0, nothing, labels))
    return np.where((largest > 0) & (largest != smallest), np.uint64(0), labels)


def _over_neighbours(extreme: Any, values_ZYX: Labels) -> Labels:
    """The extreme of every voxel's 3 x 3 neighbourhood: first along y, then along x."""
    rows = values_ZYX.copy()
    extreme(rows[:, 1:], values_ZYX[:, :-1], out=rows[:, 1:])
    extreme(rows[:, :-1], values_ZYX[:, 1:], out=rows[:, :-1])
    both = rows.copy()
    extreme(both[..., 1:], rows[..., :-1], out=both[..., 1:])
    extreme(both[..., :-1], rows[..., 1:], out=both[..., :-1])
    return both
