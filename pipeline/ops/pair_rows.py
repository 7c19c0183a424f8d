"""Rows of numbers found by a pair of u64 keys: an open-addressing hash table that kernels grow as they go.

A row of `rows` holds its two keys in columns 0 and 1 and whatever a kernel adds up in the others. `slots` holds row
numbers, -1 where free. Row 0 is the first key pair met, so the order of rows is that of first appearance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled

U64 = NDArray[np.uint64]
START = 1024  # rows before the table first grows


class PairRows(NamedTuple):
    """The table. How many rows are used is the kernel's to count."""

    slots: NDArray[np.int32]
    rows: U64


def empty_rows(columns: int) -> PairRows:
    """An empty table."""
    return PairRows(np.full(2 * START, -1, np.int32), np.zeros((START, columns), np.uint64))


@compiled
def find_slot(slots: NDArray[np.int32], rows: U64, a: np.uint64, b: np.uint64) -> int:
    """The slot of a key pair: where its row number stands, or the free one where it belongs."""
    mixed = (a ^ (b << np.uint64(32) | b >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    last = slots.size - 1
    slot = np.int64(mixed >> np.uint64(32)) & last
    row = slots[slot]
    while row >= 0 and (rows[row, 0] != a or rows[row, 1] != b):
        slot = (slot + 1) & last
        row = slots[slot]
    return int(slot)


@compiled
def grown(table: PairRows, used: int, more: int) -> PairRows:
    """The same table with room for more rows: as it is, or at least twice as large."""
    room = table.rows.shape[0]
    if used + more <= room:
        return table
    while room < used + more:
        room *= 2
    rows = np.zeros((room, table.rows.shape[1]), np.uint64)
    rows[:used] = table.rows[:used]
    slots = np.full(2 * room, -1, np.int32)
    for row in range(used):
        slots[find_slot(slots, rows, rows[row, 0], rows[row, 1])] = row
    return PairRows(slots, rows)
