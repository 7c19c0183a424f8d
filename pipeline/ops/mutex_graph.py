"""Mutex watershed over the hierarchy of blocks: the step of a chunk on the rows that its children hand up.

A chunk of level l covers a box, the boxes of its up to eight children of level l - 1.

1. Nodes are the children's dirty clusters. Edges may still change them; all other clusters are final and gone.
2. Inner rows join two nodes of one child. Outer rows join a node with a voxel or fragment outside the child, under the
   name that this had before anything was joined: a child does not know what its neighbours have decided. Each is
   known to the child that holds the earlier end.
3. The alias table lists every name of a child that outer rows may use, or be about: the cluster that it belongs to
   now, and two corners, the smallest box around the names at the other ends.
4. An outer row whose far end lies in the chunk's box is an inner row of the chunk: alias gives the cluster. An alias
   whose far ends all lie in the box is not needed any more. A node is dirty iff it still has an alias.
5. What can be decided is decided (ops/mutex_decide.py). A cluster takes its smallest name, adds volumes, and spans the
   boxes of its parts. Clean clusters are closed. With fewer voxels than the dust limit their name becomes 0.
6. Dirty ones go up with the rows left between them; outer rows and alias take their new names, and of parallel outer
   rows the strongest of each kind is kept. The top chunk has no dirty node.

Going down, a block learns what became of each of its nodes, from its own table and that of its parent, with the box of
the finished cluster; `until` is the level at which that box lies within one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.compiled import compiled
from pipeline.ops.mutex_decide import Decided, decide
from pipeline.ops.mutex_rows import CERTAIN, Rows, inside, names_at, positions, strongest, united
from pipeline.ops.relabel import index_of

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Decide = Callable[[NDArray[np.int32], NDArray[np.int32], U8, U8], Decided]


@dataclass(frozen=True)
class Nodes:
    """Clusters: names, ascending, voxels, and the corners of the box around them, both voxels inside it, as ids."""

    name: U64
    volume: I64
    low: U64
    high: U64

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Nodes:
        """Some of the rows."""
        return Nodes(self.name[rows], self.volume[rows], self.low[rows], self.high[rows])


@dataclass(frozen=True)
class Alias:
    """Names used by outer rows, ascending, their clusters, and the corners of the box around the far ends' names."""

    node: U64
    name: U64
    low: U64
    high: U64

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Alias:
        """Some of the rows."""
        return Alias(self.node[rows], self.name[rows], self.low[rows], self.high[rows])


@dataclass(frozen=True)
class Part:
    """What a block of any level hands to its parent. Outer rows have their own end first."""

    box: Box
    nodes: Nodes
    inner: Rows
    outer: Rows
    alias: Alias


@dataclass(frozen=True)
class Joined:
    """A part, the rename table of all nodes that came in (old ascending), and the clusters that are complete."""

    part: Part
    old: U64
    new: U64  # 0: dust
    closed: Nodes  # dust is left out
    dust: int


def join(children: Sequence[Part], box: Box, *, dust_vx: int = 0, decided_by: Decide = decide) -> Joined:
    """One step up: decide what can be decided from the rows inside the box."""
    nodes = _sorted_nodes([child.nodes for child in children])
    alias = _sorted_alias([child.alias for child in children])
    outer = united(child.outer for child in children)
    meets = inside(outer.b, box)
    met = outer.take(meets)
    far = alias.name[index_of(alias.node, met.b, what="a row that crosses a face")]
    rows = united([*(child.inner for child in children), met.between(met.a, far)])
    left = alias.take(~(inside(alias.low, box) & inside(alias.high, box)))
    dirty = np.zeros(nodes.name.size, np.uint8)
    dirty[index_of(nodes.name, left.name, what="an alias")] = 1
    rows = rows.take(rows.order())
    first, second = (index_of(nodes.name, end, what="a row").astype(np.int32) for end in (rows.a, rows.b))
    found = decided_by(first, second, rows.kind, dirty)
    return settle(nodes, found, rows, Part(box, nodes, rows, outer.take(~meets), left), dust_vx)


def settle(nodes: Nodes, found: Decided, rows: Rows, left: Part, dust_vx: int) -> Joined:
    """Fold nodes into their clusters, and name what is left after those.

    `left` holds the outer rows and the alias that remain, still with the names of nodes."""
    folded = fold(nodes, found.root)
    name = folded.name[found.root]
    is_root = found.root == np.arange(found.root.size)
    first, second = (index_of(nodes.name, end, what="a row") for end in (rows.a[found.pending], rows.b[found.pending]))
    pending = rows.take(found.pending).between(*_ascending(name[first], name[second]))
    inner = united([pending, certain(name[found.mutex[:, 0]], name[found.mutex[:, 1]])])
    outer, alias = left.outer, left.alias
    outer = outer.between(name[index_of(nodes.name, outer.a, what="an outer row")], outer.b)
    alias = Alias(alias.node, name[index_of(nodes.name, alias.name, what="an alias")], alias.low, alias.high)
    part = Part(left.box, folded.take(is_root), inner, outer, alias)
    return close(part, found.dirty[is_root] != 0, nodes.name, name, dust_vx)


