"""Which vectors are stored of an embedding: every voxel's are those of one patch.

1. Vectors of different patches cannot be compared, so nothing is blended: a voxel takes the vector of the patch in
   whose output it lies most centrally (`models.lattice`, `owners`). That depends on its position alone.
2. So what is stored is made of boxes, one a patch. Two vectors may be compared only if they lie in the same box.
3. They are stored as float16, cut off at its largest numbers. Where no patch was evaluated there are zeros.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.lattice import Index, Lattice

LARGEST = float(torch.finfo(torch.float16).max)


class Vectors:
    """Collects the vectors of one box, in whatever order its patches come."""

    def __init__(self, lattice: Lattice, begin: Index, end: Index, channels: int) -> None:
        z, y, x = (e - b for b, e in zip(begin, end, strict=True))
        self.stored_CZYX: NDArray[np.float16] = np.zeros((channels, z, y, x), np.float16)
        self._lattice, self._begin = lattice, begin
        self._own = {index: span for index, *span in lattice.owners(begin, end)}

    def add(self, index: Index, vectors_CZYX: Tensor) -> None:
        """Take from a patch what is its own."""
        if index not in self._own:
            return
        low, high = self._own[index]
        in_patch, in_box = (
            tuple(slice(b - o, e - o) for b, e, o in zip(low, high, origin, strict=True))
            for origin in (self._lattice.begin(index), self._begin)
        )
        own = vectors_CZYX[(slice(None), *in_patch)].clamp(-LARGEST, LARGEST)
        self.stored_CZYX[(slice(None), *in_box)] = own.to(torch.float16).cpu().numpy()
