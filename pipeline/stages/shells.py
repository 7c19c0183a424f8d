"""The file of shells beside a block of codes: what others read of it instead of whole chunks (ops/shells.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops import shells
from pipeline.stages.tabular import surface
from pipeline.tables import digest_tables, read_tables, write_tables

SECTION_BYTES = 640  # what a section costs besides its codes; measured: 532
SIDES = 6


def store(path: Path, codes_CZYX: NDArray[Any], box: Box, cells: Grid) -> str:
    """Replace the shells of a block of codes, durably; returns their digest."""
    return write_tables(path, shells.cut(codes_CZYX, box, cells))


def fill(codes_CZYX: NDArray[Any], begin: Index, path: Path, needs: Sequence[shells.Need]) -> None:
    """Put parts of one block's shells into an array whose first voxel is `begin`; reads the faces that hold them."""
    stored = read_tables(path, list(dict.fromkeys(need.section for need in needs)))
    for section, face, part in needs:
        face_CZYX = stored[section][shells.COLUMN].reshape(len(codes_CZYX), *face.shape)
        codes_CZYX[(..., *part.slices(begin))] = face_CZYX[(..., *part.slices(face.begin))]


def stored_digest(path: Path) -> str:
    """The digest of the shells as they are now."""
    return digest_tables(read_tables(path))


def bytes_bound(shape: Index, chunk: Index, code_bytes: int) -> int:
    """A bound on the bytes of the shells of a box; `code_bytes` is what the codes of a voxel take."""
    cell: Index = (min(chunk[0], shape[0]), min(chunk[1], shape[1]), min(chunk[2], shape[2]))
    cells = Grid(Box.of_shape(shape), chunk).count
    return cells * (code_bytes * surface(cell) + SIDES * SECTION_BYTES)
