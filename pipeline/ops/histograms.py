"""Histograms of many edges as sparse rows: (row of the edge, bin, number of affinities), ascending by row and bin.

An affinity, an integer of 0 .. 65535, falls into bin affinity >> 8. Bins without affinities have no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

BINS = 256


@dataclass(frozen=True)
class Histograms:
    """Columns of equal length."""

    row: I64
    bin: NDArray[np.uint8]
    entries: I64

    def take(self, rows: I64) -> Histograms:
        """The histograms of some edges, in the given order."""
        begin, end = np.searchsorted(self.row, rows), np.searchsorted(self.row, rows, side="right")
        lengths = end - begin
        first = np.cumsum(lengths) - lengths
        items = np.arange(lengths.sum()) + np.repeat(begin - first, lengths)
        return Histograms(np.repeat(np.arange(rows.size), lengths), self.bin[items], self.entries[items])

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        return {"edge": self.row, "bin": self.bin, "count": self.entries}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> Histograms:
        """From a table."""
        return cls(
            table["edge"].astype(np.int64, copy=False),
            table["bin"].astype(np.uint8, copy=False),
            table["count"].astype(np.int64, copy=False),
        )


def add_up(parts: Sequence[tuple[Histograms, I64]]) -> Histograms:
    """Histograms whose edges have got new rows: `rows[old]` is the new one. Those of equal rows are added."""
    keys = [rows[part.row] * BINS + part.bin for part, rows in parts]
    key = np.concatenate([np.empty(0, np.int64), *keys])
    entries = np.concatenate([np.empty(0, np.int64), *(part.entries for part, _ in parts)])
    order = np.argsort(key, kind="stable")
    key, entries = key[order], entries[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(key.size, 1), bool), key[1:] != key[:-1]]))
    entries = np.add.reduceat(entries, first) if first.size else entries
    return Histograms(key[first] // BINS, (key[first] % BINS).astype(np.uint8), entries)
