"""The `[augmentation]` part of a training: which recipe, and what is different from it.

Without `recipe`, it is the plain one and the keys are its own. With a named recipe, each change has a table of its own;
what is not said is as published. Lengths are in nanometres of the plane, so that one config serves every voxel size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.sections import Length, Lengths, Section, Share

if TYPE_CHECKING:
    from models.augmentation.recipe import Augmentation, Recipe


class PlainChanges(Section):
    """Random changes of whole sections: see models.augmentation.plain."""

    recipe: Literal["plain"] = Field("plain", exclude=True)
    greyscale: Share = 0.7
    contrast: float = Field(0.5, ge=0)
    brightness: float = Field(0.5, ge=0)
    missing: Share = 0.2
    missing_sections: int = Field(2, ge=1)
    blur: Share = 0.3
    blur_sections: int = Field(3, ge=1)
    noise: float = Field(0.04, ge=0)
    flip: bool = True


class Greyscale(Section):
    """See models.augmentation.greyscale."""

    probability: Share | None = None
    contrast: float | None = Field(None, ge=0)
    brightness: float | None = Field(None, ge=0)
    gamma: float | None = Field(None, ge=0)
    split: Share | None = None
    by_section: bool | None = None


class Misalignment(Section):
    """See models.augmentation.misalignment."""

    translation: Share | None = None
    slip: Share | None = None
    shift_nm: Length | None = None
    interpolate: bool | None = None


class MissingSection(Section):
    """See models.augmentation.missing_section."""

    probability: Share | None = None
    sections: Share | None = None
    black: Share | None = None


class Occlusion(Section):
    """See models.augmentation.occlusion."""

    probability: Share | None = None
    volume: float | None = Field(None, ge=0, lt=1)
    side_nm: tuple[Length, Length] | None = None


class OutOfFocus(Section):
    """See models.augmentation.out_of_focus."""

    probability: Share | None = None
    sections: Share | None = None
    sigma_nm: Length | None = None


class Warp(Section):
    """See models.augmentation.warp."""

    probability: Share | None = None
    rotation_deg: float | None = Field(None, ge=0, le=360)
    shear_deg: float | None = Field(None, ge=0, lt=45)
    scale: float | None = Field(None, ge=0, lt=1)
    stretch: float | None = Field(None, ge=0, le=0.25)


class Noise(Section):
    """See models.augmentation.noise."""

    probability: Share | None = None
    sigma: float | None = Field(None, ge=0)


class Flip(Section):
    """See models.augmentation.flip."""

    probability: Share | None = None
    every_axis: bool | None = None


class NamedChanges(Section):
    """A named recipe, and what is different from it."""

    recipe: Literal["published", "validation", "isotropic"]
    greyscale: Greyscale = Greyscale()
    misalignment: Misalignment = Misalignment()
    missing_section: MissingSection = MissingSection()
    occlusion: Occlusion = Occlusion()
    out_of_focus: OutOfFocus = OutOfFocus()
    warp: Warp = Warp()
    noise: Noise = Noise()
    flip: Flip = Flip()

    @model_validator(mode="after")
    def _makes_a_recipe(self) -> Self:
        recipe_of(self, (1.0, 1.0, 1.0))  # what it refuses does not depend on the voxel size
        return self


def _kind(given: Any) -> str:
    name = given.get("recipe", "plain") if isinstance(given, dict) else given.recipe
    return "plain" if name == "plain" else "named"


Changes = Annotated[
    Annotated[PlainChanges, Tag("plain")] | Annotated[NamedChanges, Tag("named")],
    Discriminator(_kind),
]


def recipe_of(changes: PlainChanges | NamedChanges, voxel_size_nm: Lengths) -> Recipe:
    """The recipe that a config describes, for voxels of a size."""
    from models.augmentation.plain import Plain
    from models.augmentation.profiles import PROFILES

    if isinstance(changes, PlainChanges):
        return Plain(**changes.model_dump())
    recipe: Augmentation = PROFILES[changes.recipe](voxel_size_nm)
    for name in NamedChanges.model_fields.keys() - {"recipe"}:
        given = getattr(changes, name).model_dump(exclude_none=True)
        numbers = dict(_in_voxels(key, value, voxel_size_nm) for key, value in given.items())
        recipe = replace(recipe, **{name: replace(getattr(recipe, name), **numbers)})
    return recipe


def _in_voxels(key: str, value: Any, voxel_size_nm: Lengths) -> tuple[str, Any]:
    from models.augmentation.profiles import in_plane

    match key:
        case "shift_nm":
            return "shift_vx", in_plane(value, voxel_size_nm)
        case "side_nm":
            return "side_vx", tuple(sorted(in_plane(side, voxel_size_nm) for side in value))
        case "sigma_nm":
            return "sigma_vx", value / voxel_size_nm[2]
    return key, value
