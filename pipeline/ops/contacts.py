"""The contacts of one block: where two fragments touch, one row for every connected place.

An edge (c, p) joins voxel p with the voxel before it along axis c. It belongs to the block of p.

1. Every edge whose two ends carry different fragments s and t, neither of them background, puts its voxel p into the
   voxel set of the pair (s, t), whatever its code. A voxel is in the sets of at most three pairs.
2. Contacts are the 26-connected components of a pair's voxel set. A row counts the edges along every axis, adds up
   decoded affinities and positions (once for every edge), counts voxels and keeps their box. Where segments have been
   grown into background, edges with an end there are counted once more, and add no affinity.
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
from pipeline.ops.contact_join import Joined, Part, reaches, settle
from pipeline.ops.contact_table import CHANNEL_BITS, SUMS, Adjacency, ContactRows
from pipeline.ops.pair_list import PairList, empty_list, note, with_room
from pipeline.ops.region_graph import Place
from pipeline.ops.union_find import find

U64 = NDArray[np.uint64]
Codes = NDArray[np.uint8] | NDArray[np.uint16]

A, B, NAME, EDGES, TOTAL, POSITION, VOXELS, GROWN, BEGIN, END = 0, 1, 2, 3, 6, 7, 10, 11, 12, 15
COLUMNS = 18
ROWS, SHELL = 0, 1  # what is counted
SLOTS = 4  # a voxel has at most 3 contacts; the list ends with -1
TAG_SHIFT = 32  # a slot holds a hash of the pair above the provisional contact's number
NUMBER = (1 << TAG_SHIFT) - 1
PAIRS_PER_ENTRY = 39 + 2
IN_PLANE_BEFORE = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9])  # which of the 13 steps lead to the plane before
ABOVE_Z, ABOVE_Y, ABOVE_X = 9, 11, 12  # which of the 13 steps lead to the voxels before one along an axis


class _Block(NamedTuple):
    """What the scan reads."""

    labels_ZYX: U64
    before: tuple[U64, U64, U64]
    codes_CZYX: Codes
    decoded: NDArray[np.int64]
    origin: Index
    layer_shape: Index
    internal: int
    grown_ZYX: NDArray[np.uint8]  # a bit for every channel whose edge has an end that was background; maybe empty


class _Found(NamedTuple):
    """What the scan collects: provisional contacts, the forest that joins them, adjacent ones, voxels on the shell."""

    rows: U64
    parent: NDArray[np.int64]
    shell: U64
    adjacent: PairList
    used: NDArray[np.int64]
    seen: NDArray[np.int64]


def contacts(
    labels_ZYX: U64,
    codes_CZYX: Codes,
    before: Mapping[str, faces.Slab],
    *,
    code_table: NDArray[np.integer],
    place: Place,
    internal: int,
    grown_ZYX: NDArray[np.uint8] | None = None,
) -> Joined:
    """All contacts of a block; `before` has the neighbours' labels across each low face, `grown_ZYX` what
    `grow.Grown` says of edges."""
    grown_ZYX = np.empty((0, 0, 0), np.uint8) if grown_ZYX is None else grown_ZYX
    slabs = [
        np.ascontiguousarray(before.get(side, np.zeros(faces.slab_shape(labels_ZYX.shape, side), np.uint64)))
        for side in faces.LOW
    ]
    decoded = np.ascontiguousarray(code_table, dtype=np.int64)
    block = _Block(labels_ZYX, (slabs[0], slabs[1], slabs[2]), codes_CZYX, decoded, *place, internal, grown_ZYX)
    rows, index, adjacent, shell = _scan(block)
    found = _contacts(rows, np.array(place.origin))
    box = Box.of_shape(labels_ZYX.shape).shift(place.origin)
    is_open = reaches(found, box, internal)
    first, second = _once(index[adjacent])
    waits = is_open[first] | is_open[second]
    waiting, final = (Adjacency(found.name[first[rows]], found.name[second[rows]]) for rows in (waits, ~waits))
    part = Part(box, found, shell[:, 0].copy(), index[shell[:, 1].astype(np.int64)], waiting)
    return settle(part, is_open, final)


def _contacts(rows: U64, origin: NDArray[np.int64]) -> ContactRows:
    """Rows as columns, with places counted from the layer's origin."""
    numbers = rows.astype(np.int64)
    sums = numbers[:, EDGES : EDGES + len(SUMS)]
    sums[:, POSITION - EDGES : POSITION - EDGES + 3] += sums[:, :3].sum(axis=1)[:, None] * origin
    name, a, b = (rows[:, column].copy() for column in (NAME, A, B))
    return ContactRows(name, a, b, sums, numbers[:, BEGIN:END] + origin, numbers[:, END:] + origin)


