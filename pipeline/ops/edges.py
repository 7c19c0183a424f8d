"""Edges between fragments, as columns: a < b, the sum and the count of their contacts' affinities, and a tie-breaker.

`total` adds up decoded integer affinities and `count` counts voxel edges, so that addition is associative and no
grouping of blocks can change a result. `tie` is the largest id of a voxel edge in the contact, channel << 58 | linear
position in the layer: it belongs to the contact, never to a name, so that it cannot get better when clusters merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

CHANNEL_SHIFT = 58  # a layer holds fewer than 2**58 voxels


@dataclass(frozen=True)
class Edges:
    """Columns of equal length."""

    a: U64
    b: U64
    total: I64
    count: I64
    tie: U64

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.a.size

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Edges:
        """Some of the rows."""
        return Edges(self.a[rows], self.b[rows], self.total[rows], self.count[rows], self.tie[rows])

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """As a table."""
        return {"a": self.a, "b": self.b, "sum": self.total, "count": self.count, "tie": self.tie}

    @classmethod
    def of_columns(cls, table: Mapping[str, NDArray[np.generic]]) -> Edges:
        """From a table."""
        return cls(
            table["a"].astype(np.uint64, copy=False),
            table["b"].astype(np.uint64, copy=False),
            table["sum"].astype(np.int64, copy=False),
            table["count"].astype(np.int64, copy=False),
            table["tie"].astype(np.uint64, copy=False),
        )


def no_edges() -> Edges:
    """A table without rows."""
    names, numbers = np.empty(0, np.uint64), np.empty(0, np.int64)
    return Edges(names, names, numbers, numbers, names)


def combine(parts: Iterable[Edges]) -> Edges:
    """All rows, with parallel edges made one: sums and counts added, the largest tie; sorted by (a, b)."""
    every = [no_edges(), *parts]
    a, b = np.concatenate([e.a for e in every]), np.concatenate([e.b for e in every])
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    if not a.size:
        return no_edges()
    first = np.flatnonzero(np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])]))
    return Edges(
        a[first],
        b[first],
        np.add.reduceat(np.concatenate([e.total for e in every])[order], first),
        np.add.reduceat(np.concatenate([e.count for e in every])[order], first),
        np.maximum.reduceat(np.concatenate([e.tie for e in every])[order], first),
    )
