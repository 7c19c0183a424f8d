"""From pieces to fragments over the hierarchy of blocks: exact identity components, exactly linked, whatever the grid.

Going up, a block of level l joins what its up to eight children of level l - 1 hand it:
1. Nodes are the children's clusters that can still change: they reach an internal face, or an edge of theirs is
   pending. Edges are those pending in the children, and those that cross the faces between children: a child's low
   slab and the high slab of the child before it say which clusters they join, the low slab's crossings say how
   strongly, and whether as identity edges. A child that is not there (masked out) is empty.
2. Identity edges make clusters one, under the smallest name; sizes and volumes add up, the height is the largest, the
   face bits that are still on the outside are united.
3. The other edges are visited in their order and decided where that is certain (ops/linking.py).
4. A cluster that reaches no internal face and has no pending edge is complete. If it has fewer voxels than the dust
   limit, its name becomes 0: dust is decided on true volumes only.
5. The outer slabs are put together and renumbered for the parent. The labels of voxels are never read again.

Going down, the rename table of the parent is composed with the block's own, until a block of level 0 knows the final
name of each of its pieces. The smallest of all pieces' names is the id of the fragment's first voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.crossings import Slab, Slabs, crossings
from pipeline.ops.linking import INCOMPLETE, Links, link, together
from pipeline.ops.relabel import rename
from pipeline.ops.union_find import unite_pairs

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]


class Rules(NamedTuple):
    """Fragments with fewer than `size_vx` voxels are linked (0: none), with fewer than `dust_vx` they go."""

    size_vx: int = 0
    dust_vx: int = 0


class Nodes(NamedTuple):
    """Clusters: name, voxels, bits of the internal faces they reach, what linking knows of them (linking.states)."""

    name: U64
    volume: NDArray[np.int64]
    mask: NDArray[np.uint8]
    state: U64

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Nodes:
        """Some of the rows."""
        columns: list[Any] = [column[rows] for column in self]
        return Nodes(*columns)


class Pending(NamedTuple):
    """Undecided edges between nodes, which stand for their rows, and the edges' places in the order of edges."""

    a: I32
    b: I32
    strength: U32
    tie: U64

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Pending:
        """Some of the rows."""
        columns: list[Any] = [column[rows] for column in self]
        return Pending(*columns)


def nothing_pending() -> Pending:
    """A table without rows."""
    return Pending(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint32), np.empty(0, np.uint64))


@dataclass(frozen=True)
class Part:
    """What a block of any level hands to its parent: clusters that may change, undecided edges, internal faces."""

    box: Box
    nodes: Nodes
    pending: Pending
    slabs: Slabs  # of the internal faces: 1 + the row of a voxel's node, 0 for background
    crossings: Mapping[str, U32]  # of the low ones: what crosses them (ops/crossings.py)


@dataclass(frozen=True)
class Joined:
    """A part, the rename table (old ascending, changed names only) and how many clusters are complete or dust."""

    part: Part
    old: U64
    new: U64
    closed: int
    dust: int


def close(pieces: Part, rules: Rules) -> Joined:
    """Settle a block of level 0: its pieces, ascending by name, and the spanning forest of its edges in their order."""
    return _settle(pieces, np.arange(pieces.nodes.name.size), rules, forest=True)


def join(children: Sequence[Part], box: Box, *, internal: int, roi: Box, rules: Rules) -> Joined:
    """One step up: join the children's clusters across the faces between them and settle what is certain."""
    masks = [child.nodes.mask & np.uint8(faces.outer_bits(child.box, box)) for child in children]
    nodes = Nodes(*_stacked([child.nodes for child in children]))
    nodes = nodes._replace(mask=np.concatenate(masks))
    order = np.argsort(nodes.name)
    row = np.empty(order.size, np.int32)
    row[order] = np.arange(order.size, dtype=np.int32)
    ends = np.cumsum([child.nodes.name.size for child in children])
    rows = {child.box: own for child, own in zip(children, np.split(row, ends[:-1]), strict=True)}
    met = crossings([(child.box, child.slabs, child.crossings, rows[child.box]) for child in children], roi)
    same = met.identity
    root = unite_pairs(row.size, met.before[same].astype(np.int64), met.after[same].astype(np.int64))
    pending = [Pending(rows[c.box][c.pending.a], rows[c.box][c.pending.b], *c.pending[2:]) for c in children]
    if rules.size_vx:
        pending.append(Pending(met.before[~same], met.after[~same], met.strength[~same], met.tie[~same]))
    edges = _in_order(Pending(*_stacked(pending)), root)
    slabs = faces.mosaic(((c.box, _renumbered(c.slabs, rows[c.box])) for c in children), box, internal)
    crossed = faces.mosaic(((c.box, c.crossings) for c in children), box, internal & faces.LOW_BITS)
    return _settle(Part(box, nodes.take(order), edges, slabs, crossed), root, rules, forest=False)


