"""Boxes of one grey each, as many as it takes to cover a random share of the crop.

1. The share is drawn from 0 to `volume`.
2. A box has one side length in the plane, and along z the same length in nanometres, but at least one section.
3. Boxes may overlap; only what is covered for the first time counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.augmentation.sections import Image

AT_A_TIME = 32


@dataclass(frozen=True)
class Occlusion:
    """How often and how much."""

    probability: float = 0.9
    volume: float = 0.3  # largest share of the crop
    side_vx: tuple[int, int] = (6, 30)  # in the plane, from and to
    flatness: float = 0.2  # voxels along z for a voxel in the plane: 6 nm / 30 nm

    def __post_init__(self) -> None:
        if not 0 <= self.volume < 1:
            raise ValueError(f"boxes can cover a share of a crop that is below 1, not {self.volume}")


def occlude(image_ZYX: Image, change: Occlusion, rng: np.random.Generator) -> None:
    """Fill boxes of an image in place."""
    cover(image_ZYX, change, rng.uniform(0, change.volume), rng)


def cover(image_ZYX: Image, change: Occlusion, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Fill boxes until more than a share of the image is covered; returns what is."""
    covered = np.zeros(image_ZYX.shape, bool)
    left = share * image_ZYX.size
    for box, grey in _draw_boxes(image_ZYX.shape, change, rng):
        left -= covered[box].size - np.count_nonzero(covered[box])
        covered[box] = True
        image_ZYX[box] = grey
        if left < 0:
            break
    return covered


def _draw_boxes(
    shape: tuple[int, ...], change: Occlusion, rng: np.random.Generator
) -> Iterator[tuple[tuple[slice, ...], float]]:
    """Boxes and their greys, without end; drawn a few at a time, which takes a third of the time."""
    extent = np.array(shape)
    while True:
        side = rng.integers(change.side_vx[0], change.side_vx[1] + 1, AT_A_TIME)
        flat = np.rint(side * change.flatness).astype(np.int64)
        sides = np.clip(np.stack([flat, side, side], axis=1), 1, extent)
        begins = rng.integers(0, extent - sides + 1)
        greys = rng.random(AT_A_TIME, np.float32)
        for begin, end, grey in zip(begins.tolist(), (begins + sides).tolist(), greys.tolist(), strict=True):
            yield tuple(slice(b, e) for b, e in zip(begin, end, strict=True)), grey
