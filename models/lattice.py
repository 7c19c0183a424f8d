"""Where patches lie in a layer, and how much each of them counts in every voxel. Integers only, no torch.

1. Along every axis the network's answer about patch k covers [k * stride, k * stride + patch), k = 0, 1, ... up to the
   first patch that reaches the layer's end. The lattice is a function of the layer's extent alone: never of a block.
2. What the network sees of patch k is `crop` voxels longer at either side. Where that reaches beyond the layer, the
   layer is mirrored (`numpy.pad`'s "reflect", repeated if the layer is smaller than the patch).
3. A patch knows the edge from voxel i to i + o only if both lie in it. Along one axis, its weight there is the bump
   exp(-(u (1 - u))^-1.5), u = (position in the patch + 1) / (patch + 1), divided by the sum over all patches that know
   the edge, and rounded to a multiple of 2^-12. The weight in space is the product of the three axes': the patches
   that know an edge are all combinations of one patch per axis, so the product, too, adds up to one, up to rounding.
4. A value is floor((sum of weight * level + half) / (sum of weight)) over the patches, all integers: exact, without
   an order, and a constant stays that constant whatever the rounding of the weights. An edge that no patch knows
   (it leaves the layer) has sum 0 and gets code 0.
5. What cannot be blended is taken from one patch: along every axis, a voxel belongs to the patch whose centre is
   nearest, to the first of two that are as near. So the layer falls into boxes, each a patch's own and inside of it.

12 bits per axis and 16 bits of level: sums stay below 2^53 in a signed 64-bit integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import NEAREST, WeightsSpec

Index = tuple[int, int, int]
Integers = NDArray[np.int64]

WEIGHT_BITS = 12


@dataclass(frozen=True)
class Axis:
    """The lattice along one axis of a layer."""

    length: int
    patch: int  # what is put out
    stride: int
    crop: int = 0  # what is seen beyond that, on either side

    @cached_property
    def count(self) -> int:
        """How many patches there are."""
        return 1 + max(0, -(-(self.length - self.patch) // self.stride))

    def touching(self, begin: int, end: int) -> range:
        """The patches that share a voxel with [begin, end)."""
        first = max(0, -(-(begin - self.patch + 1) // self.stride))
        return range(first, min(self.count, (end - 1) // self.stride + 1))

    def own(self, k: int) -> tuple[int, int]:
        """The voxels that lie most centrally in patch k; those half-way to the next one are patch k's."""
        half_way = (self.patch + self.stride - 1) // 2 + 1  # between the centres of patch 0 and patch 1, rounded up
        begin = (k - 1) * self.stride + half_way if k > 0 else 0
        end = k * self.stride + half_way if k < self.count - 1 else self.length
        return begin, end

    def owners(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """[begin, end) in parts, in order: a patch, and where its own part begins and ends."""
        for k in self.touching(begin, end):
            low, high = self.own(k)
            if low < end and begin < high:
                yield k, max(low, begin), min(high, end)

    def positions(self, k: int) -> Integers:
        """For every voxel that patch k sees, the layer's voxel that it shows."""
        voxels = np.arange(k * self.stride - self.crop, k * self.stride + self.patch + self.crop)
        if self.length == 1:
            return np.zeros_like(voxels)
        period = 2 * (self.length - 1)
        folded = voxels % period
        return np.minimum(folded, period - folded)

    def context(self, begin: int, end: int) -> tuple[int, int]:
        """The voxels that the patches touching [begin, end) see."""
        ks = self.touching(begin, end)
        # Mirroring reaches inwards from the first and the last patch, maybe further than their own voxels.
        low, high = self.positions(ks[0]), self.positions(ks[-1])
        return int(min(low.min(), high.min())), int(max(low.max(), high.max())) + 1

    def weights(self, k: int, offset: int) -> Integers:
        """What patch k counts in each of its voxels for the edge to `offset`; 0 where it does not know the edge."""
        return _axis_weights(self, k, offset)

    def normaliser(self, begin: int, end: int, offset: int) -> Integers:
        """The sum of all patches' weights in every voxel of [begin, end)."""
        total = np.zeros(end - begin, np.int64)
        for k in self.touching(begin, end):
            low, high = max(begin, k * self.stride), min(end, k * self.stride + self.patch)
            total[low - begin : high - begin] += self.weights(k, offset)[low - k * self.stride : high - k * self.stride]
        return total


def _bump(position: int, patch: int) -> float:
    u = (position + 1) / (patch + 1)
    room = u * (1 - u)
    return -1.0 / (room * sqrt(room))


@lru_cache(maxsize=4096)
def _axis_weights(axis: Axis, k: int, offset: int) -> Integers:
    """Scalar arithmetic on purpose: vector units may round differently at the end of an array."""
    weights = np.zeros(axis.patch, np.int64)
    for position in range(axis.patch):
        voxel = k * axis.stride + position
        rivals = _bumps_at(axis, voxel, offset)
        if k in rivals:
            top = max(rivals.values())
            total = top + log(sum(exp(bump - top) for bump in rivals.values()))
            weights[position] = round(exp(rivals[k] - total) * (1 << WEIGHT_BITS))
    weights.flags.writeable = False
    return weights


def _bumps_at(axis: Axis, voxel: int, offset: int) -> dict[int, float]:
    """The log weights of the patches that know the edge from a voxel; none if the edge leaves the layer."""
    partner = voxel + offset
    if not (0 <= voxel < axis.length and 0 <= partner < axis.length):
        return {}
    return {
        k: _bump(voxel - k * axis.stride, axis.patch)
        for k in axis.touching(voxel, voxel + 1)
        if k * axis.stride <= partner < k * axis.stride + axis.patch
    }


@dataclass(frozen=True)
class Lattice:
    """The patches of a layer, along z, y and x."""

    shape: Index
    patch: Index  # what is put out
    stride: Index
    crop: Index = (0, 0, 0)  # what is seen beyond that, on either side

    @classmethod
    def of(cls, spec: WeightsSpec, shape: Index) -> Lattice:
        """The patches of some weights in a layer."""
        return cls(shape, spec.output, spec.stride, spec.network.crop)

    @cached_property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """One lattice an axis."""
        z, y, x = (Axis(*axis) for axis in zip(self.shape, self.patch, self.stride, self.crop, strict=True))
        return (z, y, x)

    def touching(self, begin: Index, end: Index) -> Iterator[Index]:
        """The patches that share a voxel with a box, the first axis slowest."""
        ranges = (axis.touching(b, e) for axis, b, e in zip(self.axes, begin, end, strict=True))
        yield from product(*ranges)

    def count(self, begin: Index, end: Index) -> int:
        """How many patches share a voxel with a box."""
        z, y, x = (len(axis.touching(b, e)) for axis, b, e in zip(self.axes, begin, end, strict=True))
        return z * y * x

    def owners(self, begin: Index, end: Index) -> Iterator[tuple[Index, Index, Index]]:
        """A box in parts, each voxel in one of them: a patch, and where its own part begins and ends."""
        along = (axis.owners(b, e) for axis, b, e in zip(self.axes, begin, end, strict=True))
        for (kz, z0, z1), (ky, y0, y1), (kx, x0, x1) in product(*along):
            yield (kz, ky, kx), (z0, y0, x0), (z1, y1, x1)

    def context(self, begin: Index, end: Index) -> tuple[Index, Index]:
        """The part of the layer that decides what the network says about a box."""
        (z0, z1), (y0, y1), (x0, x1) = (a.context(b, e) for a, b, e in zip(self.axes, begin, end, strict=True))
        return (z0, y0, x0), (z1, y1, x1)

    def cut(self, image_ZYX: NDArray[Any], origin: Index, index: Index) -> NDArray[Any]:
        """What one patch sees of an image whose first voxel is `origin`, mirrored where it leaves the layer."""
        z, y, x = (axis.positions(k) - o for axis, k, o in zip(self.axes, index, origin, strict=True))
        if all(along[-1] - along[0] == along.size - 1 for along in (z, y, x)):  # not mirrored, as most are
            return image_ZYX[z[0] : z[-1] + 1, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        return image_ZYX[z[:, None, None], y[None, :, None], x[None, None, :]]

    def begin(self, index: Index) -> Index:
        """The first voxel that a patch puts out."""
        z, y, x = (k * s for k, s in zip(index, self.stride, strict=True))
        return (z, y, x)


def nearest_codes(table: Sequence[int]) -> NDArray[np.uint8]:
    """For every level 0..65535 the code whose table entry is nearest; the lower one on a tie."""
    entries = np.asarray(table, np.int64)
    levels = np.arange(entries[-1] + 1, dtype=np.int64)
    above = np.clip(np.searchsorted(entries, levels, side="left"), 1, entries.size - 1)
    lower_is_nearer = levels - entries[above - 1] <= entries[above] - levels
    return np.where(lower_is_nearer, above - 1, above).astype(np.uint8)


ARRAYS_IN_FLIGHT = 12  # of a network, as large as its widest; measured: 10
SMALLEST_CPU_BATCH = 2  # PyTorch's CPU convolution takes another, slower kernel for a single small patch


def working_bytes(
    spec: WeightsSpec, *, batch: int, box_shape: Index, channels: int = len(NEAREST), turned: bool = False
) -> int:
    """A bound on what the engine allocates for a box, beside the image it is given and the network's weights.

    `channels` is what is blended: edges, and background; `turned`: patches are evaluated in several orientations.
    """
    (depth, height, width), (z, y, x), network = spec.patch, box_shape, spec.network
    open_voxels = min(z, spec.output[0]) * y * x
    sums, quantising = 8 * channels * open_voxels * 2, 40 * open_voxels
    voxels = depth * height * width * max(batch, SMALLEST_CPU_BATCH)
    widest = max(width / 4**scale for scale, width in enumerate(network.widths))  # scales have a quarter of the voxels
    activations = int(4 * ARRAYS_IN_FLIGHT * widest) * voxels
    vectors = 4 * 4 * network.heads.get("embedding", 0) * voxels
    levels = 4 * 6 * (channels if turned or vectors or channels > len(NEAREST) else 0) * voxels
    return sums + quantising + activations + vectors + levels + channels * z * y * x
