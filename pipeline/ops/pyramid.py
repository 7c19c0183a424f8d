"""The levels of a multiscale volume: by which factor each is coarser, and which voxels it has.

1. An axis is halved as long as its voxels are shorter than twice the shortest: first in plane, then, once voxels are
   nearly cubes, along all axes.
2. Coarse voxels count from the layer's origin, whatever the region: coarse voxel c covers fine voxels c * f to
   (c + 1) * f. A region has those coarse voxels whose first voxel lies in it; so labels are defined by position alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.geometry import Box, Index, VoxelSize


@dataclass(frozen=True)
class Level:
    """One level: its voxels, its factor to the next finer one, and to the finest."""

    voxel_size: VoxelSize
    step: Index
    factor: Index


def levels(voxel_size: VoxelSize, count: int) -> tuple[Level, ...]:
    """The levels above the finest."""
    made: list[Level] = []
    size, factor = voxel_size.pm, (1, 1, 1)
    for _ in range(count):
        shortest = min(size)
        z, y, x = (2 if s < 2 * shortest else 1 for s in size)
        step = (z, y, x)
        size, factor = _times(size, step), _times(factor, step)
        made.append(Level(VoxelSize(size), step, factor))
    return tuple(made)


def coarse_box(box: Box, factor: Index) -> Box:
    """The coarse voxels whose first voxel lies in a box; may be empty."""
    return Box(_up(box.begin, factor), _up(box.end, factor))


def first_voxels(box: Box, factor: Index) -> Box:
    """The smallest fine box with the first voxels of a coarse one."""
    if box.voxels == 0:
        return Box(_times(box.begin, factor), _times(box.begin, factor))
    z, y, x = ((e - 1) * f + 1 for e, f in zip(box.end, factor, strict=True))
    return Box(_times(box.begin, factor), (z, y, x))


def _times(values: Index, factor: Index) -> Index:
    z, y, x = (v * f for v, f in zip(values, factor, strict=True))
    return (z, y, x)


def _up(values: Index, factor: Index) -> Index:
    z, y, x = (-(-v // f) for v, f in zip(values, factor, strict=True))
    return (z, y, x)
