"""Pairs of segments that touch: at how many places, and which is the best. Up the hierarchy; no voxel is looked at.

A place is a contact of two segments (ops/contact_merge.py): a component, over the stored adjacency, of the contacts of
their fragments. Only places of enough edges count. A pair's row says how many there are, and has the numbers of the
best one: that with the largest mean affinity; of equals with more edges; of equals with the smaller name. Means are of
edges that join two voxels which were not grown, and are compared as fractions.

A chunk of the hierarchy does this with what it knows:
1. A segment is open if it reaches an internal face of the chunk, if a fragment of it is not complete at this level
   (`until`), or if a contact of one of its fragments is open. All contacts of any other segment are stored below this
   chunk: an edge is stored by one of its two ends, and neither can lie outside.
2. So a pair is final if one of its segments is not open. Otherwise its row goes up, and adds up with others of it.
3. A place may go on beyond the chunk as long as a contact of it waits for an adjacent one that is open. It goes up as
   a row of its own, with the names of the contacts that wait. Any other place is counted into its pair's row.
4. What a fragment is called goes up as long as one of its contacts is open.

What goes up belongs to segments that go on: one row a pair, and the places on the chunk's surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.contact_table import SUMS, Adjacency, ContactRows, fold, stack
from pipeline.ops.relabel import index_of
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Rows = NDArray[np.integer] | NDArray[np.bool_]

PLACE = ("score_sum", "scored", "edges", "sum_z", "sum_y", "sum_x")  # of the best place; positions weighted by edges


@dataclass(frozen=True)
class PairRows:
    """One row a pair of segments, a < b: how many places count, the best one's name, and its numbers, PLACE."""

    a: U64
    b: U64
    places: I64
    name: U64
    best: I64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.a.size

    def take(self, rows: Rows) -> PairRows:
        """Some of the rows."""
        return PairRows(*(column[rows] for column in vars(self).values()))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        own = {"a": self.a, "b": self.b, "places": self.places, "name": self.name}
        return {**own, **{name: np.ascontiguousarray(self.best[:, i]) for i, name in enumerate(PLACE)}}

    @classmethod
    def of_columns(cls, table: dict[str, NDArray[np.generic]]) -> PairRows:
        """From a table."""
        a, b, name = (table[column].astype(np.uint64, copy=False) for column in ("a", "b", "name"))
        best = np.stack([table[column].astype(np.int64, copy=False) for column in PLACE], axis=1)
        return cls(a, b, table["places"].astype(np.int64, copy=False), name, best)


@dataclass(frozen=True)
class Reach:
    """Segments of a chunk: which internal faces they reach, and up to which level they are not complete."""

    segment: U64
    mask: NDArray[np.uint8]
    until: NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """What a chunk hands up."""

    box: Box
    fragment: U64  # ascending, of the fragments whose contacts may go on
    segment: U64  # and what they are called
    reach: Reach
    pairs: PairRows
    places: ContactRows  # places that may go on
    contact: U64  # ascending: contacts in them that wait for others
    place: U64  # and the names of their places


@dataclass(frozen=True)
class Stored:
    """What the contacts' own hierarchy has stored for a chunk: final rows, and what went up from it."""

    closed: ContactRows
    adjacency: Adjacency
    growing: ContactRows
    waiting: Adjacency


@dataclass(frozen=True)
class Counted:
    """A part, and the pairs that are final."""

    part: Part
    final: PairRows


def leaf(box: Box, names: tuple[U64, U64], reach: Reach) -> Part:
    """What a block of level 0 begins with: the names of all fragments that its contacts may mention, and who reaches
    its faces; names need not be sorted, nor differ."""
    none = np.empty(0, np.uint64)
    return Part(box, *_once(*names), _joined([(box, reach)], box), no_pairs(), stack([]), none, none)


def step(children: Sequence[Part], stored: Stored, box: Box, *, level: int, least_edges: int) -> Counted:
    """One step up; a block of level 0 is its own child."""
    fragment, segment = _once(
        np.concatenate([child.fragment for child in children]), np.concatenate([child.segment for child in children])
    )
    reach = _joined([(child.box, child.reach) for child in children], box)
    lasts = (reach.mask != 0) | (reach.until > level)
    ends = [_named(fragment, segment, side) for side in (stored.growing.a, stored.growing.b)]
    is_open = _open(reach.segment[lasts], ends)
    own = _between(stored.closed, *(_named(fragment, segment, side) for side in (stored.closed.a, stored.closed.b)))
    contact, place = (np.concatenate([getattr(child, key) for child in children]) for key in ("contact", "place"))
    order = np.argsort(contact)
    known = _Places(stack([*(child.places for child in children), own]), contact[order], place[order])
    joined, waits = known.joined(stored.adjacency, stored.waiting)
    final_pair = ~(np.isin(joined.a, is_open) & np.isin(joined.b, is_open))
    goes_up = ~final_pair & np.isin(joined.name, waits[1])
    counted = _counted(joined.take(~goes_up), least_edges)
    pairs = add([*(child.pairs for child in children), counted])
    final = ~(np.isin(pairs.a, is_open) & np.isin(pairs.b, is_open))
    places = joined.take(goes_up)
    kept = np.isin(waits[1], places.name)
    needed = np.isin(fragment, np.concatenate([stored.growing.a, stored.growing.b]))
    upward = Reach(reach.segment[lasts], reach.mask[lasts], reach.until[lasts])
    names = (fragment[needed], segment[needed])
    part = Part(box, *names, upward, pairs.take(~final), places, waits[0][kept], waits[1][kept])
    return Counted(part, pairs.take(final))


