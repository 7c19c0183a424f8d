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
    spans = [_span(n, o) for n, o in zip(shape, offset, strict=True)]
    here = tuple(slice(begin, end) for begin, end in spans)
    there = tuple(slice(begin + o, end + o) for (begin, end), o in zip(spans, offset, strict=True))
    return here, there


def _span(extent: int, offset: int) -> tuple[int, int]:
    """Where along one axis a voxel has its partner."""
    begin = min(extent, max(0, -offset))
    return begin, max(begin, min(extent, extent - offset))
