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
def find_slot(table: PairRows, a: np.uint64, b: np.uint64) -> int:
    """The slot of a key pair: where its row number stands, or the free one where it belongs."""
    slots, rows = table
    mixed = (a ^ (b << np.uint64(32) | b >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    slot = np.int64((mixed >> np.uint64(32)) & np.uint64(slots.size - 1))
    while slots[slot] >= 0 and (rows[slots[slot], 0] != a or rows[slots[slot], 1] != b):
        slot = (slot + 1) & (slots.size - 1)
    return int(slot)


@compiled
def grown(table: PairRows, used: int) -> PairRows:
    """The same table with twice the room, if all its rows are used."""
    if used < table.rows.shape[0]:
        return table
    rows = np.zeros((2 * used, table.rows.shape[1]), np.uint64)
    rows[:used] = table.rows
    wider = PairRows(np.full(4 * used, -1, np.int32), rows)
    for row in range(used):
        wider.slots[find_slot(wider, rows[row, 0], rows[row, 1])] = row
    return wider
