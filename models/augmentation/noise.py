"""Gaussian noise of a random strength. Not in the published recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.augmentation.sections import Image


@dataclass(frozen=True)
class Noise:
    """How often and how much."""

    probability: float = 0.0
    sigma: float = 0.04  # largest standard deviation


def add_noise(image_ZYX: Image, change: Noise, rng: np.random.Generator) -> None:
    """Add noise to an image in place; it stays in [0, 1]."""
    sigma = np.float32(rng.uniform(0, change.sigma))
    image_ZYX += sigma * rng.standard_normal(image_ZYX.shape, np.float32)
    np.clip(image_ZYX, 0, 1, out=image_ZYX)
