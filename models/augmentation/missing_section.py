"""Sections that are missing: one to K of them, whole or in quadrants, each filled with one grey value of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.augmentation.sections import Image, some, whole_or_quadrants


@dataclass(frozen=True)
class MissingSection:
    """How often and how many."""

    probability: float = 0.9
    sections: float = 0.25  # K, as a share of all sections
    black: float = 0.5  # share of the fills that are 0; the others are a random grey


def lose_sections(image_ZYX: Image, change: MissingSection, rng: np.random.Generator) -> None:
    """Fill sections of an image in place."""
    for z in some(len(image_ZYX), change.sections, rng):
        for part in whole_or_quadrants(image_ZYX.shape[1:], rng):
            image_ZYX[z][part] = 0 if rng.random() < change.black else rng.random(dtype=np.float32)
