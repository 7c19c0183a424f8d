"""The edges of one band of strengths that may still decide something: the reading side of ops/mutex_watershed.py.

Strengths are integers, larger is stronger, 0 means that an edge decides nothing.
* Integer codes: t = code_table[code]; attractive t, repulsive 65535 - t.
* float32: the bit patterns, as integers, of a and of float32(1) - a, after NaN and negatives became 0 and what exceeds
  1 became 1. Non-negative floats are ordered as their bit patterns are: nothing is rounded.

Either way strength is a monotone function of the code, so that a band of strengths is one interval of codes per sign,
tested without decoding. Floats are read as uint32 and counted from the first NaN pattern on, modulo 2**32: NaN, then
negatives, then all others come in the order of what they stand for.

An edge as one number: (strongest - strength) << 32 | channel * voxels + voxel. Ascending order is the order of edges.

A row of voxels is tested in one vectorised loop that writes a flag per edge: its code lies in the band, its ends have
different roots, neither is masked (root -1). Flags are then looked through eight at a time: few are set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index
from pipeline.ops.compiled import compiled
from pipeline.ops.mutex_table import exclude_each_other

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Codes = NDArray[Any]  # uint8, uint16, or float32 seen as uint32

LARGEST = 65535  # strength of an integer code
ONE = 0x3F800000  # bit patterns of float32
INFINITE = 0x7F800000
PATTERNS = 1 << 32
ZERO = PATTERNS - INFINITE - 1  # where +0.0 comes when patterns are counted from the first NaN on

CHANNEL, ROW, SEEN, FILLED = range(4)  # the next channel and row; rows that could be looked at; keys so far


class Scene(NamedTuple):
    """A volume of edges. `decoded` is empty for float32; `phase` is the first voxel of the strides' lattice."""

    codes_CZYX: Codes
    decoded: I64
    offsets: Sequence[Index]
    attractive: int  # the first channels
    strides: Index
    phase: Index
    strongest: int


class Band(NamedTuple):
    """Of one channel: the edges with (code - first) modulo the codes' type <= span, at voxels of a lattice."""

    first: np.unsignedinteger[Any]
    span: np.unsignedinteger[Any]
    repels: bool
    strongest: int
    number: int  # of the channel's first edge
    offset: Index
    strides: Index
    phase: Index


class State(NamedTuple):
    """What is decided: roots as of the band's start (-1: masked), the forest and the table of mutexes as of now."""

    roots: I32
    link: I32
    slots: U64


class Scan(NamedTuple):
    """Where the scan of a band stands, and space for a row: flags, seen one and eight at a time, and positions."""

    place: I64  # CHANNEL, ROW, SEEN, FILLED
    flags: NDArray[np.uint8]
    words: U64
    found: I32


def scene(
    affinities_CZYX: NDArray[Any],
    offsets: Sequence[Index],
    attractive: int,
    code_table: NDArray[np.integer] | None,
    strides: Index,
    origin: Index,
) -> Scene:
    """The edges of a volume that begins at an origin; nothing is copied."""
    phase = (-origin[0] % strides[0], -origin[1] % strides[1], -origin[2] % strides[2])
    decoded = np.empty(0, np.int64)
    codes_CZYX: Codes = affinities_CZYX
    if affinities_CZYX.dtype == np.float32:
        codes_CZYX = affinities_CZYX.view(np.uint32)
    elif code_table is not None:
        decoded = np.asarray(code_table, np.int64)
    else:
        decoded = np.arange(256) * 257 if affinities_CZYX.dtype == np.uint8 else np.arange(65536)
    strongest = LARGEST if decoded.size else ONE
    return Scene(codes_CZYX, decoded, offsets, attractive, strides, phase, strongest)


