"""Agglomeration over the hierarchy of blocks: the merge tree of the one-chunk greedy run, exactly.

Greedy: while the best edge by (score descending, tie ascending) has a score above the floor, merge its ends; parallel
edges become one: their statistics add, the tie is the larger one. Adding edges can only make a key worse (the scores
of ops/scores.py are reducible), so a pair whose edges are all known and which is the best of both its ends can be
merged before the rest of the volume is looked at. One chunk does, from its children:

1. Nodes: the children's nodes; equal names are one node. A node is frozen if it reaches an internal face of this
   chunk: it may have neighbours that this chunk does not know. Fragments need not be connected: one whose voxels lie
   apart may have neighbours elsewhere though nothing of it reaches a face. Such a fragment brings a level `until`,
   the lowest at which one chunk holds all of it and the voxels around it; below that level it is frozen, too.
2. Edges: those the children left, and those across the faces between children; parallel ones are combined.
3. Greedy (ops/greedy.py), in which an edge to a frozen node freezes its other end too.
4. Frozen nodes go to the parent, with all edges between two of them, whatever their score: their statistics are
   still incomplete. An edge of a cluster that is not frozen has, for ever, a score at or below the floor: dropped.

A node that is frozen from the start never merges below the level at which it is complete, so faces need no renaming. A
cluster is called after its smallest fragment. `merges` of all levels together are the merge tree, and it is the same
set of rows for every grid: at the moment of a merge both clusters are those of the one-chunk run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import classes, faces
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import Edges, combine
from pipeline.ops.greedy import Clusters, Graph, greedy
from pipeline.ops.relabel import index_of
from pipeline.ops.scores import Score, edges_of, statistics_of
from workers.errors import Poison

I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
U16 = NDArray[np.uint16]
MEAN_SCORE = Score()
NOT_COUNTED = np.empty(0, np.int64)


@dataclass(frozen=True)
class Part:
    """What a chunk hands to its parent: nodes (ascending), edges between them, edges across its three low faces.

    `until` is the level from which on a node is complete unless it reaches a face; none: 0 for all. `kind` is a node's
    class, if fragments have classes (ops/classes.py): edges between different ones are gone already.
    """

    box: Box
    name: U64
    mask: NDArray[np.uint8]
    edges: Edges
    low: tuple[Edges, Edges, Edges]
    until: NDArray[np.uint8] | None = None
    volume: NDArray[np.int64] = field(default_factory=lambda: NOT_COUNTED)  # voxels of every node that are inside
    kind: U16 | None = None


@dataclass(frozen=True)
class Tree:
    """Merges: clusters whose smallest fragments are a < b became one at a score."""

    a: U64
    b: U64
    score: NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """Beside the merges the tie of the edge that decided and the voxels of both clusters; the fragments that became
    complete in this chunk, and their voxels: every fragment is in one chunk of the volume. If fragments have classes,
    those of the merged clusters and of these fragments."""

    tie: U64
    voxels_a: NDArray[np.int64]
    voxels_b: NDArray[np.int64]
    fragment: U64
    voxels: NDArray[np.int64]
    merged_kind: U16 | None = None
    kind: U16 | None = None


NO_SIZES = Sizes(np.empty(0, np.uint64), NOT_COUNTED, NOT_COUNTED, np.empty(0, np.uint64), NOT_COUNTED)


@dataclass(frozen=True)
class Agglomerated:
    """What is left for the parent, the merges done here, and how many clusters are finished."""

    part: Part
    tree: Tree
    closed: int
    sizes: Sizes = NO_SIZES


def gather(children: Sequence[Part], box: Box) -> Part:
    """One graph from the children's: steps 1 and 2."""
    names = np.concatenate([np.empty(0, np.uint64), *(child.name for child in children)])
    name, place = np.unique(names, return_inverse=True)
    mask, until = np.zeros(name.size, np.uint8), np.zeros(name.size, np.uint8)
    volume = np.zeros(name.size, np.int64)
    kind = None if children[0].kind is None else np.zeros(name.size, np.uint16)
    rows = 0
    for child in children:
        here = place[rows : rows + child.name.size]  # a child's names differ
        rows += here.size
        mask[here] |= child.mask & np.uint8(faces.outer_bits(child.box, box))
        if child.until is not None:
            until[here] = np.maximum(until[here], child.until)
        if child.volume.size:
            volume[here] += child.volume
        if kind is not None and child.kind is not None:
            kind[here] = child.kind  # a fragment's class is the same everywhere, a cluster has one row
    inner = [child.edges for child in children]
    outer: tuple[list[Edges], list[Edges], list[Edges]] = ([], [], [])
    for child in children:
        for axis, crossing in enumerate(child.low):
            (inner if child.box.begin[axis] > box.begin[axis] else outer[axis]).append(crossing)
    nothing = children[0].edges.take(np.arange(0))
    low = (combine([*outer[0], nothing]), combine([*outer[1], nothing]), combine([*outer[2], nothing]))
    return Part(box, name, mask, combine(inner), low, until, volume, kind)


