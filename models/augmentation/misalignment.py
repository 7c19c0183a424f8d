"""Sections out of place.

1. Translation: all sections from z0 on are shifted in the plane, image and labels alike.
2. Slip: section z0 alone is shifted. Only the image is: the labels stay, and the network learns to see through the
   slip to where the objects would be (slip interpolation). Without it, the labels move too.
3. Shifts along y and x are drawn apart, each from 0 to the largest with a random sign; z0 is never the first or the
   last section.

The crop shrinks by the shift: what moves in comes from the volume, never from a fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.augmentation.sections import Image, Index, Labels


@dataclass(frozen=True)
class Misalignment:
    """How often and how far."""

    translation: float = 0.5  # probability
    slip: float = 0.2  # probability
    shift_vx: int = 16  # at most
    interpolate: bool = True  # a slip leaves the labels where they are

    def __post_init__(self) -> None:
        if self.translation + self.slip > 1:
            raise ValueError("translation and slip exclude each other: their probabilities sum to at most 1")

    @property
    def reach(self) -> Index:
        """How much larger than its result the crop must be at most."""
        on = self.translation + self.slip > 0
        return (0, self.shift_vx, self.shift_vx) if on else (0, 0, 0)


@dataclass(frozen=True)
class Shift:
    """One misalignment."""

    z: int  # the first section that is shifted
    y: int
    x: int
    slip: bool = False  # that section alone
    labels_too: bool = True

    @property
    def reach(self) -> Index:
        """How much larger than its result the crop must be."""
        return (0, abs(self.y), abs(self.x))


def draw_shift(change: Misalignment, sections: int, rng: np.random.Generator) -> Shift | None:
    """A translation, a slip, or neither."""
    kind = rng.random()
    if sections < 3 or kind >= change.translation + change.slip:
        return None
    slip = bool(kind >= change.translation)
    z = int(rng.integers(1, sections - 1))
    y, x = (int(length) for length in rng.integers(0, change.shift_vx + 1, 2) * rng.choice((-1, 1), 2))
    return Shift(z, y, x, slip=slip, labels_too=not (slip and change.interpolate))


def misalign(image_ZYX: Image, labels_ZYX: Labels, shift: Shift) -> tuple[Image, Labels]:
    """Image and labels, smaller by the reach of the shift."""
    moved = slice(shift.z, shift.z + 1) if shift.slip else slice(shift.z, None)
    image = _moved(image_ZYX, moved, shift)
    labels = _moved(labels_ZYX, moved if shift.labels_too else slice(0, 0), shift)
    return image, labels


def _moved(values_ZYX: Labels, sections: slice, shift: Shift) -> Labels:
    """The common window of all sections; some of them are read at the shifted place."""
    _, height, width = (n - r for n, r in zip(values_ZYX.shape, shift.reach, strict=True))
    y, x = max(0, -shift.y), max(0, -shift.x)
    found = values_ZYX[:, y : y + height, x : x + width].copy()
    y, x = max(0, shift.y), max(0, shift.x)
    found[sections] = values_ZYX[sections, y : y + height, x : x + width]
    return found
