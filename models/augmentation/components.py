"""The connected parts of the labels of a crop: one object may be in several pieces there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from models.augmentation.sections import Labels


def split(labels_ZYX: Labels) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Parts from 1, connected through faces, edges and corners, and the label of each; part 0 is the background."""
    parts, count = label(labels_ZYX.astype(np.int64), background=0, return_num=True, connectivity=3)
    label_of_part = np.zeros(count + 1, labels_ZYX.dtype)
    label_of_part[parts.ravel()] = labels_ZYX.ravel()
    return parts, label_of_part
