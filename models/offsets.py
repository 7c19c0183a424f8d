"""Which voxels an edge joins: the published sets of offsets, all (z, y, x), and where an edge's two ends lie."""

from __future__ import annotations

from collections.abc import Sequence

from models.spec import NEAREST, Index

Slices = tuple[slice, ...]

# Twelve channels of an affinity net: what training adds to the nearest edges. In the plane it goes by the voxel size.
LONG_RANGE_6NM: tuple[Index, ...] = (
    *((-2, 0, 0), (-3, 0, 0), (-4, 0, 0)),
    *((0, -4, 0), (0, -8, 0), (0, -24, 0)),
    *((0, 0, -4), (0, 0, -8), (0, 0, -24)),
)
LONG_RANGE_12NM: tuple[Index, ...] = (
    *((-2, 0, 0), (-3, 0, 0), (-4, 0, 0)),
    *((0, -2, 0), (0, -4, 0), (0, -12, 0)),
    *((0, 0, -2), (0, 0, -4), (0, 0, -12)),
)
AFFINITY_6NM = NEAREST + LONG_RANGE_6NM
AFFINITY_12NM = NEAREST + LONG_RANGE_12NM

# The metric graph: three attractive edges, then nine repulsive ones for the mutex watershed.
REPULSIVE: tuple[Index, ...] = (
    *((-2, 0, 0), (0, 0, -5), (0, -5, 0), (0, -5, -5), (0, 5, -5)),
    *((-1, 0, -5), (-1, -5, 0), (1, 0, -5), (1, -5, 0)),
)
METRIC = NEAREST + REPULSIVE


def ends(shape: Sequence[int], offset: Index) -> tuple[Slices, Slices]:
    """The voxels i whose partner i + offset lies in the array, and the partners; both empty if there are none."""
    here = tuple(slice(max(0, -o), max(0, -o, min(n, n - o))) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(s.start + o, s.stop + o) if s.stop > s.start else slice(0, 0) for o, s in zip(offset, here, strict=True))
    return here, there
