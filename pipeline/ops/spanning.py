"""The strongest spanning forest of a block's pieces: the only edges inside a block that linking has to visit.

An edge outside this forest is one whose ends are connected by edges before it in the order of edges, and linking skips
those (ops/linking.py, 1). The forest is found in rounds, as Boruvka did it:

1. In a round every tree of the forest so far finds the first of the edges that leave it, in the order of edges. All of
   these belong to the forest. The order is strict, so that they close no circle.
2. The first rounds look at voxels: of the six edges of each the first that leaves its tree, row by row, in loops that
   compilers turn into vectors; then the first of each tree's voxels.
3. Then, most edges being inside trees, the others go on a list, and the other rounds look at the list.

A key is an edge's place in the order of edges inside the block: ~strength above channel * voxels + position.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.identity_edges import NO_EDGE, Number, Ordered, best_row
from pipeline.ops.union_find import find

U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]

VOXEL_ROUNDS = 3
HALF, LOWER, NONE = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)


class _Trees(NamedTuple):
    """For every piece the root of its tree; for every root the first edge that leaves the tree, and to which root."""

    root: I32
    first: U64
    to: I32


def spanning_forest(number_ZYX: I32, pieces: int, edges_CZYX: Ordered, offset: Index, low: int) -> U64:
    """The keys of the forest's edges, ascending. The block begins at `offset` in the edges; those > low count."""
    limit = edges_CZYX.dtype.type(min(low, int(np.iinfo(edges_CZYX.dtype).max)))
    trees = _Trees(np.arange(pieces, dtype=np.int32), np.full(pieces, NONE), np.zeros(pieces, np.int32))
    keys, used = np.empty(max(pieces - 1, 0), np.uint64), 0
    tree_ZYX = number_ZYX.copy()
    for _ in range(VOXEL_ROUNDS):
        _look_at_voxels(tree_ZYX, edges_CZYX, offset, limit, trees)
        used = _grow(trees, keys, used)
        _rename(tree_ZYX, trees.root)
    rows, left = _list(tree_ZYX, edges_CZYX, offset, limit)
    del tree_ZYX
    while left:
        left = _look_at_list(rows, left, trees)
        used = _grow(trees, keys, used)
    found: U64 = keys[:used].copy()
    found.sort()
    return found


@compiled
def ends(
    keys: U64, number_ZYX: I32, before: Index, whole: Index
) -> tuple[I32, I32, NDArray[np.uint32], NDArray[np.uint64]]:
    """The pieces that edges join, strengths, and ties: channel and position in the whole, that begins `before` here."""
    number = number_ZYX.reshape(-1)
    _, height, width = number_ZYX.shape
    steps = (height * width, width, 1)
    a, b = np.empty(keys.size, np.int32), np.empty(keys.size, np.int32)
    strength, tie = np.empty(keys.size, np.uint32), np.empty(keys.size, np.uint64)
    for edge in range(keys.size):
        channel, here = divmod(np.int64(keys[edge] & LOWER), number.size)
        a[edge], b[edge] = number[here], number[here - steps[channel]]
        strength[edge] = LOWER - (keys[edge] >> HALF)
        line, x = divmod(here, width)
        z, y = divmod(line, height)
        line = (z + before[0]) * whole[1] + y + before[1]
        tie[edge] = channel << CHANNEL_SHIFT | line * whole[2] + x + before[2]
    return a, b, strength, tie


@compiled
def _look_at_voxels(tree_ZYX: I32, edges_CZYX: Ordered, offset: Index, low: Number, trees: _Trees) -> None:
    depth, height, width = tree_ZYX.shape
    tree = tree_ZYX.reshape(-1)
    steps = (height * width, width, 1)
    leaving = np.zeros((6, width), edges_CZYX.dtype)
    along_x = np.zeros(width + 1, edges_CZYX.dtype)
    best = np.empty(width, np.uint8)
    start = 0
    x0 = offset[2]
    for z in range(depth):
        for y in range(height):
            own = tree_ZYX[z, y]
            codes_z, codes_y = edges_CZYX[0, z + offset[0] :], edges_CZYX[1, z + offset[0]]
            here_y = y + offset[1]
            _between(leaving[0], own, tree_ZYX[max(z - 1, 0), y], codes_z[0, here_y, x0:])
            last = min(z + 1, depth - 1)
            _between(leaving[1], own, tree_ZYX[last, y], codes_z[last - z, here_y, x0:])
            _between(leaving[2], own, tree_ZYX[z, max(y - 1, 0)], codes_y[here_y, x0:])
            last = min(y + 1, height - 1)
            _between(leaving[3], own, tree_ZYX[z, last], codes_y[last - y + here_y, x0:])
            _between(along_x[1:width], own[1:], own, edges_CZYX[2, z + offset[0], here_y, x0 + 1 :])
            leaving[4] = along_x[:width]
            leaving[5] = along_x[1:]
            best_row(best, (leaving[0], leaving[1], leaving[2], leaving[3], leaving[4], leaving[5]), low)
            for x in range(width):
                choice = best[x]
                if choice != NO_EDGE:
                    _offer(trees, tree, start + x, choice, leaving[choice, x], steps)
            start += width


