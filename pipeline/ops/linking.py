"""Linking of fragments by size, the step of a chunk: what is certain is decided, the rest is pending and goes up.

The rule, on a whole volume. Usable edges that are no identity edges are visited in the order of edges (ops/
fragments.py). Their ends' clusters A and B are joined, unless both are saturated at the edge's strength w: A is if it
has at least `size_vx` voxels and its height, the strength of the best edge in it, is above w. (So a plateau that ties
have cut is one cluster again: its height is its own level.) Sizes add up, heights take the larger.

In a chunk a cluster is *incomplete* if it reaches an internal face: voxels and edges that are not known yet may belong
to it. Saturation is monotone: sizes and heights only grow, w only falls. Hence what is known of an incomplete cluster
is a lower bound, saturated by it means saturated for good, and of a complete cluster everything is known.

1. Edges are visited in their order. One whose ends are connected by edges visited before, however those were decided,
   is skipped for ever: either all on the path joined, or from either end the first refused edge of the path shows that
   the end's cluster was saturated, at a larger strength. So at most one edge less than clusters goes up. (Between two
   pieces, in particular, only the strongest edge matters: at a weaker one they are joined, or both saturated.)
2. Both ends saturated: refused. It is certain, whatever else belongs to them.
3. Both complete: joined.
4. A incomplete, B complete.
   B not saturated, A saturated: B joins A. A shows the size and the height it had: for stronger edges, seen later,
   they are A's without B; at weaker ones A is saturated anyway.
   B not saturated, A neither: the edge is pending, and B becomes incomplete, for what B shows next depends on it.
   B saturated: the edge is pending, A decides later. B stays complete: all that its decisions need is that it is
   saturated, and it stays so.
5. Both incomplete: pending.

Every edge decided here is decided as in the run on the whole volume, and at the top no cluster is incomplete.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import compiled
from pipeline.ops.union_find import find

I32 = NDArray[np.int32]


SIZE = np.uint64(0x7FFFFFFF)  # larger limits are refused by the configuration
INCOMPLETE = np.uint64(1 << 31)
HEIGHT_SHIFT = np.uint64(32)


class Links(NamedTuple):
    """Edges between clusters, in the order of edges. A forest has no circles: nothing to skip."""

    a: I32
    b: I32
    strength: NDArray[np.uint32]
    forest: bool


def states(size: NDArray[np.int64], height: NDArray[np.uint32], size_vx: int) -> NDArray[np.uint64]:
    """What decisions need of every cluster in one number: the height, above the size up to `size_vx`.

    Bit 31 says whether the cluster is incomplete; it is not set here.
    """
    state: NDArray[np.uint64] = height.astype(np.uint64) << HEIGHT_SHIFT
    state |= np.minimum(size, size_vx).astype(np.uint64)
    return state


@compiled
def link(state: NDArray[np.uint64], links: Links, size_vx: int) -> tuple[I32, NDArray[np.bool_]]:
    """The smallest member of every cluster's new cluster, and which edges are pending.

    Writes into `state`: what holds in the end stands at the smallest members.
    """
    parent = np.arange(state.size, dtype=np.int32)
    reached = np.arange(0 if links.forest else state.size, dtype=np.int32)  # the forest of all edges
    pending = np.zeros(links.a.size, np.bool_)
    for edge in range(links.a.size):
        if not links.forest and _closes_circle(reached, links.a[edge], links.b[edge]):
            continue
        a, b = find(parent, links.a[edge]), find(parent, links.b[edge])
        if a == b:
            continue
        a_full = _saturated(state[a], links.strength[edge], size_vx)
        b_full = _saturated(state[b], links.strength[edge], size_vx)
        if a_full and b_full:
            continue
        if state[b] & INCOMPLETE:
            a, b, a_full, b_full = b, a, b_full, a_full
        if not state[a] & INCOMPLETE:
            _join(parent, state, a, b, together(state[a], state[b], size_vx))
        elif state[b] & INCOMPLETE:
            pending[edge] = True
        elif not b_full and a_full:
            _join(parent, state, a, b, state[a])
        else:
            pending[edge] = True
            if not b_full:
                state[b] |= INCOMPLETE
    return _smallest(parent, state), pending


@compiled
def _closes_circle(reached: I32, a: int, b: int) -> bool:
    """Whether edges seen before connect the ends of this one; they are connected from now on."""
    first, second = find(reached, a), find(reached, b)
    reached[max(first, second)] = min(first, second)
    return first == second


@compiled
def _saturated(state: np.uint64, strength: int, size_vx: int) -> bool:
    return bool(state & SIZE >= size_vx and state >> HEIGHT_SHIFT > strength)


@compiled
def together(a: np.uint64, b: np.uint64, size_vx: int) -> np.uint64:
    """The state of two complete clusters that join."""
    size = min((a & SIZE) + (b & SIZE), np.uint64(size_vx))
    return max(a, b) >> HEIGHT_SHIFT << HEIGHT_SHIFT | size


@compiled
def _join(parent: I32, state: NDArray[np.uint64], a: int, b: int, joined: np.uint64) -> None:
    """Make two clusters one with a state. The larger one becomes the root, so that paths stay short."""
    root, other = a, b
    if state[a] & SIZE < state[b] & SIZE:
        root, other = b, a
    parent[other] = root
    state[root] = joined


@compiled
def _smallest(parent: I32, state: NDArray[np.uint64]) -> I32:
    """Every item's smallest fellow, which takes over the state."""
    smallest = np.full(parent.size, -1, np.int32)
    for item in range(parent.size):
        root = find(parent, item)
        parent[item] = root
        if smallest[root] < 0:
            smallest[root] = item
            if item != root:
                state[item] = state[root]
    for item in range(parent.size):
        parent[item] = smallest[parent[item]]
    return parent