def new_scan(width: int) -> Scan:
    """Space for rows of a width, at the first row of the first channel."""
    words = np.zeros(width // 8 + 1, np.uint64)
    return Scan(np.zeros(4, np.int64), words.view(np.uint8), words, np.empty(width + 1, np.int32))


def emit(scene: Scene, low: int, high: int, state: State, keys: U64, scan: Scan, every: int = 1) -> int:
    """Fill `keys` with the edges low <= strength < high, in the order of their numbers, from where the scan stands.

    Returns how many. Stops before a row that may not fit: the scan is then not at its end. Looks at every n-th row.
    """
    scan.place[FILLED] = 0
    while scan.place[CHANNEL] < len(scene.offsets):
        channel = int(scan.place[CHANNEL])
        band = _band(scene, channel, low, high)
        if band and not _emit_channel(scene.codes_CZYX[channel], band, scene.decoded, state, keys, scan, every):
            break
        scan.place[CHANNEL] += 1
        scan.place[ROW] = 0
    return int(scan.place[FILLED])


def _band(scene: Scene, channel: int, low: int, high: int) -> Band | None:
    """The edges of a channel with low <= strength < high, low being at least 1; None if there can be none."""
    repels = channel >= scene.attractive
    begin, end = _interval(scene, low, high, repels=repels)
    if begin >= end:
        return None
    shift = 0 if scene.decoded.size else INFINITE + 1
    of_type = scene.codes_CZYX.dtype.type
    lattice = (scene.strides, scene.phase) if repels else ((1, 1, 1), (0, 0, 0))
    first, span = of_type((begin + shift) % PATTERNS), of_type(end - begin - 1)
    number = channel * scene.codes_CZYX[0].size
    return Band(first, span, repels, scene.strongest, number, scene.offsets[channel], *lattice)


def _interval(scene: Scene, low: int, high: int, *, repels: bool) -> tuple[int, int]:
    """The half-open interval of codes in a band of strengths; of floats, counted from the first NaN on."""
    if scene.decoded.size:
        if repels:
            ends = np.searchsorted(scene.decoded, [LARGEST - high, LARGEST - low], side="right")
        else:
            ends = np.searchsorted(scene.decoded, [low, high], side="left")
        return int(ends[0]), int(ends[1])
    if repels:
        return (0 if high > ONE else ZERO + _first_below(high)), ZERO + _first_below(low)
    return ZERO + low, (PATTERNS if high > ONE else ZERO + high)


def _first_below(limit: int) -> int:
    """The smallest float32 in [0, 1], as bits, whose repulsive strength is less."""
    below, found = -1, ONE
    while found - below > 1:
        middle = (found + below) // 2
        if int((np.float32(1) - np.uint32(middle).view(np.float32)).view(np.uint32)) < limit:
            found = middle
        else:
            below = middle
    return found


@compiled
def strength(code: np.unsignedinteger[Any], repels: bool, decoded: I64) -> np.int64:
    """The strength of an edge; compiled code must see one signed type."""
    if decoded.size:
        if repels:
            return LARGEST - np.int64(decoded[code])
        return np.int64(decoded[code])
    bits = np.int64(code)
    if bits > INFINITE:  # negative or NaN
        bits = np.int64(0)
    elif bits > ONE:
        bits = np.int64(ONE)
    if repels:
        affinity = np.uint32(bits).view(np.float32)
        return np.int64(np.float32(np.float32(1) - affinity).view(np.uint32))
    return bits


@compiled
def _emit_channel(codes_ZYX: Codes, band: Band, decoded: I64, state: State, keys: U64, scan: Scan, every: int) -> bool:
    """Add the edges of one channel; whether it was done to its end."""
    roots, link, slots = state
    place, flags, words, found = scan
    _, height, width = codes_ZYX.shape
    dz, dy, dx = band.offset
    begin, length = max(0, -dx), width - abs(dx)
    on_lattice = band.strides[2] != 1
    filled = place[FILLED]
    for row in range(place[ROW], codes_ZYX.shape[0] * height * (length > 0)):
        z = row // height
        y = row - z * height
        if not _row_has_edges(band, codes_ZYX.shape, z, y):
            continue
        place[SEEN] += 1
        if place[SEEN] % every:
            continue
        if filled + length > keys.size:
            place[ROW] = row
            place[FILLED] = filled
            return False
        near = row * width + begin
        far = near + (dz * height + dy) * width + dx
        codes = codes_ZYX[z, y, begin : begin + length]
        _flag(codes, band.first, band.span, roots[near : near + length], roots[far : far + length], flags)
        for x in found[: _set(flags, words, length, found)]:
            if on_lattice and (begin + x - band.phase[2]) % band.strides[2] != 0:
                continue
            if not exclude_each_other(link, slots, roots[near + x], roots[far + x]):
                weaker = band.strongest - strength(codes[x], band.repels, decoded)
                keys[filled] = np.uint64(weaker) << np.uint64(32) | np.uint64(band.number + near + x)
                filled += 1
    place[FILLED] = filled
    return True


@compiled
def _row_has_edges(band: Band, shape: Index, z: int, y: int) -> bool:
    """Whether the edges of a row lead into the volume, and lie on the lattice."""
    far_z, far_y = z + band.offset[0], y + band.offset[1]
    if far_z < 0 or far_z >= shape[0] or far_y < 0 or far_y >= shape[1]:
        return False
    return (z - band.phase[0]) % band.strides[0] == 0 and (y - band.phase[1]) % band.strides[1] == 0


@compiled
def _flag(
    codes: Codes,
    first: np.unsignedinteger[Any],
    span: np.unsignedinteger[Any],
    near: I32,
    far: I32,
    flags: NDArray[np.uint8],
) -> None:
    """Which edges of a row are in a band, between voxels of different roots."""
    for x in range(codes.size):
        inside = codes.dtype.type(codes[x] - first) <= span
        flags[x] = inside & (near[x] != far[x]) & ((near[x] | far[x]) >= 0)


@compiled
def _set(flags: NDArray[np.uint8], words: U64, length: int, found: I32) -> int:
    """Where flags are set; how many."""
    count = 0
    for word in range((length + 7) // 8):
        if words[word] != 0:
            for x in range(8 * word, min(8 * word + 8, length)):
                found[count] = x  # no branch: there is no telling which of the eight are set
                count += flags[x]
    return count