def agglomerate(
    children: Sequence[Part], box: Box, *, floor: float, score: Score = MEAN_SCORE, level: int = 0
) -> Agglomerated:
    """One step up, to a chunk of a level. The floor is a score: between decoded affinities 0 and 65535."""
    part = gather(children, box)
    order = np.argsort(part.edges.tie).astype(np.int32)
    graph = _graph(part, order, score)
    parent = np.arange(part.name.size, dtype=np.int32)
    frozen = part.mask != 0
    until = part.until
    if until is not None:
        frozen |= until > level
    clusters = Clusters(parent, parent.copy(), frozen.astype(np.uint8))
    merges, violations = greedy(clusters, graph, floor)
    if violations:
        raise Poison(
            f"{violations} edges got a better {score.name} by adding a worse one: their sums have left the exact range",
            where=f"agglomeration of {box}",
            way_out="run `neurotile verify`: a count or a sum in the region graph cannot be right",
        )
    tree = Tree(part.name[merges.a], part.name[merges.b], merges.score)
    arrived = ~frozen & _unfinished(children, part.name, level)
    volume = part.volume.copy()
    voxels = add_up(volume, merges.a, merges.b)
    kind = None if part.kind is None else part.kind.copy()
    merged_kind = None if kind is None else classes.join(kind, merges.a, merges.b)
    arrived_kind = None if part.kind is None else part.kind[arrived]
    ties, complete = part.edges.tie[order], (part.name[arrived], part.volume[arrived])
    sizes = Sizes(ties[merges.tie], *voxels, *complete, merged_kind, arrived_kind)
    root = parent == np.arange(parent.size, dtype=np.int32)
    stays = root & (clusters.frozen != 0)
    left = _left(part.name[clusters.smallest], graph, ties, clusters.frozen)
    smallest = clusters.smallest[stays]
    place = np.argsort(part.name[smallest])
    later = None if until is None else np.where(until > level, until, np.uint8(0))[stays][place]
    smallest = smallest[place]
    kind = None if kind is None else kind[smallest]
    mask = part.mask[stays][place]
    upward = Part(box, part.name[smallest], mask, left, part.low, later, volume[smallest], kind)
    return Agglomerated(upward, tree, int(root.sum() - stays.sum()), sizes)


def _unfinished(children: Sequence[Part], name: U64, level: int) -> NDArray[np.bool_]:
    """Which nodes were incomplete in the chunks below; at level 0, all. They never merged: single fragments."""
    if level == 0:
        return np.ones(name.size, np.bool_)
    found = np.zeros(name.size, np.bool_)
    for child in children:
        incomplete = child.mask != 0
        if child.until is not None:
            incomplete |= child.until > level - 1
        found[np.searchsorted(name, child.name[incomplete])] = True
    return found


@compiled
def add_up(
    volume: NDArray[np.int64], a: NDArray[np.int32], b: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The voxels of both clusters at every merge; a cluster's volume comes to stand at its smallest node."""
    voxels_a, voxels_b = np.empty(a.size, np.int64), np.empty(a.size, np.int64)
    for row in range(a.size):
        voxels_a[row], voxels_b[row] = volume[a[row]], volume[b[row]]
        volume[a[row]] += volume[b[row]]
    return voxels_a, voxels_b


def _graph(part: Part, order: I32, score: Score) -> Graph:
    """The kernel's own copy of the edges, given their order by tie; the small columns of an edge lie side by side."""
    rows = np.zeros((order.size, 4), np.int32)
    end_a, end_b, rank, dead = rows.T
    end_a[:] = index_of(part.name, part.edges.a, what="an edge")
    end_b[:] = index_of(part.name, part.edges.b, what="an edge")
    rank[order] = np.arange(order.size, dtype=np.int32)
    return Graph(end_a, end_b, statistics_of(part.edges, score), rank, dead)


def _left(name: U64, graph: Graph, ties: U64, frozen: NDArray[np.uint8]) -> Edges:
    """The live edges between two frozen clusters, under the clusters' names."""
    rows = np.flatnonzero((graph.dead == 0) & (frozen[graph.end_a] != 0) & (frozen[graph.end_b] != 0))
    first, second = name[graph.end_a[rows]], name[graph.end_b[rows]]
    a, b = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((b, a))
    rows = rows[order]
    return edges_of(a[order], b[order], ties[graph.tie[rows]], graph.statistics, rows)