def _once(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unordered pairs of row numbers, each once, as two columns."""
    keys = np.sort(pairs.min(axis=1) << 32 | pairs.max(axis=1)) if pairs.size else np.empty(0, np.int64)
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if keys.size else keys
    return keys >> 32, keys & NUMBER


@compiled
def _scan(block: _Block) -> tuple[U64, NDArray[np.int64], NDArray[np.int64], U64]:
    """Contacts, which of them each provisional one is part of, pairs of provisional ones, shell."""
    depth, height, width = block.labels_ZYX.shape
    near = np.full((2 * (height + 2) * (width + 2), SLOTS), -1, np.int64)
    found = _Found(
        np.zeros((0, COLUMNS), np.uint64),
        np.zeros(0, np.int64),
        np.zeros((0, 2), np.uint64),
        empty_list(),
        np.zeros(2, np.int64),
        np.zeros(PAIRS_PER_ENTRY, np.int64),
    )
    plane, line = (height + 2) * (width + 2), width + 2
    for z in range(depth):
        past = plane - 2 * (z & 1) * plane
        steps = np.array(
            [line - 1, line, line + 1, 1, 1 - line, 1 - line, -line - 1, -line, -1, 0, -line - 1, -line, -1]
        )
        steps[IN_PLANE_BEFORE] += past
        for y in range(height):
            found = _with_room(found, 3 * width)
            _scan_row(block, found, near, steps, z, y)
    rows, index = _settle(found)
    adjacent = found.adjacent.pairs[: found.adjacent.used[0]].copy()
    return rows, index, adjacent, found.shell[: found.used[SHELL]].copy()


@compiled
def _with_room(found: _Found, entries: int) -> _Found:
    """The same with room for more entries."""
    rows, parent, shell, adjacent, used, seen = found
    if used[ROWS] + entries > parent.size:
        count = 2 * (used[ROWS] + entries)
        rows, parent = np.zeros((count, COLUMNS), np.uint64), np.zeros(count, np.int64)
        rows[: used[ROWS]] = found.rows[: used[ROWS]]
        parent[: used[ROWS]] = found.parent[: used[ROWS]]
    if used[SHELL] + entries > shell.shape[0]:
        shell = np.zeros((2 * (used[SHELL] + entries), 2), np.uint64)
        shell[: used[SHELL]] = found.shell[: used[SHELL]]
    return _Found(rows, parent, shell, with_room(adjacent, PAIRS_PER_ENTRY * entries), used, seen)


@compiled
def _scan_row(block: _Block, found: _Found, near: NDArray[np.int64], steps: NDArray[np.int64], z: int, y: int) -> None:
    """The entries of a row of voxels."""
    depth, height, width = block.labels_ZYX.shape
    rows = found.rows
    own = block.labels_ZYX[z, y]
    row_z, row_y = block.before[0][y], block.before[1][z]
    if z > 0:
        row_z = block.labels_ZYX[z - 1, y]
    if y > 0:
        row_y = block.labels_ZYX[z, y - 1]
    last = block.before[2][z, y]
    rim = block.internal & ((z == 0) | (z == depth - 1) << 1 | (y == 0) << 2 | (y == height - 1) << 3)
    here = ((z & 1) * (height + 2) + y + 1) * (width + 2)
    others = np.zeros(3, np.uint64)
    for x in range(width):
        here += 1
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
                near[here, slot] = entry = _entry(found, near, here, steps, slot, min(label, other), max(label, other))
                slot += 1
                contact = entry & NUMBER
                _add_edges(block, rows, contact, others, axis, (z, y, x))
                _add_voxel(rows, contact, (z, y, x))
                if rows[contact, VOXELS] == 1:
                    _begin(rows[contact], block.origin, block.layer_shape, axis, (z, y, x))
                if rim | (block.internal & ((x == 0) << 4 | (x == width - 1) << 5)):
                    _add_to_shell(found, contact, block.origin, (z, y, x))
        near[here, slot] = -1


@compiled
def _entry(
    found: _Found,
    near: NDArray[np.int64],
    here: int,
    steps: NDArray[np.int64],
    slot: int,
    a: np.uint64,
    b: np.uint64,
) -> int:
    """What stands for a pair at a voxel: its provisional contact, joined to and noted with those before it."""
    tag = int(((a ^ (b << np.uint64(32) | b >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(34))
    rows, parent, seen = found.rows, found.parent, found.seen
    entry = _match(near, here + steps[ABOVE_Z], tag, rows, a, b)
    if entry >= 0:
        return entry
    first, stop = 0, 3  # the steps that the voxel before along y leaves out
    entry = _match(near, here + steps[ABOVE_Y], tag, rows, a, b)
    if entry < 0:
        first, stop = 2, 6
        entry = _match(near, here + steps[ABOVE_X], tag, rows, a, b)
    if entry < 0:
        first, stop = 0, 13
    count = _gather(near, here, steps, first, stop, seen)
    if entry < 0:
        for earlier in range(slot):
            seen[count] = near[here, earlier]
            count += 1
    contact = _connect(rows, parent, seen, count, entry, tag, a, b)
    if contact < 0:
        contact = _new(found, a, b)
    for i in range(count):
        if seen[i] >= 0:
            note(found.adjacent, contact, seen[i] & NUMBER)
    return int(tag << TAG_SHIFT | contact)


@compiled
def _match(near: NDArray[np.int64], voxel: int, tag: int, rows: U64, a: np.uint64, b: np.uint64) -> int:
    """What stands for a pair at a voxel, or -1."""
    for slot in range(3):
        entry = near[voxel, slot]
        if entry < 0:
            return -1
        if entry >> TAG_SHIFT == tag and rows[entry & NUMBER, A] == a and rows[entry & NUMBER, B] == b:
            return int(entry)
    return -1


@compiled
def _gather(
    near: NDArray[np.int64], here: int, steps: NDArray[np.int64], first: int, stop: int, seen: NDArray[np.int64]
) -> int:
    """What stands at some of the voxels before one: written to `seen`, runs once."""
    count, last = 0, np.int64(-1)
    for step in range(first, stop):
        for slot in range(3):
            entry = near[here + steps[step], slot]
            if entry < 0:
                break
            if entry != last:
                seen[count] = last = entry
                count += 1
    return count


@compiled
def _connect(
    rows: U64,
    parent: NDArray[np.int64],
    seen: NDArray[np.int64],
    count: int,
    entry: int,
    tag: int,
    a: np.uint64,
    b: np.uint64,
) -> int:
    """Join what was seen of the same pair, and take it off the list; -1 if there is nothing of it yet."""
    contact = np.int64(-1)
    if entry >= 0:
        contact = np.int64(entry & NUMBER)
    for i in range(count):
        other = seen[i] & NUMBER
        if seen[i] >> TAG_SHIFT == tag and rows[other, A] == a and rows[other, B] == b:
            seen[i] = -1
            if contact < 0:
                contact = other
            elif contact != other:
                one, two = find(parent, int(contact)), find(parent, int(other))
                parent[max(one, two)] = min(one, two)
    return int(contact)


@compiled
def _new(found: _Found, a: np.uint64, b: np.uint64) -> int:
    contact = found.used[ROWS]
    found.used[ROWS] += 1
    found.rows[contact, A], found.rows[contact, B] = a, b
    found.parent[contact] = contact
    return int(contact)


@compiled
def _add_edges(block: _Block, rows: U64, contact: int, others: U64, axis: int, at: Index) -> None:
    """Add the edges of a voxel whose other end is the same fragment as along `axis`. Places are the block's own."""
    z, y, x = at
    edges, grown, total, bits = 0, 0, np.int64(0), 0
    if block.grown_ZYX.size:
        bits = block.grown_ZYX[z, y, x]
    for channel in range(axis, 3):
        if others[channel] == others[axis]:
            rows[contact, EDGES + channel] += np.uint64(1)
            edges += 1
            if bits >> channel & 1:
                grown += 1
            else:
                total += block.decoded[block.codes_CZYX[channel, z, y, x]]
    rows[contact, TOTAL] += np.uint64(total)
    rows[contact, GROWN] += np.uint64(grown)
    rows[contact, POSITION] += np.uint64(edges * z)
    rows[contact, POSITION + 1] += np.uint64(edges * y)
    rows[contact, POSITION + 2] += np.uint64(edges * x)


@compiled
def _add_voxel(rows: U64, contact: int, at: Index) -> None:
    """Count a voxel and let the box hold it: voxels come in order of z."""
    _, y, x = at
    rows[contact, VOXELS] += np.uint64(1)
    rows[contact, BEGIN + 1] = min(rows[contact, BEGIN + 1], np.uint64(y))
    rows[contact, BEGIN + 2] = min(rows[contact, BEGIN + 2], np.uint64(x))
    rows[contact, END] = np.uint64(at[0] + 1)
    rows[contact, END + 1] = max(rows[contact, END + 1], np.uint64(y + 1))
    rows[contact, END + 2] = max(rows[contact, END + 2], np.uint64(x + 1))


@compiled
def _begin(row: U64, origin: Index, layer_shape: Index, axis: int, at: Index) -> None:
    """The first voxel of a provisional contact: its box begins there, and it gives the name."""
    z, y, x = at
    line = (z + origin[0]) * layer_shape[1] + y + origin[1]
    row[NAME] = np.uint64((line * layer_shape[2] + x + origin[2]) << CHANNEL_BITS | axis)
    row[BEGIN], row[BEGIN + 1], row[BEGIN + 2] = z, y, x


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