def close(part: Part, dirty: NDArray[np.bool_], old: U64, new: U64, dust_vx: int) -> Joined:
    """Sort out the clusters that are complete. `part` has all clusters; old and new rename what came in."""
    dust = ~dirty & (part.nodes.volume < dust_vx)
    gone = np.isin(new, part.nodes.name[dust])
    order = np.argsort(part.nodes.name)
    growing = part.nodes.take(order[dirty[order]])
    closed = part.nodes.take(order[~(dirty | dust)[order]])
    upward = Part(part.box, growing, part.inner, strongest(part.outer), part.alias)
    return Joined(upward, old, np.where(gone, np.uint64(0), new), closed, int(dust.sum()))


def _ascending(a: U64, b: U64) -> tuple[U64, U64]:
    return np.minimum(a, b), np.maximum(a, b)


def certain(a: U64, b: U64) -> Rows:
    """Mutexes that are facts."""
    zero = np.zeros(a.size, np.uint64)
    return Rows(*_ascending(a, b), np.full(a.size, CERTAIN, np.uint8), zero.astype(np.uint32), zero)


def _sorted_nodes(parts: Sequence[Nodes]) -> Nodes:
    columns = ("name", "volume", "low", "high")
    name, volume, low, high = (
        np.concatenate([np.empty(0, np.int64 if c == "volume" else np.uint64), *(getattr(p, c) for p in parts)])
        for c in columns
    )
    return Nodes(name, volume, low, high).take(np.argsort(name))


def _sorted_alias(parts: Sequence[Alias]) -> Alias:
    node, name, low, high = (
        np.concatenate([np.empty(0, np.uint64), *(getattr(p, c) for p in parts)])
        for c in ("node", "name", "low", "high")
    )
    return Alias(node, name, low, high).take(np.argsort(node))


def fold(nodes: Nodes, root: NDArray[np.int32]) -> Nodes:
    """Smallest name, volume and box of every cluster, at its root; what stands at other nodes means nothing."""
    name, volume = nodes.name.copy(), nodes.volume.copy()
    low, high = positions(nodes.low), positions(nodes.high)
    _fold(root, name, volume, low, high)
    return Nodes(name, volume, names_at(low), names_at(high))


@compiled
def _fold(root: NDArray[np.int32], name: U64, volume: I64, low: I64, high: I64) -> None:
    for node in range(root.size):
        top = root[node]
        if top != node:
            name[top] = min(name[top], name[node])
            volume[top] += volume[node]
            for axis in range(3):
                low[top, axis] = min(low[top, axis], low[node, axis])
                high[top, axis] = max(high[top, axis], high[node, axis])


# ---- down --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Final:
    """What became of nodes: old names, ascending, final names and until which level the fragment is not complete."""

    old: U64
    new: U64
    until: U8


def finish(joined_old: U64, joined_new: U64, closed: Final, *, parent: Final) -> Final:
    """One step down: what became of the nodes that came into a block, from its own rename table, the clusters that it
    closed (old and new are the same there) and its parent's final names for those that grew on."""
    new, until = joined_new.copy(), np.zeros(joined_new.size, np.uint8)
    lasting = np.flatnonzero(new != 0)
    known_old = np.concatenate([closed.old, parent.old])
    order = np.argsort(known_old)
    rows = order[index_of(known_old[order], new[lasting], what="a rename table")]
    new[lasting] = np.concatenate([closed.new, parent.new])[rows]
    until[lasting] = np.concatenate([closed.until, parent.until])[rows]
    return Final(joined_old, new, until)


def closed_here(closed: Nodes, roi: Box, block: Index) -> Final:
    """Clusters that are complete, under their own name."""
    return Final(closed.name, closed.name, until_level(closed, roi, block))


def until_level(nodes: Nodes, roi: Box, block: Index) -> U8:
    """The smallest level at which one chunk of a grid holds a cluster grown by one voxel, as far as the region goes."""
    begin, end = np.array(roi.begin), np.array(roi.end)
    first = np.maximum(positions(nodes.low) - 1, begin) - begin
    last = np.minimum(positions(nodes.high) + 1, end - 1) - begin
    level = np.zeros(nodes.name.size, np.uint8)
    size = np.array(block)
    apart = (first // size != last // size).any(axis=-1)
    while apart.any():
        level[apart] += 1
        size = 2 * size
        apart = (first // size != last // size).any(axis=-1)
    return level
