"""The region graph of one block: its fragments, and the affinity statistics of every pair of fragments that touch.

1. Nodes are the fragments with a voxel in the block: their volume inside it and the internal faces they reach.
2. Every voxel edge of the three nearest channels that is stored in the block and has its two ends in different
   fragments adds its affinity, an integer of 0 .. 65535, to the row of that pair, whatever its code: edges at or
   below the watershed's low threshold count too. Edges to the background do not. Rows have the sum, the count, the
   largest affinity, the tie and, on request, the histogram.
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
from pipeline.ops.histograms import Histograms, add_up
from pipeline.ops.pair_rows import PairRows, empty_rows, find_slot, grown
from pipeline.ops.thresholds import FULL_SCALE

U64 = NDArray[np.uint64]
A, B, SUM, COUNT, TIE, MAX = range(6)
NAME, _ZERO, VOLUME, MASK = range(4)
SPAN = 16  # voxels that are compared at once


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


class _Found(NamedTuple):
    """Rows of pairs, and of (row of a pair, bin) if histograms are wanted; how many rows of each are used."""

    pairs: PairRows
    used: int
    bins: PairRows
    bins_used: int


class _Codes(NamedTuple):
    """Affinities, and what integers their codes stand for; an empty table for affinities of 0 to 1."""

    codes_CZYX: NDArray[Any]
    decoded: NDArray[np.int64]
    origin: Index
    layer_shape: Index


def contacts(
    labels_ZYX: U64,
    codes_CZYX: NDArray[Any],
    before: Mapping[str, faces.Slab],
    *,
    code_table: NDArray[np.integer] | None,
    place: Place,
    histograms: bool = False,
) -> dict[str, Edges]:
    """The sections `inner`, `low_z`, `low_y`, `low_x`; `before` has the neighbours' labels across each low face.

    Codes are uint8 or uint16, or float32 affinities of 0 to 1 without a table.
    """
    decoded = np.empty(0, np.int64) if code_table is None else np.ascontiguousarray(code_table, dtype=np.int64)
    labels_ZYX, codes_CZYX = np.ascontiguousarray(labels_ZYX), np.ascontiguousarray(codes_CZYX[:3])
    codes = _Codes(codes_CZYX, decoded, *place)
    sections = {"inner": _edges(_add_inner(_nothing(), labels_ZYX, codes, histograms), histograms)}
    for axis, side in enumerate(faces.LOW):
        found = _nothing()
        if side in before:
            values = np.ascontiguousarray(np.take(codes_CZYX[axis], 0, axis=axis))
            face = (faces.slab(labels_ZYX, side), np.ascontiguousarray(before[side]), values)
            found = _add_face(found, face, codes, axis, histograms)
        sections[side] = _edges(found, histograms)
    return sections


def _nothing() -> _Found:
    return _Found(empty_rows(6), 0, empty_rows(3), 0)


def _edges(found: _Found, histograms: bool) -> Edges:
    rows = found.pairs.rows[: found.used]
    order = np.lexsort((rows[:, B], rows[:, A]))
    bins = None
    if histograms:
        place = np.empty(order.size, np.int64)
        place[order] = np.arange(order.size)
        items = found.bins.rows[: found.bins_used].astype(np.int64)
        bins = add_up([(Histograms(items[:, 0], items[:, 1].astype(np.uint8), items[:, 2]), place)])
    return Edges(
        rows[order, A],
        rows[order, B],
        rows[order, SUM].astype(np.int64),
        rows[order, COUNT].astype(np.int64),
        rows[order, TIE],
        rows[order, MAX].astype(np.uint16),
        bins,
    )


def nodes(labels_ZYX: U64, internal: int) -> Nodes:
    """The fragments in a block."""
    table, used = _count_labels(empty_rows(4), np.ascontiguousarray(labels_ZYX), internal)
    rows = table.rows[:used]
    rows = rows[np.argsort(rows[:, NAME])]
    return Nodes(rows[:, NAME].copy(), rows[:, VOLUME].astype(np.int64), rows[:, MASK].astype(np.uint8))


def lasting(name: U64, fragment: U64, until: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Of every node, the level from which on it is complete: the largest that its pieces state."""
    found = np.zeros(name.size, np.uint8)
    known = np.isin(fragment, name)
    np.maximum.at(found, np.searchsorted(name, fragment[known]), until[known].astype(np.uint8))
    return found


@compiled
def _add_inner(found: _Found, labels_ZYX: U64, codes: _Codes, histograms: bool) -> _Found:
    """Add the edges between voxels of the block: all three channels in one pass."""
    depth, height, width = labels_ZYX.shape
    codes_CZYX, decoded, origin, layer_shape = codes
    pairs, used, bins, bins_used = found
    places = np.empty(width, np.int64)
    for z in range(depth):
        for y in range(height):
            own = labels_ZYX[z, y]
            line = ((origin[0] + z) * layer_shape[1] + origin[1] + y) * layer_shape[2] + origin[2]
            for channel in range(3):
                if (channel == 0 and z == 0) or (channel == 1 and y == 0):
                    continue
                first = 1 if channel == 2 else 0
                other = own[: width - 1]
                if channel == 0:
                    other = labels_ZYX[z - 1, y]
                elif channel == 1:
                    other = labels_ZYX[z, y - 1]
                values, tie = codes_CZYX[channel, z, y], channel << CHANNEL_SHIFT | line + first
                line_of = (own[first:], other, values[first:])
                pairs, used, bins, bins_used = _add_line(
                    _Found(pairs, used, bins, bins_used), line_of, decoded, (tie, 1), places, histograms
                )
    return _Found(pairs, used, bins, bins_used)