@compiled
def _between(leaving: Ordered, own: I32, other: I32, codes: Ordered) -> None:
    """The edges of a row that lie between two trees; 0 for the others."""
    for x in range(leaving.size):
        if own[x] != other[x]:
            leaving[x] = codes[x]
        else:
            leaving[x] = 0


@compiled
def _offer(trees: _Trees, tree: I32, here: int, choice: int, strength: int, steps: tuple[int, int, int]) -> None:
    """Keep a voxel's edge if it is the first of its tree."""
    channel = choice >> 1
    step = steps[channel]
    stored, other = here, here - step
    if choice & 1:
        stored, other = here + step, here + step
    key = (LOWER - np.uint64(strength)) << HALF | np.uint64(channel * tree.size + stored)
    if key < trees.first[tree[here]]:
        trees.first[tree[here]] = key
        trees.to[tree[here]] = tree[other]


@compiled
def _grow(trees: _Trees, keys: U64, used: int) -> int:
    """Join every tree along its first edge; the edges are the forest's. How many it has then."""
    root = trees.root
    for tree in range(root.size):
        key, other = trees.first[tree], trees.to[tree]
        if key != NONE and (key != trees.first[other] or tree < other):  # two trees may choose the same edge
            keys[used] = key
            used += 1
    for tree in range(root.size):
        if trees.first[tree] != NONE:
            a, b = find(root, tree), find(root, trees.to[tree])
            root[max(a, b)] = min(a, b)
    for piece in range(root.size):
        root[piece] = root[root[piece]]  # roots come first: one step is enough
        trees.first[piece] = NONE
    return used


@compiled
def _rename(tree_ZYX: I32, root: I32) -> None:
    tree = tree_ZYX.reshape(-1)
    for here in range(tree.size):
        if tree[here] >= 0:
            tree[here] = root[tree[here]]


@compiled
def _list(tree_ZYX: I32, edges_CZYX: Ordered, offset: Index, low: Number) -> tuple[U64, int]:
    """Rows (pair of trees, key) of the edges that are left, and how many."""
    depth, height, width = tree_ZYX.shape
    tree = tree_ZYX.reshape(-1)
    steps = (height * width, width, 1)
    rows = np.empty((tree.size // 16 + 3 * width, 2), np.uint64)
    used = 0
    here = -1
    for z in range(depth):
        for y in range(height):
            if used + 3 * width > rows.shape[0]:
                longer = np.empty((rows.shape[0] * 3 // 2 + 3 * width, 2), np.uint64)
                longer[:used] = rows[:used]
                rows = longer
            inside = (z > 0, y > 0, True)
            for x in range(width):
                here += 1
                for channel in range(3):
                    if inside[channel] and (channel < 2 or x > 0):
                        a, b = tree[here], tree[here - steps[channel]]
                        code = edges_CZYX[channel, z + offset[0], y + offset[1], x + offset[2]]
                        if a != b and code > low:
                            rows[used, 0] = np.uint64(a) << HALF | np.uint64(b)
                            rows[used, 1] = (LOWER - np.uint64(code)) << HALF | np.uint64(channel * tree.size + here)
                            used += 1
    return rows, used


@compiled
def _look_at_list(rows: U64, left: int, trees: _Trees) -> int:
    """Keep the first edge of every tree and strike out rows inside trees; how many are left."""
    kept = 0
    for row in range(left):
        a, b, key = trees.root[rows[row, 0] >> HALF], trees.root[rows[row, 0] & LOWER], rows[row, 1]
        if a == b:
            continue
        if key < trees.first[a]:
            trees.first[a], trees.to[a] = key, b
        if key < trees.first[b]:
            trees.first[b], trees.to[b] = key, a
        rows[kept, 0], rows[kept, 1] = np.uint64(a) << HALF | np.uint64(b), key
        kept += 1
    return kept
