"""The contacts of one block: where two fragments touch, one row for every connected place.

An edge (c, p) joins voxel p with the voxel before it along axis c. It belongs to the block of p.

1. Every edge whose two ends carry different fragments s and t, neither of them background, puts its voxel p into the
   voxel set of the pair (s, t), whatever its code. A voxel is in the sets of at most three pairs.
2. Contacts are the 26-connected components of a pair's voxel set. A row counts the edges along every axis, adds up
   decoded affinities and positions (once for every edge), counts voxels and keeps their box.
3. Two contacts of different pairs are adjacent if they have a voxel in common or two that are 26-neighbours. This is
   what decides whether they are one contact once their fragments merge. The pairs need not share a fragment: where four
   fragments meet along a line, (f, g) and (f', g') can be neighbours with no contact between them that shares one.
4. Voxels on the internal faces of the block are listed with their contact: beyond, a contact may go on, or have
   neighbours. ops/contact_join.py takes them up the hierarchy.

The voxels are scanned once, in order, with the contacts of the last two planes at hand. An entry (p, pair) has 13
voxels before it to be compared with. Most need not be looked at: if the same pair stands at the voxel before p along
z, that voxel's neighbourhood holds all 13, and both it and they have been compared with each other. If it stands before
p along y (x), only the 3 (4) voxels that this neighbourhood leaves out are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.contact_join import Part
from pipeline.ops.contact_table import CHANNEL_BITS, SUMS, Contacts, pairs_once
from pipeline.ops.pair_list import PairList, empty_list, note, with_room
from pipeline.ops.region_graph import Place
from pipeline.ops.union_find import find

U64 = NDArray[np.uint64]
Codes = NDArray[np.uint8] | NDArray[np.uint16]

A, B, NAME, EDGES, TOTAL, POSITION, VOXELS, BEGIN, END = 0, 1, 2, 3, 6, 7, 10, 11, 14
COLUMNS = 17
ROWS, SHELL = 0, 1  # what is counted
SLOTS = 4  # a voxel has at most 3 contacts; the list ends with -1
PAIRS_PER_ENTRY = 39 + 2


class _Block(NamedTuple):
    """What the scan reads."""

    labels_ZYX: U64
    before: tuple[U64, U64, U64]
    codes_CZYX: Codes
    decoded: NDArray[np.int64]
    origin: Index
    layer_shape: Index
    internal: int


class _Found(NamedTuple):
    """What the scan collects: provisional contacts, the forest that joins them, adjacent ones, voxels on the shell."""

    rows: U64
    parent: NDArray[np.int64]
    shell: U64
    adjacent: PairList
    used: NDArray[np.int64]


def contacts(
    labels_ZYX: U64,
    codes_CZYX: Codes,
    before: Mapping[str, faces.Slab],
    *,
    code_table: NDArray[np.integer],
    place: Place,
    internal: int,
) -> Part:
    """All contacts of a block; `before` has the neighbours' labels across each low face."""
    slabs = [
        np.ascontiguousarray(before.get(side, np.zeros(faces.slab_shape(labels_ZYX.shape, side), np.uint64)))
        for side in faces.LOW
    ]
    decoded = np.ascontiguousarray(code_table, dtype=np.int64)
    block = _Block(labels_ZYX, (slabs[0], slabs[1], slabs[2]), codes_CZYX, decoded, *place, internal)
    rows, index, pairs, shell = _scan(block)
    name = rows[:, NAME].copy()
    begin = rows[:, BEGIN:END].astype(np.int64)
    end = rows[:, END:].astype(np.int64)
    sums = rows[:, EDGES : EDGES + len(SUMS)].astype(np.int64)
    found = Contacts(name, rows[:, A].copy(), rows[:, B].copy(), sums, begin, end)
    adjacent = pairs_once([(name[index[pairs[:, 0]]], name[index[pairs[:, 1]]])])
    box = Box.of_shape(labels_ZYX.shape).shift(place.origin)
    return Part(box, found, shell[:, 0].copy(), index[shell[:, 1].astype(np.int64)], adjacent)


