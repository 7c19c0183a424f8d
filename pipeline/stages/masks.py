"""Masks: what is left out (skip masks, and the failed blocks that the user accepted as holes), and classes of voxels.

A mask is a user's volume at some whole-number scale of the layer. The non-zero voxels of a skip mask are left out from
the start, those of a background mask after prediction: edges to them are stored, and not used. The values of the class
mask, of which there is one at most, are classes: 1 to 255, and 0 for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Mask as Settings
from pipeline.errors import InputError, WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops.classes import LARGEST
from pipeline.sources import Source, open_source
from pipeline.stages.stage import Site

Kind = TypeVar("Kind", bound=np.generic)
M = TypeVar("M", bound="_Mask")


@dataclass(frozen=True)
class _Mask:
    """One mask: a voxel of it covers `factor` voxels of the layer; both begin at the same corner."""

    path: str
    factor: Index

    @cached_property
    def _source(self) -> Source:
        return open_source(self.path)

    def _coarse(self, box: Box) -> Box:
        """The voxels of the mask that cover a box of the layer."""
        low = tuple(b // f for b, f in zip(box.begin, self.factor, strict=True))
        high = tuple(-(-e // f) for e, f in zip(box.end, self.factor, strict=True))
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def _fine(self, values: NDArray[Kind], box: Box) -> NDArray[Kind]:
        """The values of such voxels, voxel by voxel of the box."""
        for axis, f in enumerate(self.factor):
            values = values.repeat(f, axis)
        return values[box.slices(self._coarse(box).scale(self.factor).begin)]


class SkipMask(_Mask):
    """A mask whose non-zero voxels are left out."""

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Which voxels of a box of the layer are to be skipped."""
        return self._fine(self._source.read(self._coarse(box)) != 0, box)


class ClassMask(_Mask):
    """A mask whose values are classes."""

    def read(self, box: Box) -> NDArray[np.uint8]:
        """The class of every voxel of a box of the layer; 0: none."""
        coarse = self._coarse(box)
        values = self._source.read(coarse)
        wrong = (values < 0) | (values > LARGEST)
        if wrong.any():
            first = np.unravel_index(int(wrong.argmax()), wrong.shape)
            place = tuple(int(b + f) for b, f in zip(coarse.begin, first, strict=True))
            raise InputError(
                f"voxel {place} of the class mask holds {values[first]}; classes are 1 to {LARGEST}, 0 is none",
                where=self.path,
                way_out="renumber the classes; ids of single objects are no classes",
            )
        return self._fine(values.astype(np.uint8), box)


def skip_masks(site: Site) -> tuple[SkipMask, ...]:
    """The skip masks of a run, checked against its layer."""
    return tuple(_checked(SkipMask, mask, facts, site) for mask, facts in _masks_of(site, "skip"))


def background_masks(site: Site) -> tuple[SkipMask, ...]:
    """The background masks of a run, checked against its layer."""
    return tuple(_checked(SkipMask, mask, facts, site) for mask, facts in _masks_of(site, "background"))


def class_mask(site: Site) -> ClassMask | None:
    """The class mask of a run, checked against its layer."""
    return next((_checked(ClassMask, mask, facts, site) for mask, facts in _masks_of(site, "class")), None)


def _masks_of(site: Site, role: str) -> list[tuple[Settings, dict[str, Any]]]:
    """The masks of one role, and what is known of each."""
    pairs = zip(site.config.mask, site.facts["masks"], strict=True) if site.config.mask else ()
    return [(mask, facts) for mask, facts in pairs if mask.role == role]


def skip_content(site: Site) -> list[list[Any]]:
    """What of the masks decides which codes exist."""
    return _content(site, "skip")


def background_content(site: Site) -> list[list[Any]]:
    """What of the masks decides which of the codes count."""
    return _content(site, "background")


def class_content(site: Site) -> list[list[Any]]:
    """What of the masks decides which classes voxels have."""
    return _content(site, "class")


def _content(site: Site, role: str) -> list[list[Any]]:
    return [[role, facts["fingerprint"], facts["voxel_size_pm"]] for _, facts in _masks_of(site, role)]


def _checked(kind: type[M], settings: Settings, facts: dict[str, Any], site: Site) -> M:
    path = settings.path
    z, y, x = facts["voxel_size_pm"]
    size, layer = VoxelSize((z, y, x)), site.layer
    factor = size.ratio(layer.voxel_size)
    if factor is None:
        raise WrongVoxelSize(
            f"the mask has voxels of {size}: no whole multiple of the layer's {layer.voxel_size}",
            where=path,
            way_out="resample the mask to the layer's voxel size or a whole multiple of it",
        )
    covered = [n * f for n, f in zip(facts["shape"], factor, strict=True)]
    if any(c < n for c, n in zip(covered, layer.shape, strict=True)):
        raise WrongShape(
            f"the mask covers {covered} voxels of the layer, which has {list(layer.shape)}",
            where=path,
            way_out="give a mask that covers the whole layer",
        )
    return kind(path, factor)


def skipped(masks: tuple[SkipMask, ...], box: Box) -> NDArray[np.bool_]:
    """Which voxels of a box any mask skips."""
    union = np.zeros(box.shape, np.bool_)
    for mask in masks:
        union |= mask.read(box)
    return union


class Absences:
    """What has no codes: voxels that masks skip, accepted holes, and all outside the region of interest."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: dict[Box, bool] = {}

    @cached_property
    def _masks(self) -> tuple[SkipMask, ...]:
        return skip_masks(self._site)

    @cached_property
    def holes(self) -> tuple[Box, ...]:
        """The boxes of failed blocks that the user accepted."""
        return tuple(Box(hole.begin, hole.end) for hole in self._site.config.holes)

    def cover(self, box: Box) -> bool:
        """Whether skip masks cover a block, or it is an accepted hole; remembered: it takes reading the masks."""
        if box not in self._known:
            covered = bool(self._masks) and bool(skipped(self._masks, box).all())
            self._known[box] = covered or any(hole.contains(box) for hole in self.holes)
        return self._known[box]

    def voxels(self, box: Box) -> NDArray[np.bool_]:
        """The absent voxels of a box."""
        absent = np.ones(box.shape, np.bool_)
        inside = box.clip(self._site.layer.roi)
        absent[inside.slices(box.begin)] = skipped(self._masks, inside)
        for hole in self.holes:
            absent[hole.clip(box).slices(box.begin)] = True
        return absent
