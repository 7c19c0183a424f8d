"""The first chunks of the exact mutex watershed: blocks of voxels.

1. Nodes are the foreground voxels of a block. One with an edge that leaves the block is dirty, and has an alias.
2. All edges inside the block are numbered so that their order is that of the numbers: (strongest possible - strength),
   channel, position in the block. One sort, and ops/mutex_decide.py decides them.
3. The clusters, called by their first voxels, are the block's pieces. What is left between dirty ones goes up, and the
   edges that leave the block towards later voxels, as the strongest per cluster, voxel outside and kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WrongShape
from pipeline.geometry import Box, Index
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.mutex_decide import decide
from pipeline.ops.mutex_graph import Alias, Decide, Joined, Nodes, Part, certain, close
from pipeline.ops.mutex_rows import ATTRACTIVE, REPULSIVE, Rows, names_at, positions, united
from pipeline.ops.mutex_scan import (
    LEAVING,
    Codes,
    Edges,
    Place,
    Strengths,
    rows_between,
    stands,
    strength_of,
    voxel_names,
    within,
)

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Span = tuple[Index, Index]
Rule = tuple[int, int, int, int]  # attractive channels, strides

NUMBERS = 1 << 32  # edges of a block: half of a sort key
LAST = np.uint64(NUMBERS - 1)
FAR = 1 << 21  # beyond any coordinate


def voxel_chunk(
    strengths: Strengths, edges: Edges, place: Place, roi: Box, *, dust_vx: int = 0, decided_by: Decide = decide
) -> tuple[Joined, U64]:
    """A block's part, rename table (all pieces) and closed clusters; and its pieces, voxel by voxel."""
    block, seen = place.block, place.seen
    _check(block, len(edges.offsets))
    names_ZYX = voxel_names(strengths, seen, block.grow(edges.reach).clip(roi), roi)
    rule: Rule = (edges.attractive, *edges.strides)
    scene = (strengths.codes_CZYX, strengths.table, edges.table, rule, place.span, seen.begin)
    alias = _alias(_leaving(names_ZYX, *scene))
    corner = tuple((positions(alias.node) - block.begin).T)
    dirty_ZYX = np.zeros(block.shape, np.uint8)
    dirty_ZYX[corner] = 1
    keys = _inner_keys(names_ZYX, *scene)
    keys.sort()
    steps = edges.table @ np.array([block.shape[1] * block.shape[2], block.shape[2], 1])
    first, second, kind = _ends(keys, steps, block.voxels, edges.attractive)
    found = decided_by(first, second, kind, dirty_ZYX.reshape(-1))
    pieces_ZYX = np.ascontiguousarray(names_ZYX[block.slices(seen.begin)])
    name, volume, low, high, grows = name_pieces(pieces_ZYX, found.root, found.dirty, block.begin)
    names_ZYX[block.slices(seen.begin)] = pieces_ZYX
    names = pieces_ZYX.reshape(-1)
    a, b = names[first[found.pending]], names[second[found.pending]]
    pending = _rows(keys[found.pending], (a, b, kind[found.pending]), place)
    inner = united([pending, certain(names[found.mutex[:, 0]], names[found.mutex[:, 1]])])
    outer = rows_between(names_ZYX, strengths, edges, place, LEAVING)
    alias = Alias(alias.node, pieces_ZYX[corner], alias.low, alias.high)
    part = Part(block, Nodes(name, volume, names_at(low), names_at(high)), inner, outer, alias)
    return close(part, grows, name, name, dust_vx), pieces_ZYX


def _check(block: Box, channels: int) -> None:
    if channels * block.voxels > NUMBERS or block.voxels >= 1 << 31:
        raise WrongShape(
            f"a block of {block.shape} voxels has too many edges in {channels} channels to number them",
            way_out="use smaller blocks",
        )


def _alias(found: tuple[U64, I64, I64]) -> Alias:
    node, low, high = found
    return Alias(node, node, names_at(low), names_at(high))


def _rows(keys: U64, ends: tuple[U64, U64, U8], place: Place) -> Rows:
    """The rows behind keys."""
    a, b, kind = ends
    number = (keys & LAST).astype(np.int64)
    channel, at = np.divmod(number, place.block.voxels)
    z, y, x = (
        where + begin for where, begin in zip(np.unravel_index(at, place.block.shape), place.block.begin, strict=True)
    )
    here = (z * place.layer[1] + y) * place.layer[2] + x
    tie = (channel << CHANNEL_SHIFT | here).astype(np.uint64)
    strength = (LAST - (keys >> np.uint64(32))).astype(np.uint32)
    return Rows(np.minimum(a, b), np.maximum(a, b), kind, strength, tie)


@compiled
def _exists(
    names_ZYX: U64,
    codes_CZYX: Codes,
    table: U32,
    rule: Rule,
    edge: tuple[int, int, int, int],
    far: Index,
    origin: Index,
) -> bool:
    """Whether the edge of a channel stored at an array position, to a far end in the array, decides anything."""
    channel, z, y, x = edge
    if names_ZYX[z, y, x] == 0 or names_ZYX[far[0], far[1], far[2]] == 0:
        return False
    repulsive = 1 if channel >= rule[0] else 0
    if repulsive and not stands(z + origin[0], y + origin[1], x + origin[2], rule):
        return False
    return bool(strength_of(codes_CZYX[channel, z, y, x], table, repulsive) != 0)


