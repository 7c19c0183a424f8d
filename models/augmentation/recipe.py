"""All changes in their order. The order is part of the recipe: a box that covers a seam is drawn over the seam.

1. Greyscale.
2. Misalignment or missing sections: a coin decides whose turn it is.
3. Occlusion by boxes.
4. Sections out of focus.
5. Warp; noise, if there is any, comes on top.
6. Flips.

Misalignment and warp use up voxels at the border of the crop. What moves is therefore drawn first (`prepare`): it says
how large a crop must be read, so that no change ever meets a fill. `apply` then makes the changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.augmentation import plain
from models.augmentation.flip import Flip, flip
from models.augmentation.greyscale import Greyscale, vary_grey
from models.augmentation.misalignment import Misalignment, Shift, draw_shift, misalign
from models.augmentation.missing_section import MissingSection, lose_sections
from models.augmentation.noise import Noise, add_noise
from models.augmentation.occlusion import Occlusion, occlude
from models.augmentation.out_of_focus import OutOfFocus, defocus
from models.augmentation.plain import Plain
from models.augmentation.sections import Image, Index, Labels
from models.augmentation.warp import Mapping, Warp, draw_mapping, warp


@dataclass(frozen=True)
class Augmentation:
    """The numbers of all changes; the defaults are the published ones for voxels of 30 x 6 x 6 nm."""

    greyscale: Greyscale = field(default_factory=Greyscale)
    misalignment: Misalignment = field(default_factory=Misalignment)
    missing_section: MissingSection = field(default_factory=MissingSection)
    occlusion: Occlusion = field(default_factory=Occlusion)
    out_of_focus: OutOfFocus = field(default_factory=OutOfFocus)
    warp: Warp = field(default_factory=Warp)
    noise: Noise = field(default_factory=Noise)
    flip: Flip = field(default_factory=Flip)


Recipe = Augmentation | Plain


@dataclass(frozen=True)
class Geometry:
    """What is decided before a crop is read."""

    patch: Index
    shift: Shift | None = None
    mapping: Mapping | None = None
    missing: bool = False  # sections may be missing

    @property
    def source(self) -> Index:
        """The extent of the crop that must be read."""
        inner = self.mapping.source if self.mapping else self.patch
        return _sum(inner, self.shift.reach) if self.shift else inner


def margin(recipe: Recipe, patch: Index) -> Index:
    """How much larger than the patch, along z, y, x, the crop must be at most."""
    if isinstance(recipe, Plain):
        return (0, 0, 0)
    inner = recipe.warp.largest_source(patch) if recipe.warp.probability > 0 else patch
    z, y, x = (n - p for n, p in zip(_sum(inner, recipe.misalignment.reach), patch, strict=True))
    return (z, y, x)


def prepare(recipe: Recipe, patch: Index, rng: np.random.Generator) -> Geometry:
    """Draw what moves voxels, and with it how large a crop must be read."""
    if isinstance(recipe, Plain):
        return Geometry(patch)
    slips, misses = recipe.misalignment.reach != (0, 0, 0), recipe.missing_section.probability > 0
    slips_now = slips and not (misses and rng.random() < 0.5)
    return Geometry(
        patch,
        shift=draw_shift(recipe.misalignment, patch[0], rng) if slips_now else None,
        mapping=draw_mapping(recipe.warp, patch, rng) if rng.random() < recipe.warp.probability else None,
        missing=misses and not slips_now,
    )


def apply(
    image_ZYX: Image, labels_ZYX: Labels, recipe: Recipe, geometry: Geometry, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Change a crop of the extent `geometry.source`; the result has the extent of the patch."""
    if isinstance(recipe, Plain):
        return plain.change(image_ZYX, labels_ZYX, recipe, rng)
    image, labels = image_ZYX.astype(np.float32, copy=True), labels_ZYX
    if rng.random() < recipe.greyscale.probability:
        vary_grey(image, recipe.greyscale, rng)
    if geometry.shift:
        image, labels = misalign(image, labels, geometry.shift)
    elif geometry.missing and rng.random() < recipe.missing_section.probability:
        lose_sections(image, recipe.missing_section, rng)
    if rng.random() < recipe.occlusion.probability:
        occlude(image, recipe.occlusion, rng)
    if rng.random() < recipe.out_of_focus.probability:
        defocus(image, recipe.out_of_focus, rng)
    if geometry.mapping:
        image, labels = warp(image, labels, geometry.mapping)
    if rng.random() < recipe.noise.probability:
        add_noise(image, recipe.noise, rng)
    image, labels = flip(image, labels, recipe.flip, rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def augment(
    image_ZYX: Image, labels_ZYX: Labels, recipe: Recipe, patch: Index, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """A changed patch from the middle of a crop that is larger by `margin`."""
    geometry = prepare(recipe, patch, rng)
    middle = _middle(image_ZYX.shape, geometry.source)
    return apply(image_ZYX[middle], labels_ZYX[middle], recipe, geometry, rng)


def _middle(shape: tuple[int, ...], inner: Index) -> tuple[slice, ...]:
    if any(n < i for n, i in zip(shape, inner, strict=True)):
        raise ValueError(f"a crop of {shape} is smaller than the {inner} that this change needs: see margin()")
    return tuple(slice((n - i) // 2, (n - i) // 2 + i) for n, i in zip(shape, inner, strict=True))


def _sum(one: Index, other: Index) -> Index:
    z, y, x = (a + b for a, b in zip(one, other, strict=True))
    return (z, y, x)
