"""Every change of a recipe by itself: recipes that make one change, and that one always."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.augmentation.flip import Flip
from models.augmentation.greyscale import Greyscale
from models.augmentation.misalignment import Misalignment
from models.augmentation.missing_section import MissingSection
from models.augmentation.noise import Noise
from models.augmentation.occlusion import Occlusion
from models.augmentation.out_of_focus import OutOfFocus
from models.augmentation.plain import Plain
from models.augmentation.recipe import Augmentation, Recipe
from models.augmentation.warp import Warp

NOTHING = Augmentation(
    greyscale=Greyscale(probability=0.0),
    misalignment=Misalignment(translation=0.0, slip=0.0),
    missing_section=MissingSection(probability=0.0),
    occlusion=Occlusion(probability=0.0),
    out_of_focus=OutOfFocus(probability=0.0),
    warp=Warp(probability=0.0),
    noise=Noise(probability=0.0),
    flip=Flip(probability=0.0),
)
PLAIN_NOTHING = Plain(greyscale=0.0, missing=0.0, blur=0.0, noise=0.0, flip=False)


@dataclass(frozen=True)
class Change:
    """One change: its name, the share of crops that it is made to, and the recipe that makes nothing else."""

    name: str
    probability: float
    recipe: Recipe


def alone(recipe: Recipe) -> list[Change]:
    """The changes that a recipe makes, in its order."""
    changes = _of_plain(recipe) if isinstance(recipe, Plain) else _of(recipe)
    return [change for change in changes if change.probability > 0]


def _of(recipe: Augmentation) -> Iterator[Change]:
    shift = recipe.misalignment
    both = shift.translation + shift.slip > 0 and recipe.missing_section.probability > 0
    turn = 0.5 if both else 1.0  # it is misalignment's turn, or that of missing sections
    yield _single(recipe, "greyscale")
    for name in ("translation", "slip"):
        only = replace(shift, translation=float(name == "translation"), slip=float(name == "slip"))
        yield Change(name, turn * getattr(shift, name), replace(NOTHING, misalignment=only))
    missing = _single(recipe, "missing_section")
    yield replace(missing, probability=turn * missing.probability)
    for name in ("occlusion", "out_of_focus", "warp", "noise", "flip"):
        yield _single(recipe, name)


def _single(recipe: Augmentation, name: str) -> Change:
    change = getattr(recipe, name)
    only = replace(NOTHING, **{name: replace(change, probability=1.0)})
    return Change(name.replace("_", " "), change.probability, only)


def _of_plain(recipe: Plain) -> Iterator[Change]:
    grey = replace(PLAIN_NOTHING, greyscale=1.0, contrast=recipe.contrast, brightness=recipe.brightness)
    yield Change("greyscale", recipe.greyscale, grey)
    missing = replace(PLAIN_NOTHING, missing=1.0, missing_sections=recipe.missing_sections)
    yield Change("missing section", recipe.missing, missing)
    blurred = replace(PLAIN_NOTHING, blur=1.0, blur_sections=recipe.blur_sections)
    yield Change("out of focus", recipe.blur, blurred)
    yield Change("noise", float(recipe.noise > 0), replace(PLAIN_NOTHING, noise=recipe.noise))
    yield Change("flip", 0.5 * recipe.flip, replace(PLAIN_NOTHING, flip=True))
