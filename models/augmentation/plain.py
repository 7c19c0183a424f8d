"""The plain recipe: cheap changes of whole sections, in the order
1. greyscale: every section its own contrast, brightness and gamma,
2. missing section: a few sections filled with one grey value each,
3. out of focus: a few sections blurred in the plane,
4. Gaussian noise,
5. flips of z, y, x and the transposition of y and x.

The shipped weights `tiny` were trained with it: what it draws, and in which order, must stay as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.augmentation.flip import Flip, flip
from models.augmentation.sections import Image, Labels


@dataclass(frozen=True)
class Plain:
    """How often and how much; 0 switches a change off."""

    greyscale: float = 0.7  # probability
    contrast: float = 0.5  # width of the range around 1
    brightness: float = 0.5  # width of the range around 0
    missing: float = 0.2  # probability that sections are missing at all
    missing_sections: int = 2  # at most
    blur: float = 0.3  # probability that sections are out of focus at all
    blur_sections: int = 3  # at most
    noise: float = 0.04  # largest standard deviation
    flip: bool = True


def change(image_ZYX: Image, labels_ZYX: Labels, chance: Plain, rng: np.random.Generator) -> tuple[Image, Labels]:
    """A changed copy of a crop and its labels; y and x change places only if they are equally long."""
    image = image_ZYX.astype(np.float32, copy=True)
    if rng.random() < chance.greyscale:
        image = greyscale(image, chance.contrast, chance.brightness, rng)
    if rng.random() < chance.missing:
        fill_sections(image, chance.missing_sections, rng)
    if rng.random() < chance.blur:
        blur_sections(image, chance.blur_sections, rng)
    if chance.noise > 0:
        sigma = np.float32(rng.uniform(0, chance.noise))
        image = np.clip(image + sigma * rng.standard_normal(image.shape, np.float32), 0, 1)
    if chance.flip:
        image, labels_ZYX = flip(image, labels_ZYX, Flip(), rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels_ZYX)


def greyscale(image_ZYX: Image, contrast: float, brightness: float, rng: np.random.Generator) -> Image:
    """Every section: clip(I * (1 + (u - 1/2) c) + (u' - 1/2) b, 0, 1) ** 2 ** (2 u'' - 1)."""
    u = rng.random((3, image_ZYX.shape[0], 1, 1)).astype(np.float32)
    shifted = image_ZYX * (1 + (u[0] - 0.5) * contrast) + (u[1] - 0.5) * brightness
    changed: Image = np.clip(shifted, 0, 1) ** (2 ** (2 * u[2] - 1))
    return changed


def fill_sections(image_ZYX: Image, most: int, rng: np.random.Generator) -> None:
    """One to `most` sections become one grey value each."""
    for section in _sections(image_ZYX, most, rng):
        image_ZYX[section] = rng.random(dtype=np.float32)


def blur_sections(image_ZYX: Image, most: int, rng: np.random.Generator) -> None:
    """One to `most` sections get a binomial blur, once to three times."""
    for section in _sections(image_ZYX, most, rng):
        for _ in range(int(rng.integers(1, 4))):
            image_ZYX[section] = _binomial(_binomial(image_ZYX[section]).T).T


def _sections(image_ZYX: Image, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    count = int(rng.integers(1, min(most, image_ZYX.shape[0]) + 1))
    return rng.choice(image_ZYX.shape[0], count, replace=False)


def _binomial(plane: Image) -> Image:
    """Weights 1/4, 1/2, 1/4 along the first axis, the border repeated."""
    padded = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
    blurred: Image = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return blurred
