"""Shells: codes of the faces of every cell of a block, so that a neighbour can read them without reading cells.

1. The region is cut into cells, the inner chunks of the array; blocks of codes and all later blocks consist of whole
   cells, so a block's border is a border of cells. Of each cell the six one-voxel faces are kept, each by itself.
2. The voxels around a block lie in 26 directions: 6 planes, 12 lines and 8 corners. Each is cut at the cells. What is
   left lies on the face by which its cell touches the block, and lines and corners on other faces of it too: of the
   faces that hold it, the smallest is read.

Cells, not the later blocks: these can be cut differently without making codes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces

COLUMN = "codes"


class Need(NamedTuple):
    """A part of what surrounds a block, and the stored face that it is read from."""

    section: str
    face: Box
    part: Box


def cut(codes_CZYX: NDArray[Any], box: Box, cells: Grid) -> dict[str, dict[str, NDArray[Any]]]:
    """The faces of the cells of a box, as sections of a table."""
    sections = {}
    for index in cells.touching(box):
        for side in faces.NAMES:
            face = _face(cells.block_box(index).clip(box), side)
            sections[_section(side, index)] = {COLUMN: codes_CZYX[(..., *face.slices(box.begin))].reshape(-1)}
    return sections


def needs(block: Box, stored: Box, cells: Grid) -> list[Need]:
    """What surrounds a block inside a box of stored codes."""
    found = []
    for direction in _around(block):
        for index in cells.touching(direction.clip(stored)):
            cell = cells.block_box(index).clip(stored)
            part = direction.clip(cell)
            holding = [(side, face) for side in faces.NAMES if (face := _face(cell, side)).contains(part)]
            side, face = min(holding, key=lambda one: one[1].voxels)
            found.append(Need(_section(side, index), face, part))
    return found


def _around(block: Box) -> Iterator[Box]:
    """The 26 boxes around a block, one voxel thick."""
    spans = [((b - 1, b), (b, e), (e, e + 1)) for b, e in zip(block.begin, block.end, strict=True)]
    for z, y, x in product(*spans):
        box = Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
        if box != block:
            yield box


def _face(box: Box, side: str) -> Box:
    """The layer of voxels on one face of a box."""
    axis, high = divmod(faces.NAMES.index(side), 2)
    begin, end = list(box.begin), list(box.end)
    if high:
        begin[axis] = end[axis] - 1
    else:
        end[axis] = begin[axis] + 1
    return Box((begin[0], begin[1], begin[2]), (end[0], end[1], end[2]))


def _section(side: str, cell: Index) -> str:
    return "_".join((side, *map(str, cell)))
