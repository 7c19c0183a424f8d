"""Sections out of focus: one to K of them, whole or in quadrants, blurred by a Gaussian of random width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from models.augmentation.sections import Image, some, whole_or_quadrants

REACH = 3.0  # standard deviations after which the Gaussian is cut


@dataclass(frozen=True)
class OutOfFocus:
    """How often, how many and how much."""

    probability: float = 1.0
    sections: float = 0.25  # K, as a share of all sections
    sigma_vx: float = 5.0  # largest standard deviation


def defocus(image_ZYX: Image, change: OutOfFocus, rng: np.random.Generator) -> None:
    """Blur sections of an image in place."""
    for z in some(len(image_ZYX), change.sections, rng):
        section = image_ZYX[z]
        blurred = gaussian_filter(section, rng.uniform(0, change.sigma_vx), truncate=REACH)
        for part in whole_or_quadrants(section.shape, rng):
            section[part] = blurred[part]
