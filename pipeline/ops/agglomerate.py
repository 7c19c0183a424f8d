"""Mean-affinity agglomeration over the hierarchy of blocks: the merge tree of the one-chunk greedy run, exactly.

Greedy: while the best edge by (mean affinity descending, tie ascending) has a mean above the floor, merge its ends;
parallel edges become one: sums and counts add, the tie is the larger one. Adding edges can only make a key worse
(mean affinity is reducible), so a pair whose edges are all known and which is the best of both its ends can be merged
before the rest of the volume is looked at. One chunk does, from its children:

1. Nodes: the children's nodes; equal names are one node. A node is frozen if it reaches an internal face of this
   chunk: it may have neighbours that this chunk does not know.
2. Edges: those the children left, and those across the faces between children; parallel ones are combined.
3. Greedy (ops/greedy.py), in which an edge to a frozen node freezes its other end too.
4. Frozen nodes go to the parent, with all edges between two of them, whatever their score: their statistics are
   still incomplete. An edge of a cluster that is not frozen has, for ever, a score at or below the floor: dropped.

A node that reaches a face never merges below the level at which the face becomes inner, so faces need no renaming. A
cluster is called after its smallest fragment. `merges` of all levels together are the merge tree, and it is the same
set of rows for every grid: at the moment of a merge both clusters are those of the one-chunk run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops import faces
from pipeline.ops.edges import Edges, combine
from pipeline.ops.greedy import Clusters, Graph, greedy
from pipeline.ops.relabel import index_of
from workers.errors import Poison

U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Part:
    """What a chunk hands to its parent: nodes (ascending), edges between them, edges across its three low faces."""

    box: Box
    name: U64
    mask: NDArray[np.uint8]
    edges: Edges
    low: tuple[Edges, Edges, Edges]


@dataclass(frozen=True)
class Tree:
    """Merges: clusters whose smallest fragments are a < b became one at a score."""

    a: U64
    b: U64
    score: NDArray[np.float64]


@dataclass(frozen=True)
class Agglomerated:
    """What is left for the parent, the merges done here, and how many clusters are finished."""

    part: Part
    tree: Tree
    closed: int


def gather(children: Sequence[Part], box: Box) -> Part:
    """One graph from the children's: steps 1 and 2."""
    names = np.concatenate([np.empty(0, np.uint64), *(child.name for child in children)])
    name, place = np.unique(names, return_inverse=True)
    mask = np.zeros(name.size, np.uint8)
    bits = [child.mask & np.uint8(faces.outer_bits(child.box, box)) for child in children]
    np.bitwise_or.at(mask, place, np.concatenate([np.empty(0, np.uint8), *bits]))
    inner = [child.edges for child in children]
    outer: tuple[list[Edges], list[Edges], list[Edges]] = ([], [], [])
    for child in children:
        for axis, crossing in enumerate(child.low):
            (inner if child.box.begin[axis] > box.begin[axis] else outer[axis]).append(crossing)
    low = (combine(outer[0]), combine(outer[1]), combine(outer[2]))
    return Part(box, name, mask, combine(inner), low)


def agglomerate(children: Sequence[Part], box: Box, *, floor: float) -> Agglomerated:
    """One step up. The floor is a mean of decoded affinities."""
    part = gather(children, box)
    edges = part.edges
    ends = [index_of(part.name, end, what="an edge").astype(np.int32) for end in (edges.a, edges.b)]
    dead = np.zeros(edges.size, np.uint8)
    graph = Graph(ends[0], ends[1], edges.total.copy(), edges.count.copy(), edges.tie.copy(), dead)
    parent = np.arange(part.name.size, dtype=np.int32)
    clusters = Clusters(parent, parent.copy(), (part.mask != 0).astype(np.uint8))
    merges, violations = greedy(clusters, graph, floor)
    if violations:
        raise Poison(
            f"{violations} edges got a better mean by adding a worse one: their sums have left the exact range",
            where=f"agglomeration of {box}",
            way_out="run `neurotile verify`: a count or a sum in the region graph cannot be right",
        )
    tree = Tree(part.name[merges.a], part.name[merges.b], merges.score)
    root = parent == np.arange(parent.size, dtype=np.int32)
    stays = root & (clusters.frozen != 0)
    left = _left(part.name[clusters.smallest], graph, clusters.frozen)
    name, mask = part.name[clusters.smallest[stays]], part.mask[stays]
    order = np.argsort(name)
    upward = Part(box, name[order], mask[order], left, part.low)
    return Agglomerated(upward, tree, closed=int(root.sum() - stays.sum()))


def _left(name: U64, graph: Graph, frozen: NDArray[np.uint8]) -> Edges:
    """The live edges between two frozen clusters, under the clusters' names."""
    rows = np.flatnonzero((graph.dead == 0) & (frozen[graph.end_a] != 0) & (frozen[graph.end_b] != 0))
    first, second = name[graph.end_a[rows]], name[graph.end_b[rows]]
    a, b = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((b, a))
    return Edges(a, b, graph.total[rows], graph.terms[rows], graph.tie[rows]).take(order)