@compiled
def _scan(block: _Block) -> tuple[U64, NDArray[np.int64], NDArray[np.int64], U64]:
    """Contacts, which of them each provisional one is part of, pairs of provisional ones, shell."""
    depth, height, width = block.labels_ZYX.shape
    near = np.full((2 * (height + 2) * (width + 2), SLOTS), -1, np.int32)
    found = _Found(
        np.zeros((0, COLUMNS), np.uint64),
        np.zeros(0, np.int64),
        np.zeros((0, 2), np.uint64),
        empty_list(),
        np.zeros(2, np.int64),
    )
    for z in range(depth):
        for y in range(height):
            found = _with_room(found, 3 * width)
            _scan_row(block, found, near, z, y)
    rows, index = _settle(found)
    adjacent = found.adjacent.pairs[: found.adjacent.used[0]].copy()
    return rows, index, adjacent, found.shell[: found.used[SHELL]].copy()


@compiled
def _with_room(found: _Found, entries: int) -> _Found:
    """The same with room for more entries."""
    rows, parent, shell, adjacent, used = found
    if used[ROWS] + entries > parent.size:
        count = 2 * (used[ROWS] + entries)
        rows, parent = np.zeros((count, COLUMNS), np.uint64), np.zeros(count, np.int64)
        rows[: used[ROWS]] = found.rows[: used[ROWS]]
        parent[: used[ROWS]] = found.parent[: used[ROWS]]
    if used[SHELL] + entries > shell.shape[0]:
        shell = np.zeros((2 * (used[SHELL] + entries), 2), np.uint64)
        shell[: used[SHELL]] = found.shell[: used[SHELL]]
    return _Found(rows, parent, shell, with_room(adjacent, PAIRS_PER_ENTRY * entries), used)


@compiled
def _scan_row(block: _Block, found: _Found, near: NDArray[np.int32], z: int, y: int) -> None:
    """The entries of a row of voxels."""
    depth, height, width = block.labels_ZYX.shape
    own = block.labels_ZYX[z, y]
    row_z, row_y = block.before[0][y], block.before[1][z]
    if z > 0:
        row_z = block.labels_ZYX[z - 1, y]
    if y > 0:
        row_y = block.labels_ZYX[z, y - 1]
    last = block.before[2][z, y]
    rim = block.internal & ((z == 0) | (z == depth - 1) << 1 | (y == 0) << 2 | (y == height - 1) << 3)
    plane = (height + 2) * (width + 2)
    here = (z & 1) * plane + (y + 1) * (width + 2)
    past = here + plane - 2 * (z & 1) * plane
    others = np.zeros(3, np.uint64)
    for x in range(width):
        here, past = here + 1, past + 1
        label = own[x]
        others[0], others[1], others[2] = row_z[x], row_y[x], last
        last = label
        slot = 0
        if label != 0:
            for axis in range(3):
                other = others[axis]
                if other == label or other == 0:
                    continue
                if (axis > 0 and other == others[0]) or (axis == 2 and other == others[1]):
                    continue  # the same pair along an earlier axis
                contact = _contact_at(found, near, here, past, width + 2, slot, min(label, other), max(label, other))
                near[here, slot] = contact
                slot += 1
                _add(found, contact, block, others, axis, (z, y, x))
                if rim | (block.internal & ((x == 0) << 4 | (x == width - 1) << 5)):
                    _add_to_shell(found, contact, block.origin, (z, y, x))
        near[here, slot] = -1


@compiled
def _contact_at(
    found: _Found, near: NDArray[np.int32], here: int, past: int, line: int, slot: int, a: np.uint64, b: np.uint64
) -> int:
    """The provisional contact of a pair at a voxel, joined to and noted with those before it."""
    rows = found.rows
    contact = _match(rows, near, past, a, b)
    if contact >= 0:
        return contact
    contact = _match(rows, near, here - line, a, b)
    if contact >= 0:
        for step in range(line - 1, line + 2):
            _meet(found, near, past + step, contact)
        return contact
    contact = _match(rows, near, here - 1, a, b)
    if contact >= 0:
        _meet(found, near, here - line + 1, contact)
        for row in range(-1, 2):
            _meet(found, near, past + row * line + 1, contact)
        return contact
    for step in range(-line - 1, -line + 2):
        contact = max(contact, _match(rows, near, here + step, a, b))
    for row in range(-1, 2):
        for step in range(-1, 2):
            contact = max(contact, _match(rows, near, past + row * line + step, a, b))
    if contact < 0:
        contact = _new(found, a, b)
    _meet(found, near, here - 1, contact)
    for step in range(-line - 1, -line + 2):
        _meet(found, near, here + step, contact)
    for row in range(-1, 2):
        for step in range(-1, 2):
            _meet(found, near, past + row * line + step, contact)
    for earlier in range(slot):
        note(found.adjacent, contact, near[here, earlier])
    return contact


