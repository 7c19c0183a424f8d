"""Mutex watershed of one array: clusters by attractive edges, kept apart by repulsive ones, in order of strength.

An edge (c, p) joins voxel p with p + offset of channel c, where both lie in the array and in the mask. The first
channels are attractive. Edges are ordered by (strength descending, c ascending, position of p ascending), strictly;
ops/mutex_edges.py says what strength is. Repulsive channels may be thinned out by strides: their edges are those at
voxels whose coordinates in the layer are multiples of the strides.

1. Every voxel starts as a cluster of its own. An attractive edge of strength 0 does not exist.
2. Edges are decided in order. Both ends in one cluster, or a mutex between their clusters: nothing happens.
3. Otherwise an attractive edge joins the two clusters; the new one has the mutexes of both. A repulsive edge puts a
   mutex between them.

How it is done (Wolf et al. 2018 for the definition; filter-Kruskal for the way):
4. All edges are never in memory. They are taken in bands of strength, strongest first. One pass over the volume
   collects the edges of a band, they are sorted, then decided.
5. "Same cluster" and "mutex" are final. So the pass leaves out edges whose ends already have one root or mutexed
   roots: most of the weaker edges. The first sight of a band is a sample of rows, which says how low it may reach for
   about `BAND` survivors per voxel.
6. If survivors do not fit the buffer, the band is cut at a higher strength and collected again. A band of a single
   strength is collected in its final order: it is decided a buffer at a time, and collecting goes on from there.
7. Edges come in random spatial order, so looking up roots waits for memory. A batch of edges is looked up first,
   independently, which overlaps the waits and drops what is final already; then the batch is decided in order.

Memory above the input: 12 bytes a voxel (forest, heads of lists, roots), the buffer, 32 to 50 bytes a mutex.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WrongShape, WrongType
from pipeline.geometry import Index
from pipeline.ops.compiled import compiled
from pipeline.ops.mutex_edges import CHANNEL, Scene, State, emit, new_scan, scene
from pipeline.ops.mutex_table import Mutexes, exclude, exclude_each_other, grown, has_room, join, no_mutexes, root_of

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

BAND = 0.25  # edges per voxel that a band shall have
BUFFER = 1.5  # bands that fit the buffer
SAMPLED = 1 << 20  # edges looked at before a band
BATCH = 64  # edges looked up ahead
TYPES = (np.uint8, np.uint16, np.float32)


def mutex_watershed(
    affinities_CZYX: NDArray[Any],
    offsets: Sequence[Index],
    *,
    attractive: int,
    code_table: NDArray[np.integer] | None = None,
    strides: Index = (1, 1, 1),
    mask_ZYX: NDArray[np.bool_] | None = None,
    origin: Index = (0, 0, 0),
) -> tuple[U32, int]:
    """Labels 1, 2, ... in the order of first voxels, 0 where the mask is false; and how many there are.

    Codes are uint8, uint16 (decoded by a monotone table to 0..65535; by default linear) or float32 in [0, 1].
    """
    _check(affinities_CZYX, offsets, attractive, code_table, strides, mask_ZYX)
    edges = scene(affinities_CZYX, offsets, attractive, code_table, strides, origin)
    shape = affinities_CZYX.shape[1:]
    roots = np.arange(shape[0] * shape[1] * shape[2], dtype=np.int32)
    if mask_ZYX is not None:
        roots.reshape(shape)[~mask_ZYX] = -1
    _Bands(edges, roots).decide_all()
    count = _number(roots)
    return roots.view(np.uint32).reshape(shape), count


def _check(
    affinities_CZYX: NDArray[Any],
    offsets: Sequence[Index],
    attractive: int,
    code_table: NDArray[np.integer] | None,
    strides: Index,
    mask_ZYX: NDArray[np.bool_] | None,
) -> None:
    """Refuse what cannot be meant, or cannot be numbered."""
    shape = affinities_CZYX.shape
    if affinities_CZYX.dtype not in TYPES:
        raise WrongType(
            f"affinities are {affinities_CZYX.dtype}; a mutex watershed takes uint8, uint16 or float32",
            way_out="store codes, or cast to float32",
        )
    if len(shape) != 4 or shape[0] != len(offsets) or not 0 <= attractive <= shape[0] or min(strides) < 1:
        raise WrongShape(
            f"affinities of shape {shape} do not fit {len(offsets)} offsets, {attractive} of them attractive",
            way_out="give (channel, z, y, x), one offset (z, y, x) per channel, and strides of at least 1",
        )
    if affinities_CZYX.size > 1 << 32 or affinities_CZYX[:1].size > np.iinfo(np.int32).max:
        raise WrongShape(
            f"affinities of shape {shape} are {affinities_CZYX.size:,} edges; one call numbers 2**32 of them at most",
            way_out="use smaller tiles",
        )
    if mask_ZYX is not None and mask_ZYX.shape != shape[1:]:
        raise WrongShape(f"a mask of shape {mask_ZYX.shape} for affinities of shape {shape}")
    if code_table is not None and affinities_CZYX.dtype != np.float32:
        table, codes = np.asarray(code_table), np.iinfo(affinities_CZYX.dtype).max + 1
        if table.shape != (codes,) or table[0] < 0 or table[-1] > 65535 or (np.diff(table.astype(np.int64)) < 0).any():
            raise WrongShape(
                f"a code table of shape {table.shape} for {affinities_CZYX.dtype}",
                way_out=f"give {codes} integers from 0 to 65535 that do not fall",
            )


class _Bands:
    """The state between bands. `roots` holds every voxel's root as of the band's start, -1 where masked."""

    def __init__(self, edges: Scene, roots: I32) -> None:
        self._edges = edges
        self._roots = roots
        self._link = np.full(roots.size, -1, np.int32)
        self._mutexes = no_mutexes(roots.size)
        height, width = edges.codes_CZYX.shape[2:]
        self._wanted = max(1, int(BAND * roots.size))
        self._keys = new_keys(int(BUFFER * self._wanted) + width)
        self._scan = new_scan(width)
        self._steps = np.array(edges.offsets).reshape(-1, 3) @ np.array([height * width, width, 1])

    def decide_all(self) -> None:
        """Bands from the strongest edge down; leaves the final roots."""
        high = self._edges.strongest + 1
        while high > 1:
            low = self._reach(high)
            high = self._decide_band(low, high)
            _flatten(self._link, self._roots)

    def _reach(self, high: int) -> int:
        """How low the next band shall go, from a sample of the edges that could be in it."""
        every = max(1, self._edges.codes_CZYX.size // SAMPLED) | 1
        count = self._emit(1, high, every)
        rank = self._wanted // every
        if rank >= count and self._at_end():
            return 1
        keys = np.partition(self._keys[:count], min(rank, count - 1))
        return self._strength(keys[min(rank, count - 1)])

    def _decide_band(self, low: int, high: int) -> int:
        """Decide the strongest edges below `high`, as many as fit or of one strength; how low that went."""
        count = self._emit(low, high)
        while not self._at_end() and high - low > 1:
            middle = self._strength(np.partition(self._keys[:count], count // 2)[count // 2])
            low = max(middle, low + 1)
            count = self._emit(low, high)
        self._decide(count)
        while not self._at_end():
            _flatten(self._link, self._roots)
            self._decide(self._emit(low, high, resume=True))
        return low

    def _emit(self, low: int, high: int, every: int = 1, *, resume: bool = False) -> int:
        if not resume:
            self._scan.place[:] = 0
        state = State(self._roots, self._link, self._mutexes.slots)
        return emit(self._edges, low, high, state, self._keys, self._scan, every)

    def _at_end(self) -> bool:
        return bool(self._scan.place[CHANNEL] == len(self._steps))

    def _strength(self, key: np.uint64) -> int:
        return self._edges.strongest - (int(key) >> 32)

    def _decide(self, count: int) -> None:
        keys = self._keys[:count]
        keys.sort()
        done = 0
        needed = np.zeros(1, np.int64)
        while done < count:
            done = _decide(keys, done, self._steps, self._edges.attractive, self._link, self._mutexes, needed)
            if done < count:
                self._mutexes = grown(self._mutexes, self._link, int(needed[0]))


def new_keys(size: int) -> U64:
    """The buffer of a band's edges."""
    return np.empty(size, np.uint64)


