"""Union-find over indices, with the smallest index of a set as its root."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled


@compiled
def find(parent: NDArray[np.signedinteger], item: int) -> int:
    """The root of an item; halves the path on the way."""
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@compiled
def unite_pairs(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member of every item's set, after joining the pairs."""
    parent = np.arange(count)
    for pair in range(first.size):
        a = find(parent, first[pair])
        b = find(parent, second[pair])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for item in range(count):
        parent[item] = parent[parent[item]]  # roots come first: one step is enough
    return parent