@compiled
def _add_face(found: _Found, face: tuple[U64, U64, Any], codes: _Codes, axis: int, histograms: bool) -> _Found:
    """Add the edges across the low face of an axis: labels on its two sides, affinities."""
    own, other, values = face
    _, height, width = codes.layer_shape
    between = width if axis == 0 else height * width  # lines of the face
    step = width if axis == 2 else 1
    tie = (codes.origin[0] * height + codes.origin[1]) * width + codes.origin[2]
    places = np.empty(own.shape[1], np.int64)
    for i in range(own.shape[0]):
        ties = (axis << CHANNEL_SHIFT | (tie + i * between), step)
        found = _add_line(found, (own[i], other[i], values[i]), codes.decoded, ties, places, histograms)
    return found


@compiled
def _add_line(
    found: _Found,
    line: tuple[U64, U64, Any],
    decoded: NDArray[np.int64],
    ties: tuple[int, int],
    places: NDArray[np.int64],
    histograms: bool,
) -> _Found:
    """Add the edges between two lines of voxels; the first has a tie, the next ones a step more each.

    Arrays are taken out of their tuples and room is made before the loops: both would cost more than an edge does.
    """
    own, other, _ = line
    number = _contacts_of(own, other, places)
    pairs, used, bins, bins_used = found
    if number == 0:
        return found
    pairs = grown(pairs, used, number)
    used = _add_contacts(pairs.slots, pairs.rows, used, line, decoded, ties, places[:number])
    if histograms:
        bins = grown(bins, bins_used, number)
        bins_used = _count_bins(pairs, bins, bins_used, line, decoded, places[:number])
    return _Found(pairs, used, bins, bins_used)


@compiled
def _contacts_of(own: U64, other: U64, places: NDArray[np.int64]) -> int:
    """Where two lines differ and neither is background; how many places there are."""
    number = 0
    for begin in range(0, own.size, SPAN):
        end = min(begin + SPAN, own.size)
        if _equal(own[begin:end], other[begin:end]):
            continue
        for x in range(begin, end):  # without a branch: contacts come irregularly
            places[number] = x
            number += (own[x] != other[x]) & (own[x] != 0) & (other[x] != 0)
    return number


@compiled
def _add_contacts(
    slots: NDArray[np.int32],
    rows: U64,
    used: int,
    line: tuple[U64, U64, Any],
    decoded: NDArray[np.int64],
    ties: tuple[int, int],
    places: NDArray[np.int64],
) -> int:
    """Add the edges at some places of a line to their pairs' rows, for which there is room; how many are used."""
    own, other, values = line
    tie, step = ties
    last_a, last_b, row = np.uint64(0), np.uint64(0), 0
    for x in places:
        a, b = min(own[x], other[x]), max(own[x], other[x])
        if a != last_a or b != last_b:  # contacts come in runs
            last_a, last_b = a, b
            slot = find_slot(slots, rows, a, b)
            row = slots[slot]
            if row < 0:
                row = slots[slot] = used
                rows[row, A], rows[row, B] = a, b
                used += 1
        affinity = _integer(values[x], decoded)
        rows[row, SUM] += affinity
        rows[row, COUNT] += np.uint64(1)
        rows[row, TIE] = max(rows[row, TIE], np.uint64(tie + x * step))
        rows[row, MAX] = max(rows[row, MAX], affinity)
    return used


@compiled
def _count_bins(
    pairs: PairRows,
    bins: PairRows,
    used: int,
    line: tuple[U64, U64, Any],
    decoded: NDArray[np.int64],
    places: NDArray[np.int64],
) -> int:
    """Count the affinities at some places of a line, by row of their pair and bin."""
    own, other, values = line
    slots, rows = pairs
    bin_slots, bin_rows = bins
    for x in places:
        a, b = min(own[x], other[x]), max(own[x], other[x])
        row = np.uint64(slots[find_slot(slots, rows, a, b)])
        value = _integer(values[x], decoded) >> np.uint64(8)
        slot = find_slot(bin_slots, bin_rows, row, value)
        item = bin_slots[slot]
        if item < 0:
            item = bin_slots[slot] = used
            bin_rows[item, 0], bin_rows[item, 1] = row, value
            used += 1
        bin_rows[item, 2] += np.uint64(1)
    return used


@compiled
def _equal(own: U64, other: U64) -> bool:
    """Whether two short lines are the same; without a branch, so that it takes a few instructions."""
    differ = np.uint64(0)
    for x in range(own.size):
        differ |= own[x] ^ other[x]
    return bool(differ == 0)


@compiled
def _integer(code: Any, decoded: NDArray[np.int64]) -> np.uint64:
    """The affinity behind a code; a number of 0 to 1, not a number being 0, is rounded."""
    if decoded.size:
        return np.uint64(decoded[int(code)])
    if code > 0:
        return np.uint64(min(float(code), 1.0) * FULL_SCALE + 0.5)
    return np.uint64(0)


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
                    table = grown(table, used, 1)
                    slot = find_slot(table.slots, table.rows, label, np.uint64(0))
                    if table.slots[slot] < 0:
                        table.slots[slot] = used
                        table.rows[used, 0] = label
                        used += 1
                    row = table.slots[slot]
                bits = (zy_bits | (x == 0) << 4 | (x == width - 1) << 5) & internal
                table.rows[row, VOLUME] += np.uint64(1)
                table.rows[row, MASK] |= np.uint64(bits)
    return table, used
