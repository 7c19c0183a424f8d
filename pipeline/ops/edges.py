"""Edges between fragments, as columns: a < b, the sum and the count of their contacts' affinities, and a tie-breaker.

`total` adds up decoded integer affinities and `count` counts voxel edges, so that addition is associative and no
grouping of blocks can change a result. `tie` is the largest id of a voxel edge in the contact, channel << 58 | linear
position in the layer: it belongs to the contact, never to a name, so that it cannot get better when clusters merge.
The largest affinity and the histogram of all of them are there if a score needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.histograms import Histograms, add_up

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U16 = NDArray[np.uint16]
Columns = Mapping[str, NDArray[np.generic]]

CHANNEL_SHIFT = 58  # a layer holds fewer than 2**58 voxels
HISTOGRAMS = "_bins"  # the section with the histograms of the edges in section x is called x_bins


@dataclass(frozen=True)
class Edges:
    """Columns of equal length."""

    a: U64
    b: U64
    total: I64
    count: I64
    tie: U64
    largest: U16 | None = None
    histograms: Histograms | None = None

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.a.size

    def take(self, rows: I64) -> Edges:
        """Some of the rows."""
        return Edges(
            self.a[rows],
            self.b[rows],
            self.total[rows],
            self.count[rows],
            self.tie[rows],
            None if self.largest is None else self.largest[rows],
            None if self.histograms is None else self.histograms.take(rows),
        )

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table, without histograms."""
        table: dict[str, NDArray[np.generic]] = {
            "a": self.a,
            "b": self.b,
            "sum": self.total,
            "count": self.count,
            "tie": self.tie,
        }
        return table if self.largest is None else {**table, "max": self.largest}

    def sections(self, name: str) -> dict[str, dict[str, NDArray[np.generic]]]:
        """As a table, and one of histograms beside it if there are any."""
        own = {name: self.columns()}
        return own if self.histograms is None else {**own, name + HISTOGRAMS: self.histograms.columns()}

    @classmethod
    def of_columns(cls, table: Columns, histograms: Columns | None = None) -> Edges:
        """From a table, and one of histograms."""
        return cls(
            table["a"].astype(np.uint64, copy=False),
            table["b"].astype(np.uint64, copy=False),
            table["sum"].astype(np.int64, copy=False),
            table["count"].astype(np.int64, copy=False),
            table["tie"].astype(np.uint64, copy=False),
            table["max"].astype(np.uint16, copy=False) if "max" in table else None,
            None if histograms is None else Histograms.of_columns(histograms),
        )


def no_edges() -> Edges:
    """A table without rows."""
    names, numbers = np.empty(0, np.uint64), np.empty(0, np.int64)
    return Edges(names, names, numbers, numbers, names)


def combine(parts: Iterable[Edges]) -> Edges:
    """All rows, with parallel edges made one: statistics added, the largest tie; sorted by (a, b).

    Largest affinities and histograms are dropped unless all parts have them.
    """
    given = list(parts)
    every = [part for part in given if part.size]
    if not every:
        return given[0] if given else no_edges()
    if len(every) == 1 and _ascending(every[0]):
        return every[0]
    a, b = np.concatenate([e.a for e in every]), np.concatenate([e.b for e in every])
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    new = np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    first = np.flatnonzero(new)
    return Edges(
        a[first],
        b[first],
        np.add.reduceat(np.concatenate([e.total for e in every])[order], first),
        np.add.reduceat(np.concatenate([e.count for e in every])[order], first),
        np.maximum.reduceat(np.concatenate([e.tie for e in every])[order], first),
        _largest(every, order, first),
        _histograms(every, order, new),
    )


def _ascending(edges: Edges) -> bool:
    """Whether rows are sorted by (a, b), and no two edges are parallel."""
    a, b = edges.a, edges.b
    return bool(np.all((a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] > b[:-1]))))


def _largest(parts: Sequence[Edges], order: I64, first: I64) -> U16 | None:
    columns = [part.largest for part in parts if part.largest is not None]
    if len(columns) < len(parts):
        return None
    return np.maximum.reduceat(np.concatenate(columns)[order], first)


def _histograms(parts: Sequence[Edges], order: I64, new: NDArray[np.bool_]) -> Histograms | None:
    found = [part.histograms for part in parts if part.histograms is not None]
    if len(found) < len(parts):
        return None
    row = np.empty(order.size, np.int64)
    row[order] = np.cumsum(new) - 1
    ends = np.cumsum([part.size for part in parts])
    return add_up(list(zip(found, np.split(row, ends[:-1]), strict=True)))
