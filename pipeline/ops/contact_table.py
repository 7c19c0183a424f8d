"""Contacts and their adjacency as columns.

A contact is a connected place where two fragments touch. Its numbers are integers and add up in any order. Its name is
its first edge: lin(p) << 2 | channel of the smallest voxel p of the contact and the first channel that has an edge of
the contact there. Every voxel edge belongs to one contact, so names are unique; when parts of a contact join, the
smallest name is the name of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import AXES, Index

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Rows = NDArray[np.integer] | NDArray[np.bool_]

CHANNEL_BITS = 2
# Positions are weighted by edges. `grown` counts the edges that are not in `sum`: an end of them was background before
# segments were grown (ops/grow.py), so nobody knows an affinity.
SUMS = ("edges_z", "edges_y", "edges_x", "sum", "sum_z", "sum_y", "sum_x", "voxels", "grown")
BEGIN = tuple(f"begin_{axis}" for axis in AXES)
END = tuple(f"end_{axis}" for axis in AXES)


@dataclass(frozen=True)
class ContactRows:
    """One row a contact, a < b: `sums` has the columns SUMS, `begin` and `end` the half-open box of its voxels."""

    name: U64
    a: U64
    b: U64
    sums: I64
    begin: I64
    end: I64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.name.size

    def take(self, rows: Rows) -> ContactRows:
        """Some of the rows."""
        return ContactRows(*(column[rows] for column in vars(self).values()))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        named: dict[str, NDArray[np.generic]] = {"name": self.name, "a": self.a, "b": self.b}
        for names, matrix in ((SUMS, self.sums), (BEGIN, self.begin), (END, self.end)):
            named |= {name: np.ascontiguousarray(matrix[:, i]) for i, name in enumerate(names)}
        return named

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> ContactRows:
        """From a table."""
        name, a, b = (table[column].astype(np.uint64, copy=False) for column in ("name", "a", "b"))
        sums, begin, end = (
            np.stack([table[column].astype(np.int64, copy=False) for column in columns], axis=1)
            for columns in (SUMS, BEGIN, END)
        )
        return cls(name, a, b, sums, begin, end)


@dataclass(frozen=True)
class Adjacency:
    """Pairs of contacts whose voxels coincide somewhere or are neighbours, by name: first < second."""

    first: U64
    second: U64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.first.size

    def take(self, rows: Rows) -> Adjacency:
        """Some of the rows."""
        return Adjacency(self.first[rows], self.second[rows])

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        return {"first": self.first, "second": self.second}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> Adjacency:
        """From a table."""
        return cls(table["first"].astype(np.uint64, copy=False), table["second"].astype(np.uint64, copy=False))


def no_contacts() -> ContactRows:
    """A table without rows."""
    names = np.empty(0, np.uint64)
    return ContactRows(names, names, names, *(np.empty((0, n), np.int64) for n in (len(SUMS), 3, 3)))


def no_adjacency() -> Adjacency:
    """A table without rows."""
    return Adjacency(np.empty(0, np.uint64), np.empty(0, np.uint64))


def stack(parts: Iterable[ContactRows]) -> ContactRows:
    """All rows, in order."""
    every = [no_contacts(), *parts]
    return ContactRows(*(np.concatenate(columns) for columns in zip(*(vars(p).values() for p in every), strict=True)))


def fold(contacts: ContactRows, group: I64) -> ContactRows:
    """One row for every group: the smallest name, sums added, boxes united; ascending by group.

    Rows of a group must have the same a and b.
    """
    if not contacts.size:
        return contacts
    order = np.argsort(group, kind="stable")
    ranked = group[order]
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    rows = contacts.take(order)
    return ContactRows(
        np.minimum.reduceat(rows.name, first),
        rows.a[first],
        rows.b[first],
        np.add.reduceat(rows.sums, first, axis=0),
        np.minimum.reduceat(rows.begin, first, axis=0),
        np.maximum.reduceat(rows.end, first, axis=0),
    )


def pairs_once(parts: Iterable[tuple[U64, U64]]) -> Adjacency:
    """Pairs of names, in either order and any number of times, each once; ascending."""
    every = [(no_adjacency().first, no_adjacency().second), *parts]
    left, right = (np.concatenate(side) for side in zip(*every, strict=True))
    first, second = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new = np.ones(first.size, bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return Adjacency(first[new], second[new])


def first_voxels(names: U64, layer_shape: Index) -> I64:
    """The z, y, x of the smallest voxel of each contact."""
    position = (names >> np.uint64(CHANNEL_BITS)).astype(np.int64)
    return np.stack(np.unravel_index(position, layer_shape), axis=1).astype(np.int64)
