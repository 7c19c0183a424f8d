"""Affinities generated from labels: what a middling network might say of them, for tests and runs at scale.

1. A voxel lies at a boundary if its label is 0 or differs from that of a face neighbour. Distances to the boundary are
   counted along the axes, in in-plane voxels (a step along z counts as many as it is long), up to `FARTHEST`.
2. An edge between two labels, or at label 0, has the affinity `ACROSS`; any other one that of the lesser distance of
   its ends, rising from the boundary inwards (`INSIDE`).
3. Noise is added, strongest at boundaries. Three quarters of it vary smoothly over `smooth_vx` voxels (random values on
   a lattice, interpolated; two thirds of them common to all channels, since networks miss a membrane along all axes at
   once), one quarter from voxel to voxel.

Random numbers are hashes of seed, channel and position, and all arithmetic is in integers: every value is a function of
the labels around it, the seed and its position in the layer alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.affinities import FULL_SCALE, reach
from pipeline.ops.compiled import vectorised
from pipeline.ops.position_hash import U64, Kernel, hash3, subkey

FARTHEST = 5
INSIDE = (0.62, 0.78, 0.88, 0.93, 0.95, 0.96)  # by distance to the boundary
SHAKEN = (1.6, 1.2, 0.8, 0.5, 0.35, 0.3)  # by how much of the noise
ACROSS, SHAKEN_ACROSS = 0.08, 0.9
COMMON, WHITE = 1 << 20, 1 << 21  # purposes of keys; channels have those below
HALF = 32768
_LOW16 = U64(0xFFFF)


class Recipe(NamedTuple):
    """What to make of labels."""

    offsets: tuple[Index, ...]
    seed: int
    noise: float  # 0 to 1
    smooth_vx: Index
    step: Index  # how much a voxel along each axis adds to a distance

    @property
    def halo(self) -> tuple[Index, Index]:
        """How far around a box its affinities depend on labels, before and behind."""
        z, y, x = (1 - (-FARTHEST // s) for s in self.step)
        before, after = (tuple(r + h for r, h in zip(side, (z, y, x), strict=True)) for side in reach(self.offsets))
        return (before[0], before[1], before[2]), (after[0], after[1], after[2])


class _Field(NamedTuple):
    """Labels with their surroundings, distances, and where the box lies in them and in the layer."""

    labels_ZYX: NDArray[np.uint64]
    distance_ZYX: NDArray[np.uint8]
    inset: Index
    begin: Index


class _Noise(NamedTuple):
    """A lattice of random numbers around a box, and the affinities and shares of noise by distance (last: across)."""

    lattice_ZYX: NDArray[np.int32]
    first: Index  # lattice point of its first element
    pitch: Index
    white: np.uint64
    affinity: NDArray[np.int64]
    shaken: NDArray[np.int64]


def recipe(offsets: tuple[Index, ...], *, seed: int, noise: float, smooth_vx: float, voxel_pm: Index) -> Recipe:
    """A recipe for voxels of a size: lengths count in voxels of the finest axis."""
    finest = min(voxel_pm)
    steps = [min(FARTHEST, max(1, (2 * size + finest) // (2 * finest))) for size in voxel_pm]
    pitch = [max(1, round(smooth_vx * finest / size)) for size in voxel_pm]
    return Recipe(offsets, seed, noise, (pitch[0], pitch[1], pitch[2]), (steps[0], steps[1], steps[2]))


def noisy_affinities(labels_ZYX: NDArray[np.uint64], given: Box, box: Box, how: Recipe) -> NDArray[np.uint16]:
    """Affinities of a box as whole numbers up to 65535, from the labels of the box grown by its halo, in the layer."""
    distance_ZYX = np.empty(labels_ZYX.shape, np.uint8)
    _boundaries(labels_ZYX, distance_ZYX)
    _spread(distance_ZYX, how.step)
    inset = tuple(b - g for b, g in zip(box.begin, given.begin, strict=True))
    field = _Field(labels_ZYX, distance_ZYX, (inset[0], inset[1], inset[2]), box.begin)
    values_CZYX = np.zeros((len(how.offsets), *box.shape), np.uint16)
    for channel, offset in enumerate(how.offsets):
        _fill(field, offset, _noise(how, channel, box), values_CZYX[channel])
    return values_CZYX


def _noise(how: Recipe, channel: int, box: Box) -> _Noise:
    first = tuple(b // s for b, s in zip(box.begin, how.smooth_vx, strict=True))
    shape = tuple((e - 1) // s - f + 2 for e, s, f in zip(box.end, how.smooth_vx, first, strict=True))
    lattice_ZYX = np.empty(shape, np.int32)
    begin = (first[0], first[1], first[2])
    _roll(U64(subkey(how.seed, channel)), U64(subkey(how.seed, COMMON)), begin, lattice_ZYX)
    affinity = np.array([round(FULL_SCALE * a) for a in (*INSIDE, ACROSS)], np.int64)
    shaken = np.array([round(FULL_SCALE * how.noise * s) for s in (*SHAKEN, SHAKEN_ACROSS)], np.int64)
    return _Noise(lattice_ZYX, begin, how.smooth_vx, U64(subkey(how.seed, WHITE + channel)), affinity, shaken)


@vectorised
def _boundaries(labels_ZYX: Kernel, distance_ZYX: Kernel) -> None:
    """Distance 0 at boundaries, FARTHEST elsewhere; beyond the array there is no boundary."""
    depth, height, width = labels_ZYX.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                own = labels_ZYX[z, y, x]
                at = own == U64(0)
                at |= z > 0 and labels_ZYX[z - 1, y, x] != own
                at |= y > 0 and labels_ZYX[z, y - 1, x] != own
                at |= x > 0 and labels_ZYX[z, y, x - 1] != own
                at |= z + 1 < depth and labels_ZYX[z + 1, y, x] != own
                at |= y + 1 < height and labels_ZYX[z, y + 1, x] != own
                at |= x + 1 < width and labels_ZYX[z, y, x + 1] != own
                distance_ZYX[z, y, x] = np.uint8(0) if at else np.uint8(FARTHEST)


def _spread(distance_ZYX: NDArray[np.uint8], step: Index) -> None:
    """Least sums of steps, axis by axis."""
    depth, height, width = distance_ZYX.shape
    _sweep(distance_ZYX.reshape(depth * height, width, 1), step[2])
    _sweep(distance_ZYX, step[1])
    _sweep(distance_ZYX.reshape(1, depth, height * width), step[0])


@vectorised
def _sweep(distance: Kernel, step: Kernel) -> None:
    """Forth and back along the middle axis."""
    outer, length, inner = distance.shape
    for k in range(outer):
        for j in range(1, length):
            for i in range(inner):
                distance[k, j, i] = min(distance[k, j, i], np.uint8(distance[k, j - 1, i] + step))
        for j in range(length - 2, -1, -1):
            for i in range(inner):
                distance[k, j, i] = min(distance[k, j, i], np.uint8(distance[k, j + 1, i] + step))


@vectorised
def _roll(own: Kernel, common: Kernel, first: Kernel, lattice_ZYX: Kernel) -> None:
    """Random numbers of 16 bits and a sign at lattice points: two parts common to all channels, one part own."""
    depth, height, width = lattice_ZYX.shape
    for k in range(depth):
        for j in range(height):
            for i in range(width):
                z, y, x = first[0] + k, first[1] + j, first[2] + i
                both = np.int64(hash3(common, z, y, x) & _LOW16) - HALF
                alone = np.int64(hash3(own, z, y, x) & _LOW16) - HALF
                lattice_ZYX[k, j, i] = 2 * both + alone


@vectorised
def _fill(field: Kernel, offset: Kernel, noise: Kernel, values_ZYX: Kernel) -> None:
    """One channel of a box; edges that leave the labels stay 0."""
    depth, height, width = values_ZYX.shape
    rows = noise.lattice_ZYX.shape[2]
    smooth = np.empty(rows, np.int64)
    labels, reach_z, reach_y, reach_x = field.labels_ZYX, offset[0], offset[1], offset[2]
    for z in range(depth):
        for y in range(height):
            k, j = z + field.inset[0], y + field.inset[1]
            n, m = k + reach_z, j + reach_y
            if n < 0 or n >= labels.shape[0] or m < 0 or m >= labels.shape[1]:
                continue
            _between(noise, field.begin[0] + z, field.begin[1] + y, smooth)
            low = max(0, -reach_x - field.inset[2])
            high = min(width, labels.shape[2] - reach_x - field.inset[2])
            place = (field.begin[0] + z, field.begin[1] + y, field.begin[2])
            ends = (k, j, field.inset[2]), (n, m, field.inset[2] + reach_x)
            _fill_row(field, ends, noise, smooth, place, values_ZYX[z, y], (low, high))


@vectorised
def _between(noise: Kernel, z: Kernel, y: Kernel, smooth: Kernel) -> None:
    """The lattice along x, interpolated along z and y."""
    k, j = z // noise.pitch[0], y // noise.pitch[1]
    c = ((z - k * noise.pitch[0]) << 8) // noise.pitch[0]
    b = ((y - j * noise.pitch[1]) << 8) // noise.pitch[1]
    k, j = k - noise.first[0], j - noise.first[1]
    for i in range(smooth.size):
        near = (256 - b) * noise.lattice_ZYX[k, j, i] + b * noise.lattice_ZYX[k, j + 1, i]
        far = (256 - b) * noise.lattice_ZYX[k + 1, j, i] + b * noise.lattice_ZYX[k + 1, j + 1, i]
        smooth[i] = ((256 - c) * near + c * far) >> 16


@vectorised
def _fill_row(
    field: Kernel, ends: Kernel, noise: Kernel, smooth: Kernel, place: Kernel, row: Kernel, span: Kernel
) -> None:
    here, there = ends
    own, other = field.labels_ZYX[here[0], here[1]], field.labels_ZYX[there[0], there[1]]
    near, far = field.distance_ZYX[here[0], here[1]], field.distance_ZYX[there[0], there[1]]
    pitch, first, across = noise.pitch[2], noise.first[2], len(noise.affinity) - 1
    for x in range(span[0], span[1]):
        a, b = own[here[2] + x], other[there[2] + x]
        kind = across if a != b or a == U64(0) else np.int64(min(near[here[2] + x], far[there[2] + x]))
        at = place[2] + x
        i = at // pitch
        w = ((at - i * pitch) << 8) // pitch
        slow = ((256 - w) * smooth[i - first] + w * smooth[i - first + 1]) >> 8
        fast = np.int64(hash3(noise.white, place[0], place[1], at) & _LOW16) - HALF
        value = noise.affinity[kind] + ((noise.shaken[kind] * ((slow + fast) >> 2)) >> 15)
        row[x] = np.uint16(min(max(value, 0), FULL_SCALE))
