"""Fragments of the mutex watershed on tiles, and the first chunks of the exact mutex watershed on these fragments.

The exact mutex watershed of voxels hands much upward (docs/design/mutex-watershed.md). So the first step may be taken
tile by tile. Tiles belong to the method: blocks hold whole ones, so that the answer does not depend on blocks.

1. Of every tile, core and halo, the mutex watershed is computed. What lies in the core is kept: a fragment is the part
   of a cluster inside the core, called by its first voxel there. It need not be connected.
2. A block's chunk has its fragments as nodes. Rows are the strongest attractive and the strongest repulsive edge, over
   all channels, between any two of them, and between them and fragments of other blocks.
3. ops/mutex_graph.py goes on from there: an exact mutex watershed of the graph of fragments.

What the first step may get wrong shows where two tiles overlap: nearest edges that one joins and the other separates.
They are counted across the face between the two cores, as far as both tiles see. None is what a consistent result
has; it is evidence, not a proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import AXES, Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.compiled import compiled
from pipeline.ops.mutex_graph import Alias, Joined, Nodes, Part, join
from pipeline.ops.mutex_rows import inside, names_at, positions
from pipeline.ops.mutex_scan import CROSSING, INNER, Codes, Edges, Place, Strengths, rows_between, voxel_names
from pipeline.ops.mutex_voxels import name_pieces
from pipeline.ops.mutex_watershed import mutex_watershed, named

U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """The tiles of a method, and how much around a tile's core it sees; edges that leave the tiles do not exist."""

    tiles: Grid
    halo: Index

    def seen(self, block: Box) -> Box:
        """The box of codes that decide about the tiles of a block."""
        z, y, x = self.halo
        return block.grow(self.halo, (z + 1, y + 1, x + 1)).clip(self.tiles.box)


@dataclass(frozen=True)
class Face:
    """The overlaps of a block's tiles with tiles behind one of its faces, tile by tile: which edges are joined there,
    as packed bits, how many bytes these take, and how many edges there are. Nothing of tiles with an empty core."""

    bits: U8
    size: I64
    edges: I64


@dataclass(frozen=True)
class Cut:
    """The fragments of a block, voxel by voxel, the overlaps at its faces, and those inside: edges, disagreed."""

    labels_ZYX: U64
    outside: Mapping[str, Face]
    edges: int
    disagreed: int


def cut_tiles(
    codes_CZYX: Codes, block: Box, tiling: Tiling, edges: Edges, *, code_table: NDArray[np.integer], low: int
) -> Cut:
    """The fragments of all tiles of a block, from the codes of the box that it sees."""
    seen, roi = tiling.seen(block), tiling.tiles.box
    known = block.grow(tiling.halo).clip(roi)
    foreground_ZYX = voxel_names(Strengths.of_codes(codes_CZYX, code_table, low), seen, known, roi) != 0
    labels_ZYX = np.zeros(block.shape, np.uint64)
    faces_of: dict[tuple[Index, str], Face] = {}
    for index in tiling.tiles.touching(block):
        core = tiling.tiles.block_box(index)
        region = core.grow(tiling.halo).clip(roi)
        if not foreground_ZYX[core.slices(seen.begin)].any():
            nothing = Face(np.empty(0, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))
            faces_of.update({(index, side): nothing for side, _ in _overlaps(core, tiling)})
            continue
        inside_ZYX = np.ascontiguousarray(foreground_ZYX[region.slices(seen.begin)])
        found, _ = mutex_watershed(
            np.ascontiguousarray(codes_CZYX[(slice(None), *region.slices(seen.begin))]),
            edges.offsets,
            attractive=edges.attractive,
            code_table=code_table,
            strides=edges.strides,
            mask_ZYX=inside_ZYX,
            origin=region.begin,
        )
        kept = np.ascontiguousarray(found[core.slices(region.begin)])
        labels_ZYX[core.slices(block.begin)] = named(kept, core.begin)[0]
        for side, overlap in _overlaps(core, tiling):
            faces_of[index, side] = _face(found[overlap.slices(region.begin)])
    return Cut(labels_ZYX, *_compared(faces_of))


def _compared(faces_of: Mapping[tuple[Index, str], Face]) -> tuple[dict[str, Face], int, int]:
    """Faces between tiles of one block are compared, the others put together."""
    outside: dict[str, list[Face]] = {}
    edges = disagreed = 0
    for (index, side), face in faces_of.items():
        axis, high = divmod(faces.NAMES.index(side), 2)
        z, y, x = (i + (2 * high - 1) * (a == axis) for a, i in enumerate(index))
        behind = faces_of.get(((z, y, x), (faces.LOW, faces.HIGH)[1 - high][axis]))
        if behind is None:
            outside.setdefault(side, []).append(face)
        elif high:
            found = disagreement(face, behind)
            edges, disagreed = edges + found[0], disagreed + found[1]
    return {side: _together(parts) for side, parts in outside.items()}, edges, disagreed


