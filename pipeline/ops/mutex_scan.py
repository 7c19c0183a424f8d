"""Voxel edges of the mutex watershed: which exist, how strong they are, and the rows that they make between labels.

1. Edge (c, p) joins voxel p with p + offset c; its code is stored at p. The first channels are attractive, their
   first three the nearest neighbours before p; the others are repulsive, and exist only where the layer coordinates
   of p are multiples of the strides.
2. The strength of an attractive edge is its decoded code t, that of a repulsive one 65535 - t. For float32 affinities a
   they are the bit patterns of a and of 1 - a, after NaN and negatives became 0 and what exceeds 1 became 1. An
   attractive edge of strength 0 does not exist; a repulsive one decides nothing.
3. A voxel is foreground iff one of its six nearest edges has a code above the low code. Edges to background, and edges
   that leave the region of interest, do not exist.

A block sees the codes in its box grown by the longest offset along every axis, and one voxel more on the high side,
where the last nearest edges of its neighbours are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.mutex_rows import ATTRACTIVE, REPULSIVE, Rows
from pipeline.ops.pair_rows import PairRows, empty_rows, find_slot, grown

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
Codes = NDArray[Any]  # uint8, uint16, or uint32: strengths

Rule = tuple[int, int, int, int]  # attractive channels, strides
Span = tuple[Index, Index]
Scene = tuple[Codes, U32, I64, Rule, Span, tuple[Index, Index]]  # codes, strengths, offsets, .., origin and layer

LARGEST = 65535  # decoded code
NO_TIE = np.uint64(2**64 - 1)
COLUMNS = 6  # of pair rows: two names, strength and tie of the strongest attractive and repulsive edge


@dataclass(frozen=True)
class Edges:
    """Offsets of the channels, how many of them attract, and where repulsive edges exist."""

    offsets: tuple[Index, ...]
    attractive: int
    strides: Index = (1, 1, 1)

    @cached_property
    def reach(self) -> Index:
        """The longest offset along every axis."""
        z, y, x = (max(abs(offset[axis]) for offset in self.offsets) for axis in range(3))
        return (z, y, x)

    def seen(self, box: Box, roi: Box) -> Box:
        """The box of codes that decide about all edges of a box."""
        z, y, x = self.reach
        return box.grow(self.reach, (z + 1, y + 1, x + 1)).clip(roi)

    @cached_property
    def table(self) -> I64:
        """The offsets, as an array."""
        return np.array(self.offsets, np.int64).reshape(-1, 3)


@dataclass(frozen=True)
class Strengths:
    """Codes with their meaning: two rows of strengths by code, attractive and repulsive; no columns for codes that
    are the strengths themselves."""

    codes_CZYX: Codes
    table: U32
    low: int

    @classmethod
    def of_codes(cls, codes_CZYX: Codes, code_table: NDArray[np.integer], low: int) -> Strengths:
        """Integer codes."""
        attractive = code_table.astype(np.int64)
        table = np.stack([attractive, LARGEST - attractive]).astype(np.uint32)
        return cls(np.ascontiguousarray(codes_CZYX), table, low)

    @classmethod
    def of_floats(cls, affinities_CZYX: NDArray[np.float32], attractive: int, low: float) -> Strengths:
        """Affinities in [0, 1]; NaN counts as 0."""
        values = np.clip(np.nan_to_num(affinities_CZYX, nan=0.0), np.float32(0), np.float32(1)) + np.float32(0)
        values[attractive:] = np.float32(1) - values[attractive:]
        bits = int(np.array(low, np.float32).view(np.uint32))
        return cls(np.ascontiguousarray(values, np.float32).view(np.uint32), np.zeros((2, 0), np.uint32), bits)


def voxel_names(strengths: Strengths, seen: Box, known: Box, roi: Box) -> U64:
    """The ids of foreground voxels of a box; 0 for background and where not all is known: outside `known`."""
    z, y, x = (begin == edge for begin, edge in zip(seen.begin, roi.begin, strict=True))
    names_ZYX = _voxel_names(strengths.codes_CZYX, strengths.low, seen.begin, (z, y, x))
    end = known.slices(seen.begin)
    for axis in range(3):
        names_ZYX[(slice(None),) * axis + (slice(end[axis].stop, None),)] = 0
    return names_ZYX


@compiled
def _voxel_names(codes_CZYX: Codes, low: int, origin: Index, border: tuple[bool, bool, bool]) -> U64:
    """`border`: along which axes the array begins at the border of the region of interest."""
    _, depth, height, width = codes_CZYX.shape
    names_ZYX = np.zeros((depth, height, width), np.uint64)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                found = codes_CZYX[0, z, y, x] > low and not (z == 0 and border[0])
                found |= codes_CZYX[1, z, y, x] > low and not (y == 0 and border[1])
                found |= codes_CZYX[2, z, y, x] > low and not (x == 0 and border[2])
                found |= z + 1 < depth and codes_CZYX[0, z + 1, y, x] > low
                found |= y + 1 < height and codes_CZYX[1, z, y + 1, x] > low
                found |= x + 1 < width and codes_CZYX[2, z, y, x + 1] > low
                if found:
                    names_ZYX[z, y, x] = 1 + ((z + origin[0]) << 42 | (y + origin[1]) << 21 | (x + origin[2]))
    return names_ZYX


@dataclass(frozen=True)
class Place:
    """A block inside the box that it sees, and the layer that gives voxel edges their number."""

    block: Box
    seen: Box
    layer: Index

    @property
    def span(self) -> tuple[Index, Index]:
        """The block in the array of the seen box."""
        moved = self.block.shift((-self.seen.begin[0], -self.seen.begin[1], -self.seen.begin[2]))
        return moved.begin, moved.end


INNER, LEAVING, CROSSING = 1, 2, 4  # which rows: inside the block; out of it to later voxels; out of it to any


def rows_between(labels_ZYX: U64, strengths: Strengths, edges: Edges, place: Place, which: int) -> Rows:
    """The strongest voxel edge of either kind for every pair of labels; own label first in rows out of the block."""
    rule = (edges.attractive, *edges.strides)
    scene = (strengths.codes_CZYX, strengths.table, edges.table, rule, place.span, (place.seen.begin, place.layer))
    found, count = _rows_between(empty_rows(COLUMNS), labels_ZYX, scene, which)
    rows = found[:count]
    parts = []
    for kind, column in ((ATTRACTIVE, 2), (REPULSIVE, 4)):
        some = rows[rows[:, column + 1] != NO_TIE]
        parts.append(
            (some[:, 0], some[:, 1], np.full(some.shape[0], kind, np.uint8), some[:, column], some[:, column + 1])
        )
    a, b, kind_, strength, tie = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Rows(a, b, kind_, strength.astype(np.uint32), tie)


@compiled
def strength_of(code: int, table: U32, repulsive: int) -> np.uint32:
    """The strength behind a code."""
    if table.shape[1] == 0:
        return np.uint32(code)
    return np.uint32(table[repulsive, code])


@compiled
def stands(z: int, y: int, x: int, rule: Rule) -> bool:
    """Whether a layer position is a multiple of the strides."""
    return z % rule[1] == 0 and y % rule[2] == 0 and x % rule[3] == 0


@compiled
def within(z: int, y: int, x: int, span: Span) -> bool:
    """Whether an array position lies in a box."""
    low, high = span
    return low[0] <= z < high[0] and low[1] <= y < high[1] and low[2] <= x < high[2]


@compiled
def _rows_between(pairs: PairRows, labels_ZYX: U64, scene: Scene, which: int) -> tuple[U64, int]:
    depth, height, width = labels_ZYX.shape
    codes_CZYX, table, offsets, rule, span, (origin, layer) = scene
    count = 0
    for channel in range(offsets.shape[0]):
        dz, dy, dx = offsets[channel]
        repulsive = 1 if channel >= rule[0] else 0
        later = dz > 0 or (dz == 0 and (dy > 0 or (dy == 0 and dx > 0)))
        for z in range(max(0, -dz), min(depth, depth - dz)):
            for y in range(max(0, -dy), min(height, height - dy)):
                for x in range(max(0, -dx), min(width, width - dx)):
                    a, b = labels_ZYX[z, y, x], labels_ZYX[z + dz, y + dy, x + dx]
                    if a == 0 or b == 0 or a == b:
                        continue
                    far_inside = within(z + dz, y + dy, x + dx, span)
                    if not _wanted(within(z, y, x, span), far_inside, later, which):
                        continue
                    if repulsive and not stands(z + origin[0], y + origin[1], x + origin[2], rule):
                        continue
                    strength = np.uint64(strength_of(codes_CZYX[channel, z, y, x], table, repulsive))
                    if strength == 0:
                        continue
                    here = ((z + origin[0]) * layer[1] + y + origin[1]) * layer[2] + x + origin[2]
                    tie = np.uint64(channel) << np.uint64(CHANNEL_SHIFT) | np.uint64(here)
                    if far_inside and (not within(z, y, x, span) or b < a):
                        a, b = b, a
                    pairs, count = _put(pairs, count, a, b, 2 + 2 * repulsive, strength, tie)
    return pairs.rows, count


@compiled
def _wanted(inside: bool, far_inside: bool, later: bool, which: int) -> bool:
    """Whether an edge makes a row; `later`: its far end is the later voxel."""
    if inside and far_inside:
        return which & INNER != 0
    if not inside and not far_inside:
        return False
    return which & CROSSING != 0 or (which & LEAVING != 0 and inside == later)


@compiled
def _put(
    pairs: PairRows, count: int, a: np.uint64, b: np.uint64, column: int, strength: np.uint64, tie: np.uint64
) -> tuple[PairRows, int]:
    """Count an edge in: the strongest stays, among equals the one with the smallest tie."""
    slot = find_slot(pairs.slots, pairs.rows, a, b)
    row = pairs.slots[slot]
    if row < 0:
        wider = grown(pairs, count, 1)
        if wider.rows.shape[0] != pairs.rows.shape[0]:
            pairs = wider
            slot = find_slot(pairs.slots, pairs.rows, a, b)
        row = count
        pairs.slots[slot] = row
        pairs.rows[row, 0], pairs.rows[row, 1] = a, b
        pairs.rows[row, 3] = pairs.rows[row, 5] = NO_TIE
        count += 1
    stored, stored_tie = pairs.rows[row, column], pairs.rows[row, column + 1]
    if stored_tie == NO_TIE or strength > stored or (strength == stored and tie < stored_tie):
        pairs.rows[row, column], pairs.rows[row, column + 1] = strength, tie
    return pairs, count