@compiled
def _match(rows: U64, near: NDArray[np.int32], voxel: int, a: np.uint64, b: np.uint64) -> int:
    """The provisional contact of a pair at a voxel, or -1."""
    for slot in range(3):
        contact = near[voxel, slot]
        if contact < 0:
            return -1
        if rows[contact, A] == a and rows[contact, B] == b:
            return np.int64(contact)
    return -1


@compiled
def _meet(found: _Found, near: NDArray[np.int32], voxel: int, contact: int) -> None:
    """Join a provisional contact with that of the same pair at a voxel, and note the others there."""
    rows, parent = found.rows, found.parent
    for slot in range(3):
        other = np.int64(near[voxel, slot])
        if other < 0:
            return
        if other == contact:
            continue
        if rows[other, A] == rows[contact, A] and rows[other, B] == rows[contact, B]:
            one, two = find(parent, contact), find(parent, other)
            parent[max(one, two)] = min(one, two)
        else:
            note(found.adjacent, contact, other)


@compiled
def _new(found: _Found, a: np.uint64, b: np.uint64) -> int:
    contact = found.used[ROWS]
    found.used[ROWS] += 1
    found.rows[contact, A], found.rows[contact, B] = a, b
    found.parent[contact] = contact
    return int(contact)


@compiled
def _add(found: _Found, contact: int, block: _Block, others: U64, axis: int, at: Index) -> None:
    """Add the edges of a voxel whose other end is the same fragment as along `axis`."""
    row = found.rows[contact]
    z, y, x = at[0] + block.origin[0], at[1] + block.origin[1], at[2] + block.origin[2]
    edges = np.uint64(0)
    for channel in range(axis, 3):
        if others[channel] == others[axis]:
            row[EDGES + channel] += np.uint64(1)
            row[TOTAL] += np.uint64(block.decoded[block.codes_CZYX[channel, at[0], at[1], at[2]]])
            edges += np.uint64(1)
    row[POSITION] += edges * np.uint64(z)
    row[POSITION + 1] += edges * np.uint64(y)
    row[POSITION + 2] += edges * np.uint64(x)
    if row[VOXELS] == 0:
        line = (z * block.layer_shape[1] + y) * block.layer_shape[2] + x
        row[NAME] = np.uint64(line << CHANNEL_BITS | axis)
        row[BEGIN], row[BEGIN + 1], row[BEGIN + 2] = z, y, x
    row[VOXELS] += np.uint64(1)
    row[BEGIN + 1] = min(row[BEGIN + 1], np.uint64(y))
    row[BEGIN + 2] = min(row[BEGIN + 2], np.uint64(x))
    row[END] = np.uint64(z + 1)
    row[END + 1] = max(row[END + 1], np.uint64(y + 1))
    row[END + 2] = max(row[END + 2], np.uint64(x + 1))


@compiled
def _add_to_shell(found: _Found, contact: int, origin: Index, at: Index) -> None:
    voxel = (at[0] + origin[0]) << 42 | (at[1] + origin[1]) << 21 | (at[2] + origin[2])
    last = found.used[SHELL]
    found.shell[last, 0], found.shell[last, 1] = np.uint64(voxel + 1), np.uint64(contact)
    found.used[SHELL] += 1


@compiled
def _settle(found: _Found) -> tuple[U64, NDArray[np.int64]]:
    """Fold provisional contacts into the first of each set, and number the contacts."""
    rows, parent = found.rows, found.parent
    index = np.zeros(found.used[ROWS], np.int64)
    count = 0
    for item in range(index.size):
        root = find(parent, item)
        if root == item:
            index[item] = count
            rows[count] = rows[item]
            count += 1
            continue
        index[item] = index[root]
        row, other = rows[index[root]], rows[item]
        for column in range(EDGES, BEGIN):
            row[column] += other[column]
        for column in range(BEGIN, END):
            row[column] = min(row[column], other[column])
        for column in range(END, COLUMNS):
            row[column] = max(row[column], other[column])
    return rows[:count].copy(), index
