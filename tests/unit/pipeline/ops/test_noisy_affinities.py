"""Generated affinities: equal to a slow reference, the same for every box, and like affinities."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pipeline.geometry import Box, Index
from pipeline.ops import noisy_affinities as op
from pipeline.ops.noisy_affinities import Recipe, noisy_affinities, recipe
from pipeline.ops.position_hash import U64, hash3, subkey

OFFSETS: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 3, -2))


def labels(shape: Index, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, [-(-n // 3) for n in shape])
    return coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: shape[0], : shape[1], : shape[2]].astype(np.uint64)


def slow_distance(labels_ZYX: np.ndarray, step: Index) -> np.ndarray:
    """By looking at every boundary voxel."""
    inside = Box.of_shape(labels_ZYX.shape)  # type: ignore[arg-type]
    near = []
    for p in np.ndindex(labels_ZYX.shape):
        around = [tuple(a + s * (k == axis) for k, a in enumerate(p)) for axis, s in product(range(3), (-1, 1))]
        others = [labels_ZYX[q] for q in around if all(0 <= a < n for a, n in zip(q, inside.shape, strict=True))]
        if labels_ZYX[p] == 0 or any(other != labels_ZYX[p] for other in others):
            near.append(p)
    result = np.full(labels_ZYX.shape, op.FARTHEST)
    for p in np.ndindex(labels_ZYX.shape):
        for q in near:
            away = sum(s * abs(a - b) for s, a, b in zip(step, p, q, strict=True))
            result[p] = min(result[p], away)
    return result


def slow_noise(how: Recipe, channel: int, p: Index) -> int:
    """Interpolated along z and y, then along x; every step rounded down."""

    def random(key: int, at: Index) -> int:
        return (int(hash3(U64(key), *at)) & 0xFFFF) - 32768

    own, common = subkey(how.seed, channel), subkey(how.seed, op.COMMON)
    cell = [a // s for a, s in zip(p, how.smooth_vx, strict=True)]
    c, b, a = ((v - k * s) * 256 // s for v, k, s in zip(p, cell, how.smooth_vx, strict=True))
    along = []
    for i in (0, 1):
        total = 0
        for k, j in product((0, 1), (0, 1)):
            at = (cell[0] + k, cell[1] + j, cell[2] + i)
            weight = (c if k else 256 - c) * (b if j else 256 - b)
            total += weight * (2 * random(common, at) + random(own, at))
        along.append(total >> 16)
    slow = ((256 - a) * along[0] + a * along[1]) >> 8
    return (slow + random(subkey(how.seed, op.WHITE + channel), p)) >> 2


def slow(labels_ZYX: np.ndarray, how: Recipe) -> np.ndarray:
    distance = slow_distance(labels_ZYX, how.step)
    result = np.zeros((len(how.offsets), *labels_ZYX.shape), int)
    for channel, offset in enumerate(how.offsets):
        for p in np.ndindex(labels_ZYX.shape):
            q = tuple(a + o for a, o in zip(p, offset, strict=True))
            if not all(0 <= a < n for a, n in zip(q, labels_ZYX.shape, strict=True)):
                continue
            level, shaken = op.ACROSS, op.SHAKEN_ACROSS
            if labels_ZYX[p] == labels_ZYX[q] != 0:
                d = min(distance[p], distance[q])
                level, shaken = op.INSIDE[d], op.SHAKEN[d]
            noise = slow_noise(how, channel, p)  # type: ignore[arg-type]
            value = round(65535 * level) + ((round(65535 * how.noise * shaken) * noise) >> 15)
            result[(channel, *p)] = min(max(value, 0), 65535)
    return result


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_slow_one_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y, x = (int(n) for n in rng.integers(3, 9, 3))
    how = recipe(OFFSETS, seed=seed, noise=0.1 * seed, smooth_vx=1 + seed, voxel_pm=(4000 * (1 + seed % 3), 4000, 4000))
    given = labels((z, y, x), seed)
    whole = Box.of_shape((z, y, x))
    assert np.array_equal(noisy_affinities(given, whole, whole, how), slow(given, how))


def test_every_box_of_a_volume_says_the_same() -> None:
    shape = (14, 40, 45)
    whole, given = Box.of_shape(shape), labels(shape, 3).repeat(1, 0)
    rng = np.random.default_rng(0)
    for voxel_pm in ((30000, 6000, 6000), (8000, 8000, 8000)):
        how = recipe(OFFSETS, seed=5, noise=0.4, smooth_vx=4, voxel_pm=voxel_pm)
        values = noisy_affinities(given, whole, whole, how)
        for _ in range(12):
            low = [int(rng.integers(0, n)) for n in shape]
            high = [int(rng.integers(b + 1, n + 1)) for b, n in zip(low, shape, strict=True)]
            box = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
            around = box.grow(*how.halo).clip(whole)
            part = noisy_affinities(np.ascontiguousarray(given[around.slices()]), around, box, how)
            assert np.array_equal(part, values[(..., *box.slices())])


def test_the_halo_is_needed() -> None:
    """With less around a box, its affinities are others: the test above can fail."""
    shape = (14, 40, 45)
    whole, given = Box.of_shape(shape), np.ones(shape, np.uint64)
    given[:, :, 20:] = 2
    how = recipe(OFFSETS, seed=5, noise=0.4, smooth_vx=4, voxel_pm=(8000, 8000, 8000))
    box = Box((0, 0, 21), (14, 40, 45))
    part = noisy_affinities(np.ascontiguousarray(given[box.slices()]), box, box, how)
    assert not np.array_equal(part[:3, :, :, 3:], noisy_affinities(given, whole, whole, how)[:3, :, :, 24:])


def test_they_look_like_affinities() -> None:
    shape = (16, 60, 60)
    given = np.ones(shape, np.uint64)
    given[:, :, 30:] = 2
    whole = Box.of_shape(shape)
    how = recipe(OFFSETS[:3], seed=1, noise=0.2, smooth_vx=3, voxel_pm=(8000, 8000, 8000))
    values = noisy_affinities(given, whole, whole, how) / 65535
    inside, across = values[2, :, :, 5:25], values[2, :, :, 30]
    assert inside.mean() > 0.93
    assert across.mean() < 0.15
    assert values[1, :, 1:, 29].mean() < inside.mean() - 0.2, "lower beside a boundary, along it too"
    one = inside - inside.mean()
    near, far = (one[:, :, d:] * one[:, :, :-d] for d in (1, 12))
    assert near.mean() > 0.4 * (one**2).mean(), "noise hangs together"
    assert abs(far.mean()) < 0.1 * (one**2).mean()
    other = recipe(OFFSETS[:3], seed=2, noise=0.2, smooth_vx=3, voxel_pm=(8000, 8000, 8000))
    assert not np.array_equal(noisy_affinities(given, whole, whole, other), values * 65535)
