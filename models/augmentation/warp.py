"""Rotation, shear, scale and perspective in the plane: image linear, labels nearest.

1. From a place in the patch, counted from its centre and running from -1 to 1 along each axis as (z, y, x) / half:
   y' = y (1 / s + p0 x + p2 z), x' = x (1 / s + p1 y + p3 z), the lengths before the brackets in voxels;
2. v = y' cos(r + h) + x' sin(r - h), u = x' cos(r - h) - y' sin(r + h) is the place in the source.
3. Both are linear in each of z, y, x alone, so the corners of the patch have the extreme places: the box around them is
   what must be read, and no place is ever outside.

Sections stay what they are: nothing is mixed along z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.augmentation.sections import Image, Index, Labels

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Warp:
    """How often and how much."""

    probability: float = 0.7
    rotation_deg: float = 45.0  # from 0 to
    shear_deg: float = 3.0  # to either side
    scale: float = 0.1  # s is 1 less up to this
    stretch: float = 0.1  # at the border of the patch, to either side

    def largest_source(self, patch: Index) -> Index:
        """No warp of this kind reads more than this."""
        depth, height, width = patch
        y, x = (_half(n) * (1 / (1 - self.scale) + 2 * self.stretch) for n in (height, width))
        shear = math.sin(math.radians(self.shear_deg))
        v = self._farthest(y + x * shear, y * shear + x)
        u = self._farthest(x + y * shear, x * shear + y)
        return (depth, 2 * math.ceil(v) + 3, 2 * math.ceil(u) + 3)

    def _farthest(self, along: float, across: float) -> float:
        """The largest of `along` cos r + `across` sin r for all rotations r."""
        end = math.radians(self.rotation_deg)
        turn = min(end, math.atan2(across, along))
        return along * math.cos(turn) + across * math.sin(turn)


@dataclass(frozen=True)
class Mapping:
    """One warp of one patch: where in the source each of its voxels lies."""

    patch: Index
    rotation: float = 0.0  # radians
    shear: float = 0.0
    scale: float = 1.0
    stretch: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def source(self) -> Index:
        """The extent that must be read."""
        begin, end = self._box()
        return (self.patch[0], end[0] - begin[0], end[1] - begin[1])

    def places(self) -> tuple[Places, Places]:
        """In voxels of the source: of shape (2, Y, X), where the middle section lies, and what is added per half z."""
        (y0, x0), _ = self._box()
        y, x = np.ogrid[: self.patch[1], : self.patch[2]]
        middle_y, middle_x = ((n - 1) / 2 for n in self.patch[1:])
        middle, along_z = self._mapped(y - middle_y, x - middle_x)
        return middle + np.array([middle_y - y0, middle_x - x0])[:, None, None], along_z

    def _mapped(self, y: Places, x: Places) -> tuple[Places, Places]:
        _, half_y, half_x = (_half(n) for n in self.patch)
        by_x, by_y, y_by_z, x_by_z = self.stretch
        middle = y * (1 / self.scale + by_x * x / half_x), x * (1 / self.scale + by_y * y / half_y)
        return self._turned(*middle), self._turned(y * y_by_z + 0 * x, x * x_by_z + 0 * y)

    def _turned(self, y: Places, x: Places) -> Places:
        plus, minus = self.rotation + self.shear, self.rotation - self.shear
        return np.stack([y * math.cos(plus) + x * math.sin(minus), x * math.cos(minus) - y * math.sin(plus)])

    def _box(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Begin and end along y and x, where the patch begins at 0 and has the same centre."""
        depth, height, width = self.patch
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        y, x = (np.array([-middle, middle]) for middle in centre)
        middle, along_z = self._mapped(y[:, None], x[None, :])
        far = 1.0 if depth > 1 else 0.0
        corners = np.stack([middle - far * along_z, middle + far * along_z])
        begin, end = (np.floor(extreme((0, 2, 3)) + centre) for extreme in (corners.min, corners.max))
        return (int(begin[0]), int(begin[1])), (int(end[0]) + 2, int(end[1]) + 2)


def _half(length: int) -> float:
    return max(1, length - 1) / 2


def draw_mapping(change: Warp, patch: Index, rng: np.random.Generator) -> Mapping:
    """A warp of a patch."""
    rotation, shear, scale = rng.random(3)
    stretch = (2 * rng.random(4) - 1) * change.stretch
    return Mapping(
        patch,
        rotation=math.radians(rotation * change.rotation_deg),
        shear=math.radians((2 * shear - 1) * change.shear_deg),
        scale=1 - scale * change.scale,
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2]), float(stretch[3])),
    )


def warp(image_ZYX: Image, labels_ZYX: Labels, mapping: Mapping) -> tuple[Image, Labels]:
    """Image and labels of the mapping's source, sampled at the voxels of its patch."""
    if image_ZYX.shape != mapping.source or labels_ZYX.shape != mapping.source:
        raise ValueError(f"a warp from {mapping.source} was given {image_ZYX.shape} and {labels_ZYX.shape}")
    image = np.empty(mapping.patch, np.float32)
    labels = np.empty(mapping.patch, labels_ZYX.dtype)
    middle, along_z = mapping.places()
    half = _half(mapping.patch[0])
    for z in range(mapping.patch[0]):
        v, u = middle + along_z * ((z - (mapping.patch[0] - 1) / 2) / half)
        image[z] = _linear(image_ZYX[z], v, u)
        labels[z] = _nearest(labels_ZYX[z], v, u)
    return image, labels


def _linear(plane: Image, v: Places, u: Places) -> Image:
    height, width = plane.shape
    # Rounding may put a corner a hair outside.
    row = np.clip(v.astype(np.int64), 0, height - 2)
    column = np.clip(u.astype(np.int64), 0, width - 2)
    down = np.clip(v - row, 0, 1).astype(np.float32)
    right = np.clip(u - column, 0, 1).astype(np.float32)
    first = row * width + column
    values = np.ascontiguousarray(plane).ravel()
    upper = _between(values.take(first), values.take(first + 1), right)
    lower = _between(values.take(first + width), values.take(first + width + 1), right)
    return _between(upper, lower, down)


def _between(one: Image, other: Image, share: Image) -> Image:
    mixed: Image = one + (other - one) * share
    return mixed


def _nearest(plane: Labels, v: Places, u: Places) -> NDArray[Any]:
    height, width = plane.shape
    row = np.clip(np.rint(v).astype(np.int64), 0, height - 1)
    column = np.clip(np.rint(u).astype(np.int64), 0, width - 1)
    found: NDArray[Any] = np.ascontiguousarray(plane).ravel().take(row * width + column)
    return found