def _open(reaching: U64, ends: Sequence[U64]) -> U64:
    """The segments that may have contacts outside: they reach out, or contacts of theirs do."""
    return np.unique(np.concatenate([reaching, *ends]))


@dataclass(frozen=True)
class _Places:
    """Places so far, by the name of one of their contacts, and which contacts stand for which place."""

    rows: ContactRows
    contact: U64
    place: U64

    def joined(self, adjacency: Adjacency, waiting: Adjacency) -> tuple[ContactRows, tuple[U64, U64]]:
        """Places joined by more adjacent contacts; contacts in them that wait for others, and their places' names."""
        rows = self.rows.take(np.argsort(self.rows.name))
        first, second = (self._row(rows, side) for side in (adjacency.first, adjacency.second))
        known = (first >= 0) & (second >= 0)
        first, second = first[known], second[known]
        same = (rows.a[first] == rows.a[second]) & (rows.b[first] == rows.b[second])
        root = unite_pairs(rows.size, first[same], second[same])
        contact = np.unique(np.concatenate([waiting.first, waiting.second]))
        row = self._row(rows, contact)
        return fold(rows, root), (contact[row >= 0], rows.name[root[row[row >= 0]]])

    def _row(self, rows: ContactRows, contact: U64) -> I64:
        """The place of a contact as a row, -1 where it is none of a pair of segments."""
        row = _place(self.contact, contact)
        name = contact.copy()
        name[row >= 0] = self.place[row[row >= 0]]
        return _place(rows.name, name)


def _place(names: U64, values: U64) -> I64:
    """Where values stand in a sorted list of names, -1 where they do not."""
    if not names.size:
        return np.full(values.size, -1)
    row = np.minimum(np.searchsorted(names, values), names.size - 1)
    return np.where(names[row] == values, row, -1)


def _named(fragment: U64, segment: U64, values: U64) -> U64:
    return segment[index_of(fragment, values, what="a contact")]


def _once(fragment: U64, segment: U64) -> tuple[U64, U64]:
    names, first = np.unique(fragment, return_index=True)
    return names, segment[first]


def _between(contacts: ContactRows, one: U64, two: U64) -> ContactRows:
    """The contacts between different segments, under their names."""
    kept = one != two
    low, high = np.minimum(one, two)[kept], np.maximum(one, two)[kept]
    chosen = contacts.take(kept)
    return ContactRows(chosen.name, low, high, chosen.sums, chosen.begin, chosen.end)


def _joined(parts: Sequence[tuple[Box, Reach]], box: Box) -> Reach:
    """The reach of segments in a chunk, from that in its children."""
    segment, place = np.unique(np.concatenate([reach.segment for _, reach in parts]), return_inverse=True)
    mask, until = np.zeros(segment.size, np.uint8), np.zeros(segment.size, np.uint8)
    bits = [reach.mask & np.uint8(faces.outer_bits(child, box)) for child, reach in parts]
    np.bitwise_or.at(mask, place, np.concatenate(bits))
    np.maximum.at(until, place, np.concatenate([reach.until for _, reach in parts]))
    return Reach(segment, mask, until)


def no_pairs() -> PairRows:
    """A table without rows."""
    none = np.empty(0, np.uint64)
    return PairRows(none, none, np.empty(0, np.int64), none, np.empty((0, len(PLACE)), np.int64))


def _counted(places: ContactRows, least_edges: int) -> PairRows:
    """Every place that counts as a row of its pair."""
    column = {name: places.sums[:, number] for number, name in enumerate(SUMS)}
    edges = column["edges_z"] + column["edges_y"] + column["edges_x"]
    scored = edges - column["grown"]
    best = np.stack([column["sum"], scored, edges, *(column[f"sum_{axis}"] for axis in "zyx")], axis=1)
    rows = PairRows(places.a, places.b, np.ones(places.size, np.int64), places.name, best)
    return rows.take(edges >= least_edges)


def add(parts: Sequence[PairRows]) -> PairRows:
    """Rows of the same pair made one: places add up, the best stays; by (a, b)."""
    columns = zip(*(vars(part).values() for part in (no_pairs(), *parts)), strict=True)
    rows = PairRows(*(np.concatenate(column) for column in columns))
    rows = rows.take(np.lexsort((rows.name, rows.b, rows.a)))
    new = np.ones(rows.size, np.bool_)
    new[1:] = (rows.a[1:] != rows.a[:-1]) | (rows.b[1:] != rows.b[:-1])
    first = np.flatnonzero(new)
    if not first.size:
        return rows
    chosen = rows.take(_best(rows.best, first))
    return PairRows(chosen.a, chosen.b, np.add.reduceat(rows.places, first), chosen.name, chosen.best)


@compiled
def _best(best: I64, first: I64) -> I64:
    """The best row of every run of rows; rows of a run are ascending by name."""
    chosen = first.copy()
    for run in range(first.size):
        stop = first[run + 1] if run + 1 < first.size else best.shape[0]
        for row in range(first[run] + 1, stop):
            if _better(best[row], best[chosen[run]]):
                chosen[run] = row
    return chosen


@compiled
def _better(one: I64, other: I64) -> bool:
    """Whether a place beats one of a smaller name. Whole parts first: what is multiplied then stays below 2^63."""
    count, other_count = max(one[1], 1), max(other[1], 1)  # nothing scored: 0 / 1
    whole, other_whole = one[0] // count, other[0] // other_count
    if whole != other_whole:
        return bool(whole > other_whole)
    rest, other_rest = (one[0] - whole * count) * other_count, (other[0] - other_whole * other_count) * count
    if rest != other_rest:
        return bool(rest > other_rest)
    return bool(one[1] > other[1])
