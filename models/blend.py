"""Weighted sums of overlapping patches, in integers, on the network's device.

A channel is an offset; (0, 0, 0) is no edge but the voxel itself, and every patch that holds it knows it.

Patches come in the lattice's order, z slowest. Only a window of sections is open at a time, as deep as a patch; when
the patches move on in z, the sections behind them are complete and become codes. Memory does not grow with the
depth of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.lattice import Index, Lattice, nearest_codes


class Blend:
    """Collects the patches that touch one box and turns them into codes."""

    def __init__(self, lattice: Lattice, offsets: Sequence[Index], code_table: Sequence[int], device: str) -> None:
        self._lattice = lattice
        self._offsets = tuple(offsets)
        self._device = device
        self._codes_of_levels = torch.from_numpy(nearest_codes(code_table)).to(device)
        self._known: dict[tuple[int, int], Tensor] = {}

    def open(self, begin: Index, end: Index) -> None:
        """Start on a box."""
        self._begin, self._end = begin, end
        _, y, x = self._shape = tuple(e - b for b, e in zip(begin, end, strict=True))
        depth = min(self._shape[0], self._lattice.patch[0])
        self._window = begin[0]  # the section of the layer that the first open section is
        self._sums = torch.zeros((len(self._offsets), depth, y, x), dtype=torch.int64, device=self._device)
        self._codes = np.zeros((len(self._offsets), *self._shape), np.uint8)

    def add(self, index: Index, levels_CZYX: Tensor) -> None:
        """Add one patch of levels 0..65535 (integers); patches come in the lattice's order."""
        corner = self._lattice.begin(index)
        self._complete_until(corner[0])
        begin = [max(b, c) for b, c in zip(self._begin, corner, strict=True)]
        end = [min(e, c + p) for e, c, p in zip(self._end, corner, self._lattice.patch, strict=True)]
        in_patch = tuple(slice(b - c, e - c) for b, e, c in zip(begin, end, corner, strict=True))
        origin = (self._window, *self._begin[1:])
        in_sums = tuple(slice(b - o, e - o) for b, e, o in zip(begin, end, origin, strict=True))
        weighted = levels_CZYX[(slice(None), *in_patch)].to(torch.int64)
        for axis in range(3):
            weights = self._weights(axis, index[axis])
            weighted *= weights.narrow(axis + 1, in_patch[axis].start, weighted.shape[axis + 1])
        self._sums[(slice(None), *in_sums)] += weighted

    def close(self) -> NDArray[np.uint8]:
        """The codes of the box, CZYX."""
        self._complete_until(self._end[0])
        return self._codes

    def _complete_until(self, section: int) -> None:
        """Turn the sections before `section` into codes and move the window on."""
        count = min(section, self._end[0]) - self._window
        if count <= 0:
            return
        done = min(count, self._sums.shape[1])
        for channel, offset in enumerate(self._offsets):
            first = self._window - self._begin[0]
            self._codes[channel, first : first + done] = self._quantised(channel, offset, done)
        kept = self._sums[:, done:].clone()
        self._sums.zero_()
        self._sums[:, : kept.shape[1]] = kept
        self._window += count

    def _quantised(self, channel: int, offset: Index, sections: int) -> NDArray[np.uint8]:
        """Sums over weights, rounded half up, as codes."""
        begins, ends = self._begin, self._end
        window = (self._window, self._window + sections)
        spans = (window, (begins[1], ends[1]), (begins[2], ends[2]))
        z, y, x = (
            self._along(self._lattice.axes[axis].normaliser(*spans[axis], offset[axis]), axis) for axis in range(3)
        )
        total = z * y * x
        levels = (self._sums[channel, :sections] + total // 2) // total.clamp(min=1)
        codes: NDArray[np.uint8] = self._codes_of_levels[levels].cpu().numpy()
        return codes

    def _weights(self, axis: int, k: int) -> Tensor:
        """What the k-th patches along an axis count, CZYX with one voxel along the others; on the device, and kept."""
        found = self._known.get((axis, k))
        if found is None:
            along = self._lattice.axes[axis]
            weights = torch.stack([self._along(along.weights(k, offset[axis]), axis) for offset in self._offsets])
            found = self._known[axis, k] = weights
        return found

    def _along(self, values: NDArray[np.int64], axis: int) -> Tensor:
        """A vector that broadcasts along one axis of ZYX."""
        shape = [1, 1, 1]
        shape[axis] = -1
        return torch.from_numpy(np.array(values)).to(self._device).reshape(shape)
