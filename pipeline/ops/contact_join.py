"""From the contacts of blocks to those of the volume, over the hierarchy of blocks: exact, whatever the grid.

Going up, a block of level l joins what its up to eight children hand it:
1. Nodes are the children's contacts. The shell lists the voxels, with their contacts, on the children's internal faces.
2. Two shell voxels of different children that are 26-neighbours, across a face, an edge or a corner, make their
   contacts one if the pair of fragments is the same, and adjacent otherwise. Within a child both is known already.
   Shell voxels are walked in order; the voxels before one in a row of three are a run of the list, and the five runs
   only ever move on.
3. Joined contacts take the smallest name, add their sums and unite their boxes.
4. A contact whose box reaches no internal face is closed: it leaves as a row of the final table.
5. A pair of adjacent contacts leaves when both are closed, under their final names. Until then it goes up, and is
   renamed with its open contacts. So no table has to be renamed afterwards and there is no way down.
6. Shell voxels on the block's own internal faces go up.

The tables of all levels together hold every contact once and every adjacent pair once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.contact_table import Adjacency, ContactRows, fold, pairs_once, stack
from pipeline.ops.pair_list import PairList, empty_list, note, with_room
from pipeline.ops.relabel import rename
from pipeline.ops.union_find import find

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
ALL_FACES = 0b111111
BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))  # rows (z, y) that hold the voxels before one
PAIRS_PER_ENTRY = 3 * 13


@dataclass(frozen=True)
class Part:
    """What a block hands to its parent: contacts that may go on (by name), the voxels of its internal faces with the
    row of their contact, and adjacent pairs that wait for one of theirs."""

    box: Box
    contacts: ContactRows
    shell_voxel: U64
    shell_row: I64
    waiting: Adjacency


@dataclass(frozen=True)
class Joined:
    """A part, and the contacts and adjacent pairs that are final."""

    part: Part
    closed: ContactRows
    adjacency: Adjacency


def join(children: Sequence[Part], box: Box, *, internal: int) -> Joined:
    """One step up."""
    for child in children:
        _check(child)
    contacts = stack(child.contacts for child in children)
    starts = np.cumsum([0, *(child.contacts.size for child in children)])
    voxel = np.concatenate([np.empty(0, np.uint64), *(child.shell_voxel for child in children)])
    row = np.concatenate([np.empty(0, np.int64), *(c.shell_row + s for c, s in zip(children, starts, strict=False))])
    seams = [
        _on_faces(child.shell_voxel, child.box, ALL_FACES & ~faces.outer_bits(child.box, box)) for child in children
    ]
    seam = np.flatnonzero(np.concatenate([np.empty(0, bool), *seams]))
    seam = seam[np.argsort(voxel[seam])]
    owner = np.repeat(np.arange(len(children)), np.diff(starts))
    root, adjacent = _across_seams(
        (voxel[seam] - np.uint64(1)).view(np.int64), row[seam], owner, contacts.a, contacts.b
    )
    _, index = np.unique(root, return_inverse=True)
    joined = fold(contacts, index)
    by_name = np.argsort(contacts.name)
    old, new = contacts.name[by_name], joined.name[index[by_name]]
    pairs = [(contacts.name[adjacent[:, 0]], contacts.name[adjacent[:, 1]])]
    pairs += [(child.waiting.first, child.waiting.second) for child in children]
    waiting = pairs_once((rename(first, old, new), rename(second, old, new)) for first, second in pairs)
    outer = _on_faces(voxel, box, internal)
    is_open = reaches(joined, box, internal)
    growing = np.sort(joined.name[is_open])
    waits = _listed(growing, waiting.first) | _listed(growing, waiting.second)
    part = Part(box, joined, voxel[outer], index[row[outer]], waiting.take(waits))
    return settle(part, is_open, waiting.take(~waits))


def _check(part: Part) -> None:
    rows = part.shell_row
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < part.contacts.size:
        raise ChunkCorrupt(
            f"the shell of block {part.box} names a contact that its own table does not list",
            way_out="run `neurotile verify`, then `neurotile run` redoes the damaged blocks",
        )


def reaches(contacts: ContactRows, box: Box, internal: int) -> NDArray[np.bool_]:
    """Which contacts have a voxel on an internal face of a block: these are open."""
    is_open = np.zeros(contacts.size, bool)
    for axis in range(3):
        if internal >> (2 * axis) & 1:
            is_open |= contacts.begin[:, axis] == box.begin[axis]
        if internal >> (2 * axis + 1) & 1:
            is_open |= contacts.end[:, axis] == box.end[axis]
    return is_open


def settle(part: Part, is_open: NDArray[np.bool_], final: Adjacency) -> Joined:
    """Part closed contacts from a part whose adjacency has been parted already."""
    number = np.cumsum(is_open) - 1
    growing, closed = part.contacts.take(is_open), part.contacts.take(~is_open)
    upward = Part(part.box, growing, part.shell_voxel, number[part.shell_row], part.waiting)
    return Joined(upward, closed, final)


def _listed(names: U64, values: U64) -> NDArray[np.bool_]:
    """Which values stand in a sorted list of names."""
    if not names.size:
        return np.zeros(values.size, bool)
    return np.asarray(names[np.minimum(np.searchsorted(names, values), names.size - 1)] == values)


def _on_faces(voxel: U64, box: Box, bits: int) -> NDArray[np.bool_]:
    """Which voxels lie on those faces of a box whose bits are set."""
    place = (voxel - np.uint64(1)).view(np.int64)
    there = np.zeros(voxel.size, bool)
    for axis, shift in enumerate((42, 21, 0)):
        along = place >> shift & (1 << 21) - 1
        if bits >> (2 * axis) & 1:
            there |= along == box.begin[axis]
        if bits >> (2 * axis + 1) & 1:
            there |= along == box.end[axis] - 1
    return there


@compiled
def _across_seams(place: I64, row: I64, owner: I64, a: U64, b: U64) -> tuple[I64, I64]:
    """The root of every contact, and pairs of adjacent ones; `place` is ascending: z << 42 | y << 21 | x."""
    parent = np.arange(a.size)
    adjacent = empty_list()
    run = np.zeros(len(BEFORE), np.int64)
    for entry in range(place.size):
        adjacent = with_room(adjacent, PAIRS_PER_ENTRY)
        for number, (dz, dy) in enumerate(BEFORE):
            line = (place[entry] >> 21) + dz * (1 << 21) + dy
            first = place[entry] + dz * (1 << 42) + dy * (1 << 21) - 1
            while run[number] < entry and place[run[number]] < first:
                run[number] += 1
            other = run[number]
            while other < entry and place[other] <= first + 2:
                if place[other] >> 21 == line and owner[row[other]] != owner[row[entry]]:
                    _meet(parent, adjacent, (row[entry], row[other]), a, b)
                other += 1
    for item in range(parent.size):
        parent[item] = parent[parent[item]]  # roots come first: one step is enough
    return parent, adjacent.pairs[: adjacent.used[0]].copy()


@compiled
def _meet(parent: I64, adjacent: PairList, rows: tuple[int, int], a: U64, b: U64) -> None:
    """Join two contacts of one pair of fragments; note two of different pairs."""
    one, two = rows
    if a[one] == a[two] and b[one] == b[two]:
        one, two = find(parent, one), find(parent, two)
        parent[max(one, two)] = min(one, two)
    else:
        note(adjacent, one, two)
