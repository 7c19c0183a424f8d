"""Recipes for a voxel size.

published   for training on serial sections (Lee et al., the Kasthuri recipe); lengths follow the voxel size in plane
validation  what a validation of such a training meets: greyscale, misalignment or missing sections, sections out of
            focus, flips; a slip moves the labels too
isotropic   for volumes that are not cut in sections: the whole crop changes its grey at once, nothing is misaligned or
            missing, boxes are cubes, any axis may be any other. Not published: our choice
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from models.augmentation.flip import Flip
from models.augmentation.greyscale import Greyscale
from models.augmentation.misalignment import Misalignment
from models.augmentation.missing_section import MissingSection
from models.augmentation.noise import Noise
from models.augmentation.occlusion import Occlusion
from models.augmentation.out_of_focus import OutOfFocus
from models.augmentation.recipe import Augmentation

SHIFT_NM = 96.0  # 16 voxels of 6 nm
SIDE_NM = (36.0, 180.0)
SIGMA_NM = 30.0
Lengths = tuple[float, float, float]


def published(voxel_size_nm: Lengths) -> Augmentation:
    """The whole recipe."""
    return Augmentation(
        misalignment=Misalignment(shift_vx=in_plane(SHIFT_NM, voxel_size_nm)),
        occlusion=Occlusion(
            side_vx=(in_plane(SIDE_NM[0], voxel_size_nm), in_plane(SIDE_NM[1], voxel_size_nm)),
            flatness=voxel_size_nm[2] / voxel_size_nm[0],
        ),
        out_of_focus=OutOfFocus(sigma_vx=SIGMA_NM / voxel_size_nm[2]),
    )


def validation(voxel_size_nm: Lengths) -> Augmentation:
    """The recipe without boxes, warp and slip interpolation."""
    whole = published(voxel_size_nm)
    return replace(
        whole,
        misalignment=replace(whole.misalignment, interpolate=False),
        occlusion=replace(whole.occlusion, probability=0.0),
        warp=replace(whole.warp, probability=0.0),
    )


def isotropic(voxel_size_nm: Lengths) -> Augmentation:
    """The recipe for volumes without sections."""
    return replace(
        published(voxel_size_nm),
        greyscale=Greyscale(by_section=False),
        misalignment=Misalignment(translation=0.0, slip=0.0, shift_vx=in_plane(SHIFT_NM, voxel_size_nm)),
        missing_section=MissingSection(probability=0.0),
        out_of_focus=OutOfFocus(probability=0.3, sigma_vx=SIGMA_NM / 2 / voxel_size_nm[2]),
        noise=Noise(probability=0.5),
        flip=Flip(every_axis=True),
    )


def in_plane(length_nm: float, voxel_size_nm: Lengths) -> int:
    """A length in voxels of the plane, at least one."""
    return max(1, round(length_nm / voxel_size_nm[2]))


PROFILES = MappingProxyType({"published": published, "validation": validation, "isotropic": isotropic})