def _together(parts: list[Face]) -> Face:
    bits, size, edges = (np.concatenate([getattr(part, c) for part in parts]) for c in ("bits", "size", "edges"))
    return Face(bits, size, edges)


def disagreement(before: Face, after: Face) -> tuple[int, int]:
    """The edges in the overlaps across a common face, and how many of them only one of two tiles joins."""
    both = (before.size > 0) & (after.size > 0)
    differs = before.bits[np.repeat(both, before.size)] ^ after.bits[np.repeat(both, after.size)]
    return int(after.edges[both].sum()), int(np.unpackbits(differs).sum())


def _overlaps(core: Box, tiling: Tiling) -> Iterator[tuple[str, Box]]:
    """Around every face of a core with a tile behind it: what both tiles see, as wide as the core."""
    for axis in range(3):
        for side, face in ((faces.LOW[axis], core.begin[axis]), (faces.HIGH[axis], core.end[axis])):
            if tiling.tiles.box.begin[axis] < face < tiling.tiles.box.end[axis]:
                begin, end = list(core.begin), list(core.end)
                begin[axis], end[axis] = face - tiling.halo[axis], face + tiling.halo[axis]
                yield side, Box((begin[0], begin[1], begin[2]), (end[0], end[1], end[2])).clip(tiling.tiles.box)


def _face(labels_ZYX: NDArray[np.uint32]) -> Face:
    """Of an overlap: the nearest pairs of foreground voxels, and which of them have one label."""
    joined = np.zeros((len(AXES), *labels_ZYX.shape), np.bool_)
    edges = 0
    for axis in range(len(AXES)):
        here, before = _pairs(labels_ZYX, axis)
        exists = (here != 0) & (before != 0)
        _pairs(joined[axis], axis)[0][...] = exists & (here == before)
        edges += int(exists.sum())
    bits = np.packbits(joined)
    return Face(bits, np.array([bits.size]), np.array([edges]))


def _pairs(array_ZYX: NDArray[np.generic], axis: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Views of an array without its first layer along an axis, and without its last."""
    whole = (slice(None),) * axis
    return array_ZYX[(*whole, slice(1, None))], array_ZYX[(*whole, slice(None, -1))]


# ---- the graph of fragments ---------------------------------------------------------------------------------------


def fragment_chunk(labels_ZYX: U64, strengths: Strengths, edges: Edges, place: Place, *, dust_vx: int = 0) -> Joined:
    """A block's chunk, from the fragments and codes of the block grown by the longest offsets."""
    block = place.block
    rows = rows_between(labels_ZYX, strengths, edges, place, INNER | CROSSING)
    within = inside(rows.b, block)
    crossing = rows.take(~within)
    own_ZYX = np.ascontiguousarray(labels_ZYX[block.slices(place.seen.begin)])
    root = _first_voxels(own_ZYX, block.begin)
    name, volume, low, high, _ = name_pieces(own_ZYX, root, np.zeros(root.size, np.uint8), block.begin)
    nodes = Nodes(name, volume, names_at(low), names_at(high))
    outer = crossing.take(crossing.a < crossing.b)
    raw = Part(block, nodes, rows.take(within), outer, _alias(crossing.a, crossing.b))
    return join([raw], block, dust_vx=dust_vx)


def _alias(own: U64, far: U64) -> Alias:
    """Every fragment with an edge out of the block, and the corners of the box around the other ends' names."""
    node, row = np.unique(own, return_inverse=True)
    low, high = np.full((node.size, 3), 1 << 21), np.full((node.size, 3), -1)
    np.minimum.at(low, row, positions(far))
    np.maximum.at(high, row, positions(far))
    return Alias(node, node, names_at(low), names_at(high))


@compiled
def _first_voxels(labels_ZYX: U64, origin: Index) -> NDArray[np.int32]:
    """For every voxel, the place in the block of the voxel that its fragment is called by."""
    _, height, width = labels_ZYX.shape
    flat = labels_ZYX.reshape(-1)
    root = np.empty(flat.size, np.int32)
    for voxel in range(flat.size):
        code = np.int64(flat[voxel]) - 1
        z, y, x = (code >> 42) - origin[0], (code >> 21 & 0x1FFFFF) - origin[1], (code & 0x1FFFFF) - origin[2]
        root[voxel] = (z * height + y) * width + x if flat[voxel] != 0 else 0
    return root
