"""Mirrored and exchanged axes, image and labels alike.

1. z, y and x are mirrored, each with its own coin.
2. y and x change places by a coin, if they are equally long; where `every_axis` is set and all three are equally long,
   any order of the axes is as likely as any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.augmentation.sections import Image, Labels


@dataclass(frozen=True)
class Flip:
    """How often."""

    probability: float = 0.5  # of each coin
    every_axis: bool = False  # z is like y and x: for isotropic volumes


def flip(image_ZYX: Image, labels_ZYX: Labels, change: Flip, rng: np.random.Generator) -> tuple[Image, Labels]:
    """Views of both arrays."""
    z, y, x, exchanged = rng.random(4) < change.probability
    axes = tuple(axis for axis, mirrored in enumerate((z, y, x)) if mirrored)
    order = _order(image_ZYX.shape, bool(exchanged), change, rng)
    return np.flip(image_ZYX, axes).transpose(order), np.flip(labels_ZYX, axes).transpose(order)


def _order(shape: tuple[int, ...], exchanged: bool, change: Flip, rng: np.random.Generator) -> tuple[int, int, int]:
    depth, height, width = shape
    if change.every_axis and change.probability > 0 and depth == height == width:
        first, second, third = (int(axis) for axis in rng.permutation(3))
        return first, second, third
    return (0, 2, 1) if exchanged and height == width else (0, 1, 2)
