"""What is left out: skip masks, and the failed blocks that the user accepted as holes.

A skip mask is a user's volume at some whole-number scale of the layer; its non-zero voxels are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.sources import Source, open_source
from pipeline.stages.stage import Site


@dataclass(frozen=True)
class SkipMask:
    """One mask: a voxel of it covers `factor` voxels of the layer; both begin at the same corner."""

    path: str
    factor: Index

    @cached_property
    def _source(self) -> Source:
        return open_source(self.path)

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Which voxels of a box of the layer are to be skipped."""
        low = tuple(b // f for b, f in zip(box.begin, self.factor, strict=True))
        high = tuple(-(-e // f) for e, f in zip(box.end, self.factor, strict=True))
        coarse = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        skipped: NDArray[np.bool_] = self._source.read(coarse) != 0
        for axis, f in enumerate(self.factor):
            skipped = skipped.repeat(f, axis)
        return skipped[box.slices(coarse.scale(self.factor).begin)]


def skip_masks(site: Site) -> tuple[SkipMask, ...]:
    """The skip masks of a run, checked against its layer."""
    pairs = zip(site.config.mask, site.facts["masks"], strict=True)
    return tuple(_checked(mask.path, facts, site) for mask, facts in pairs if mask.role == "skip")


def _checked(path: str, facts: dict[str, Any], site: Site) -> SkipMask:
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
    return SkipMask(path, factor)


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