@compiled
def _inner_keys(
    names_ZYX: U64, codes_CZYX: Codes, table: U32, offsets: I64, rule: Rule, span: Span, origin: Index
) -> U64:
    """The sort keys of all edges with both ends in the block."""
    low, high = span
    depth, height, width = high[0] - low[0], high[1] - low[1], high[2] - low[2]
    keys = np.empty(offsets.shape[0] * depth * height * width, np.uint64)
    count = 0
    for channel in range(offsets.shape[0]):
        dz, dy, dx = offsets[channel]
        repulsive = 1 if channel >= rule[0] else 0
        for z in range(low[0] + max(0, -dz), high[0] - max(0, dz)):
            for y in range(low[1] + max(0, -dy), high[1] - max(0, dy)):
                number = ((channel * depth + z - low[0]) * height + y - low[1]) * width - low[2]
                for x in range(low[2] + max(0, -dx), high[2] - max(0, dx)):
                    if _exists(
                        names_ZYX, codes_CZYX, table, rule, (channel, z, y, x), (z + dz, y + dy, x + dx), origin
                    ):
                        weaker = LAST - np.uint64(strength_of(codes_CZYX[channel, z, y, x], table, repulsive))
                        keys[count] = weaker << np.uint64(32) | np.uint64(number + x)
                        count += 1
    return keys[:count]


@compiled
def _ends(keys: U64, steps: I64, voxels: int, attractive: int) -> tuple[I32, I32, U8]:
    """Both ends and the kinds of edges."""
    first, second = np.empty(keys.size, np.int32), np.empty(keys.size, np.int32)
    kind = np.empty(keys.size, np.uint8)
    for row in range(keys.size):
        number = np.int64(keys[row] & LAST)
        channel = number // voxels
        at = number - channel * voxels
        first[row], second[row] = at, at + steps[channel]
        kind[row] = ATTRACTIVE if channel < attractive else REPULSIVE
    return first, second, kind


@compiled
def _leaving(
    names_ZYX: U64, codes_CZYX: Codes, table: U32, offsets: I64, rule: Rule, span: Span, origin: Index
) -> tuple[U64, I64, I64]:
    """The voxels with edges that leave the block, ascending, and the corners of the box around the far ends."""
    low, high = span
    room = 1024
    node, nearest, farthest = np.empty(room, np.uint64), np.empty((room, 3), np.int64), np.empty((room, 3), np.int64)
    count = 0
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                begins = True
                for channel in range(offsets.shape[0]):
                    for side in (1, -1):
                        far = (
                            z + side * offsets[channel, 0],
                            y + side * offsets[channel, 1],
                            x + side * offsets[channel, 2],
                        )
                        if within(far[0], far[1], far[2], span) or not _in_array(far, names_ZYX.shape):
                            continue
                        store, other = ((z, y, x), far) if side == 1 else (far, (z, y, x))
                        edge = (channel, store[0], store[1], store[2])
                        if not _exists(names_ZYX, codes_CZYX, table, rule, edge, other, origin):
                            continue
                        if begins:
                            begins = False
                            if count == room:
                                node, nearest, farthest = (
                                    _doubled(node),
                                    _doubled_rows(nearest),
                                    _doubled_rows(farthest),
                                )
                                room *= 2
                            node[count] = names_ZYX[z, y, x]
                            nearest[count], farthest[count] = FAR, -1
                            count += 1
                        _widen(nearest, farthest, count - 1, far, origin)
    return node[:count], nearest[:count], farthest[:count]


@compiled
def _widen(low: I64, high: I64, row: int, at: Index, origin: Index) -> None:
    """Grow a box to hold a voxel."""
    for axis in range(3):
        low[row, axis] = min(low[row, axis], at[axis] + origin[axis])
        high[row, axis] = max(high[row, axis], at[axis] + origin[axis])


@compiled
def _in_array(at: Index, shape: Index) -> bool:
    return 0 <= at[0] < shape[0] and 0 <= at[1] < shape[1] and 0 <= at[2] < shape[2]


@compiled
def name_pieces(names_ZYX: U64, root: I32, dirty: U8, origin: Index) -> tuple[U64, I64, I64, I64, NDArray[np.bool_]]:
    """Names, volumes, corners and dirtiness of the clusters; writes their names over those of the voxels."""
    depth, height, width = names_ZYX.shape
    row_of = np.full(root.size, -1, np.int32)
    count = 0
    names = names_ZYX.reshape(-1)
    for voxel in range(root.size):
        if names[voxel] != 0 and row_of[root[voxel]] < 0:
            row_of[root[voxel]] = count
            count += 1
    name, volume = np.zeros(count, np.uint64), np.zeros(count, np.int64)
    low, high = np.empty((count, 3), np.int64), np.empty((count, 3), np.int64)
    grows = np.zeros(count, np.bool_)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if names_ZYX[z, y, x] == 0:
                    continue
                voxel = (z * height + y) * width + x
                row = row_of[root[voxel]]
                if volume[row] == 0:
                    name[row] = names_ZYX[z, y, x]
                    low[row], high[row] = FAR, -1
                    grows[row] = dirty[voxel] != 0
                volume[row] += 1
                _widen(low, high, row, (z, y, x), origin)
                names_ZYX[z, y, x] = name[row]
    return name, volume, low, high, grows


@compiled
def _doubled(column: U64) -> U64:
    wider = np.empty(2 * column.size, column.dtype)
    wider[: column.size] = column
    return wider


@compiled
def _doubled_rows(rows: I64) -> I64:
    wider = np.empty((2 * rows.shape[0], rows.shape[1]), rows.dtype)
    wider[: rows.shape[0]] = rows
    return wider
