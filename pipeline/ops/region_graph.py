"""The region graph of one block: its fragments, and the affinity statistics of every pair of fragments that touch.

1. Nodes are the fragments with a voxel in the block: their volume inside it and the internal faces they reach.
2. Every voxel edge stored in the block whose two ends lie in different fragments adds its decoded affinity to the
   row of that pair, whatever its code: edges at or below the watershed's low threshold count too. Edges to the
   background do not.
3. Edges inside the block go to the section `inner`; edges across a low face go to a section of that face. The block
   at whose level both sides are in one chunk takes them from there, so every voxel edge is counted exactly once.
4. An edge is stored at its end with the larger index, so a block needs its own codes, its own labels and the labels on
   the high faces of the three blocks before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import CHANNEL_SHIFT, Edges
from pipeline.ops.pair_rows import PairRows, empty_rows, find_slot, grown

U64 = NDArray[np.uint64]
A, B, SUM, COUNT, TIE, MAX = range(6)
NAME, _ZERO, VOLUME, MASK = range(4)


@dataclass(frozen=True)
class Contacts:
    """Edges between fragments, and the largest code of each."""

    edges: Edges
    max_code: NDArray[Any]


@dataclass(frozen=True)
class Nodes:
    """Fragments in a block, ascending by name."""

    name: U64
    volume: NDArray[np.int64]
    mask: NDArray[np.uint8]


class Place(NamedTuple):
    """Where a block lies: its first voxel, and the extent of the whole layer, which counts positions."""

    origin: Index
    layer_shape: Index


class _Block(NamedTuple):
    """What the kernel reads. The labels have one more voxel on the low side of every axis."""

    padded_ZYX: U64
    codes_CZYX: NDArray[Any]
    decoded: NDArray[np.int64]
    origin: Index
    layer_shape: Index


def contacts(
    labels_ZYX: U64,
    codes_CZYX: NDArray[Any],
    before: Mapping[str, faces.Slab],
    *,
    code_table: NDArray[np.integer],
    place: Place,
) -> dict[str, Contacts]:
    """The sections `inner`, `low_z`, `low_y`, `low_x`; `before` has the neighbours' labels across each low face."""
    padded_ZYX = np.zeros([extent + 1 for extent in labels_ZYX.shape], np.uint64)
    padded_ZYX[1:, 1:, 1:] = labels_ZYX
    for side, labels in before.items():
        where: list[slice | int] = [slice(1, None)] * 3
        where[faces.LOW.index(side)] = 0
        padded_ZYX[tuple(where)] = labels
    block = _Block(padded_ZYX, codes_CZYX, np.ascontiguousarray(code_table, dtype=np.int64), *place)
    inner, used = empty_rows(6), 0
    sections = {}
    for axis, side in enumerate(faces.LOW):
        sections[side] = _contacts(*_add_edges(empty_rows(6), 0, block, axis, False), codes_CZYX.dtype)
        inner, used = _add_edges(inner, used, block, axis, True)
    return {"inner": _contacts(inner, used, codes_CZYX.dtype), **sections}


def _contacts(table: PairRows, used: int, code_dtype: np.dtype[Any]) -> Contacts:
    rows = table.rows[:used]
    rows = rows[np.lexsort((rows[:, B], rows[:, A]))]
    edges = Edges(
        rows[:, A].copy(),
        rows[:, B].copy(),
        rows[:, SUM].astype(np.int64),
        rows[:, COUNT].astype(np.int64),
        rows[:, TIE].copy(),
    )
    return Contacts(edges, rows[:, MAX].astype(code_dtype))


def nodes(labels_ZYX: U64, internal: int) -> Nodes:
    """The fragments in a block."""
    table, used = _count_labels(empty_rows(4), np.ascontiguousarray(labels_ZYX), internal)
    rows = table.rows[:used]
    rows = rows[np.argsort(rows[:, NAME])]
    return Nodes(rows[:, NAME].copy(), rows[:, VOLUME].astype(np.int64), rows[:, MASK].astype(np.uint8))


@compiled
def _add_edges(table: PairRows, used: int, block: _Block, axis: int, inside: bool) -> tuple[PairRows, int]:
    """Add the edges of one channel: those inside the block, or those across its low face."""
    _, depth, height, width = block.codes_CZYX.shape
    dz, dy, dx = np.int64(axis == 0), np.int64(axis == 1), np.int64(axis == 2)
    last_a, last_b, row = np.uint64(0), np.uint64(0), 0
    for z in range(dz if inside else 0, depth if inside or axis != 0 else 1):
        for y in range(dy if inside else 0, height if inside or axis != 1 else 1):
            line = (block.origin[0] + z) * block.layer_shape[1] + block.origin[1] + y
            line = line * block.layer_shape[2] + block.origin[2]
            for x in range(dx if inside else 0, width if inside or axis != 2 else 1):
                a, b = block.padded_ZYX[z + 1, y + 1, x + 1], block.padded_ZYX[z + 1 - dz, y + 1 - dy, x + 1 - dx]
                if a == b or a == 0 or b == 0:
                    continue
                if a > b:
                    a, b = b, a
                if a != last_a or b != last_b:  # contacts come in runs
                    last_a, last_b = a, b
                    table = grown(table, used)
                    slot = find_slot(table, a, b)
                    if table.slots[slot] < 0:
                        table.slots[slot] = used
                        table.rows[used, 0], table.rows[used, 1] = a, b
                        used += 1
                    row = table.slots[slot]
                _add_edge(table.rows, row, block, (axis, z, y, x), line + x)
    return table, used


@compiled
def _add_edge(rows: U64, row: int, block: _Block, at: tuple[int, int, int, int], line: int) -> None:
    code = block.codes_CZYX[at]
    rows[row, SUM] += np.uint64(block.decoded[code])
    rows[row, COUNT] += np.uint64(1)
    rows[row, TIE] = max(rows[row, TIE], np.uint64(at[0] << CHANNEL_SHIFT | line))
    rows[row, MAX] = max(rows[row, MAX], np.uint64(code))


@compiled
def _count_labels(table: PairRows, labels_ZYX: U64, internal: int) -> tuple[PairRows, int]:
    """Volume and face bits of every label but 0."""
    depth, height, width = labels_ZYX.shape
    used = 0
    last, row = np.uint64(0), 0
    for z in range(depth):
        z_bits = (z == 0) | (z == depth - 1) << 1
        for y in range(height):
            zy_bits = z_bits | (y == 0) << 2 | (y == height - 1) << 3
            for x in range(width):
                label = labels_ZYX[z, y, x]
                if label == 0:
                    continue
                if label != last:
                    last = label
                    table = grown(table, used)
                    slot = find_slot(table, label, np.uint64(0))
                    if table.slots[slot] < 0:
                        table.slots[slot] = used
                        table.rows[used, 0] = label
                        used += 1
                    row = table.slots[slot]
                bits = (zy_bits | (x == 0) << 4 | (x == width - 1) << 5) & internal
                table.rows[row, VOLUME] += np.uint64(1)
                table.rows[row, MASK] |= np.uint64(bits)
    return table, used
