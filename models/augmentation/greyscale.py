"""Contrast, brightness and gamma: clip(I * (1 + (u - 1/2) c) + (u' - 1/2) b, 0, 1) ** 2 ** ((2 u'' - 1) g).

1. Every section draws its own u, u', u''.
2. One section in two is split into quadrants that draw their own.
3. Volumes whose sections are not imaged one by one change as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.augmentation.sections import Image, quadrants


@dataclass(frozen=True)
class Greyscale:
    """How often and how much."""

    probability: float = 0.7
    contrast: float = 0.5  # width of the range around 1
    brightness: float = 0.5  # width of the range around 0
    gamma: float = 1.0  # largest power of 2 in the exponent
    split: float = 0.5  # share of the sections that change by quadrants
    by_section: bool = True


def vary_grey(image_ZYX: Image, change: Greyscale, rng: np.random.Generator) -> None:
    """Change an image in place."""
    if not change.by_section:
        _vary(image_ZYX, change, rng)
        return
    for section in image_ZYX:
        if rng.random() < change.split:
            for part in quadrants(section.shape, rng):
                _vary(section[part], change, rng)
        else:
            _vary(section, change, rng)


def _vary(values: Image, change: Greyscale, rng: np.random.Generator) -> None:
    contrast, brightness, gamma = rng.random(3)
    values *= np.float32(1 + (contrast - 0.5) * change.contrast)
    values += np.float32((brightness - 0.5) * change.brightness)
    np.clip(values, 0, 1, out=values)
    np.power(values, np.float32(2.0 ** ((2 * gamma - 1) * change.gamma)), out=values)