@compiled
def _flatten(link: I32, roots: I32) -> None:
    """Bring every voxel's root up to date."""
    for voxel in range(roots.size):
        if roots[voxel] >= 0:
            roots[voxel] = root_of(link, voxel)


@compiled
def _look_up(keys: U64, begin: int, steps: I64, link: I32, slots: U64, batch: I32, number: I64) -> int:
    """Roots of both ends of a batch of edges, and their places, where these are not final; how many."""
    end = min(begin + BATCH, keys.size)
    voxels = np.uint64(link.size)
    for place in range(begin, end):
        edge = keys[place] & np.uint64(0xFFFFFFFF)
        channel = np.int64(edge // voxels)
        near = np.int64(edge % voxels)
        batch[place - begin, 0] = root_of(link, near)
        batch[place - begin, 1] = root_of(link, near + steps[channel])
        batch[place - begin, 2] = channel
    kept = 0
    for row in range(end - begin):
        a, b = batch[row, 0], batch[row, 1]
        if a != b and not exclude_each_other(link, slots, a, b):
            batch[kept, 0], batch[kept, 1], batch[kept, 2] = a, b, batch[row, 2]
            number[kept] = begin + row
            kept += 1
    return kept


@compiled
def _decide(keys: U64, begin: int, steps: I64, attractive: int, link: I32, mutexes: Mutexes, needed: I64) -> int:
    """Decide edges in order until there is no room for the next one; which that is, and the pairs it needs."""
    slots, head, entries, counts = mutexes
    batch = np.empty((BATCH, 3), np.int32)
    number = np.empty(BATCH, np.int64)
    while begin < keys.size:
        kept = _look_up(keys, begin, steps, link, slots, batch, number)
        for row in range(kept):
            a, b = root_of(link, batch[row, 0]), root_of(link, batch[row, 1])
            if a == b or exclude_each_other(link, slots, a, b):
                continue
            attracts = batch[row, 2] < attractive
            if link[a] > link[b]:  # a has the shorter list
                a, b = b, a
            pairs = ~link[b] if attracts else 1
            if not has_room(slots, entries, counts, pairs):
                needed[0] = pairs
                return int(number[row])
            if attracts:
                join(link, slots, head, entries, counts, a, b)
            else:
                exclude(link, slots, head, entries, counts, a, b)
        begin += BATCH
    return keys.size


@compiled
def _number(roots: I32) -> int:
    """Replace roots by numbers from 1 on, in the order of first voxels; how many."""
    number = np.zeros(roots.size, np.int32)
    count = 0
    for voxel in range(roots.size):
        root = roots[voxel]
        if root < 0:
            roots[voxel] = 0
            continue
        if number[root] == 0:
            count += 1
            number[root] = count
        roots[voxel] = number[root]
    return count


@compiled
def named(labels_ZYX: U32, origin: Index) -> tuple[U64, U64, I64]:
    """Labels called by the id of their first voxel in this array; these names, ascending; their volumes.

    Also for a part of a labelled array, whose labels then have gaps and are out of order.
    """
    depth, height, width = labels_ZYX.shape
    largest = np.uint32(0)
    for label in labels_ZYX.flat:
        largest = max(largest, label)
    row_of = np.full(largest + 1, -1, np.int64)
    named_ZYX = np.zeros((depth, height, width), np.uint64)
    name = np.empty(largest, np.uint64)
    volume = np.zeros(largest, np.int64)
    found = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = labels_ZYX[z, y, x]
                if label == 0:
                    continue
                if row_of[label] < 0:
                    row_of[label] = found
                    name[found] = 1 + ((z + origin[0]) << 42 | (y + origin[1]) << 21 | (x + origin[2]))
                    found += 1
                row = row_of[label]
                named_ZYX[z, y, x] = name[row]
                volume[row] += 1
    return named_ZYX, name[:found].copy(), volume[:found].copy()
