"""What candidates for a merge look like: the section through each point, in flat columns that a table can hold.

1. A view has the height and width of what an embedding net puts out for one patch, around the candidate's point.
2. It holds the image, the sides (1 the first segment, 2 the second one, 3 any other, 0 none), and the embedding: its
   first three principal components as red, green and blue, from this view's segments alone (ops/embedding_colours.py).
   Where there is no segment it is black. Colours of two views have nothing to do with each other.
3. Columns are the voxels of one view after the other, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.embedding_colours import embedding_colours

U8 = NDArray[np.uint8]
NEITHER, FIRST, SECOND, OTHER = 0, 1, 2, 3
COLUMNS = ("image", "side", "red", "green", "blue")


@dataclass(frozen=True)
class Views:
    """N views of one height and width."""

    image_NYX: U8
    sides_NYX: U8
    colours_NYXC: U8

    @property
    def size(self) -> int:
        """How many."""
        return len(self.image_NYX)

    def columns(self) -> dict[str, U8]:
        """As a table."""
        planes = (self.image_NYX, self.sides_NYX, *np.moveaxis(self.colours_NYXC, -1, 0))
        return {name: np.ascontiguousarray(plane).reshape(-1) for name, plane in zip(COLUMNS, planes, strict=True)}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[Any]], shape_YX: tuple[int, int]) -> Views:
        """From a table of views of this height and width."""
        image, sides, *colours = (table[name].reshape(-1, *shape_YX) for name in COLUMNS)
        return cls(image, sides, np.stack(colours, axis=-1))

    @classmethod
    def none(cls, shape_YX: tuple[int, int]) -> Views:
        """No views of this height and width."""
        empty = np.zeros((0, *shape_YX), np.uint8)
        return cls(empty, empty, np.zeros((*empty.shape, 3), np.uint8))

    def take(self, rows: NDArray[np.integer]) -> Views:
        """Some of them."""
        return Views(self.image_NYX[rows], self.sides_NYX[rows], self.colours_NYXC[rows])


def stacked(parts: Sequence[Views]) -> Views:
    """Views of one height and width, one after the other."""
    return Views(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Views)))


def views(image_NYX: U8, sides_NYX: U8, sections_NDYX: NDArray[np.floating[Any]]) -> Views:
    """The views of candidates, from the vectors of their sections."""
    colours_NYXC = np.zeros((*image_NYX.shape, 3), np.uint8)
    for row, (vectors_DYX, sides_YX) in enumerate(zip(sections_NDYX, sides_NYX, strict=True)):
        one_part_YX = np.zeros(sides_YX.shape, np.int64)
        colours_NYXC[row] = np.moveaxis(embedding_colours(vectors_DYX, sides_YX != NEITHER, one_part_YX), 0, -1)
    return Views(image_NYX, sides_NYX, colours_NYXC)
