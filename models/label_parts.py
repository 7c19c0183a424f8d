"""What the embedding loss is told about a training crop: its parts, whose they are, and the background.

1. Masked voxels are cleared, so that they join nothing.
2. Every label of the crop, as large as the network's output, is split into its 26-connected parts: inside the crop,
   nothing shows that two of them belong together. Each keeps the label it came from.
3. Parts below ten voxels are left out of the loss: they become 0. The others are numbered 1 .. C.
4. Background is where the label is 0, or myelin's where it was labelled: a sheath is an object for the embedding,
   but background for the mask.

Background between objects that meet in a section has been widened before. No torch: this runs where crops are drawn.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

DUST_VX = 10


@dataclass(frozen=True)
class Parts:
    """The connected parts of a crop, and the object that each is part of."""

    parts_ZYX: NDArray[np.int64]  # 1 .. C; 0 is background, masked, or too small
    objects: NDArray[np.int64]  # objects[c - 1] is the label of part c


def find_parts(labels_ZYX: NDArray[Any], mask_ZYX: NDArray[np.bool_] | None = None, *, dust_vx: int = DUST_VX) -> Parts:
    """The parts of a crop of dense labels; the loss sees voxels where mask is true."""
    seen_ZYX = (labels_ZYX if mask_ZYX is None else np.where(mask_ZYX, labels_ZYX, 0)).astype(np.int64)
    parts_ZYX = connected(seen_ZYX, background=0, connectivity=3)
    sizes = np.bincount(parts_ZYX.ravel())
    owners = np.zeros(len(sizes), np.int64)
    owners[parts_ZYX] = seen_ZYX  # all voxels of a part say the same
    kept = sizes >= dust_vx
    kept[0] = False
    renumbered = np.where(kept, np.cumsum(kept), 0)
    return Parts(renumbered[parts_ZYX], owners[kept])


def background_target(labels_ZYX: NDArray[Any], myelin: Collection[int] = ()) -> NDArray[np.bool_]:
    """True where the mask should say background; `myelin` are the labels of sheaths, if there are such."""
    background: NDArray[np.bool_] = labels_ZYX == 0
    if myelin:
        background |= np.isin(labels_ZYX, np.array(sorted(myelin), labels_ZYX.dtype))
    return background