def _stacked(tables: Sequence[tuple[NDArray[Any], ...]]) -> list[Any]:
    """The columns of several tables, one below the other."""
    return [np.concatenate(columns) for columns in zip(*tables, strict=True)]


def _in_order(edges: Pending, root: NDArray[np.int64]) -> Pending:
    """The edges between different clusters, in the order of edges: strength descending, tie ascending."""
    a, b = root[edges.a].astype(np.int32), root[edges.b].astype(np.int32)
    edges = edges._replace(a=a, b=b).take(a != b)
    edges = edges.take(np.argsort(edges.tie))
    key = (~edges.strength).astype(np.uint64) << np.uint64(32) | np.arange(edges.a.size, dtype=np.uint64)
    key.sort()
    return edges.take((key & np.uint64(0xFFFFFFFF)).astype(np.int64))


def _settle(part: Part, root: NDArray[np.int64], rules: Rules, *, forest: bool) -> Joined:
    """Fold nodes into their roots and link; what is complete leaves, as dust or under its final name."""
    nodes, edges = part.nodes, part.pending
    volume, mask, state = _fold(nodes, root, rules.size_vx)
    state[mask != 0] |= INCOMPLETE
    linked, waiting = link(state, Links(*edges[:3], forest), rules.size_vx)
    root = linked[root].astype(np.int64)
    volume, mask, _ = _fold(nodes, root, 0)
    up = (mask != 0) | (state & INCOMPLETE != 0)
    edges = edges.take(waiting)
    for end in (edges.a, edges.b):
        up[linked[end]] = True
    is_root = root == np.arange(root.size)
    up &= is_root
    dust = is_root & ~up & (volume < rules.dust_vx)
    new = np.where(dust, np.uint64(0), nodes.name)[root]
    changed = new != nodes.name
    row = (np.cumsum(up) - 1).astype(np.int32)[root]
    pending = edges._replace(a=row[edges.a], b=row[edges.b])
    kept = Nodes(nodes.name, volume, mask, state & ~INCOMPLETE).take(up)
    upward = Part(part.box, kept, pending, _renumbered(part.slabs, row), part.crossings)
    closed = int(is_root.sum() - up.sum() - dust.sum())
    return Joined(upward, nodes.name[changed], new[changed], closed=closed, dust=int(dust.sum()))


def _renumbered(slabs: Slabs, row: I32) -> dict[str, Slab]:
    """Slabs after the nodes' rows have changed."""
    number = np.concatenate([[0], row + 1]).astype(np.uint32)
    return {side: number[slab] for side, slab in slabs.items()}


@compiled
def _fold(nodes: Nodes, root: NDArray[np.int64], size_vx: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], U64]:
    """Volumes, face bits and states of clusters, at their roots, which come first."""
    volume, mask, state = nodes.volume.copy(), nodes.mask.copy(), nodes.state.copy()
    for node in range(root.size):
        if root[node] != node:
            volume[root[node]] += nodes.volume[node]
            mask[root[node]] |= nodes.mask[node]
            state[root[node]] = together(state[root[node]], nodes.state[node], size_vx)
    return volume, mask, state


def compose(joined_old: U64, joined_new: U64, growing: U64, *, parent: tuple[U64, U64]) -> tuple[U64, U64]:
    """One step down: the final names behind a block's own rename table and behind its clusters that grew."""
    parent_old, parent_new = parent
    old = np.concatenate([joined_old, growing])
    new = rename(np.concatenate([joined_new, growing]), parent_old, parent_new)
    order = np.argsort(old)
    old, new = old[order], new[order]
    changed = old != new
    return old[changed], new[changed]
