"""Growing in the plane: the nearest segment in steps, whatever part of the volume is looked at."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pipeline.geometry import Box, Grid
from pipeline.ops import faces, grow
from pipeline.ops.grow import grown_block, halo


def volume(rng: np.random.Generator) -> np.ndarray:
    shape = tuple(int(n) for n in rng.integers(2, 9, 3))
    labels = rng.integers(1, 2**60, 6).astype(np.uint64)[rng.integers(0, 6, shape)]
    labels[rng.random(shape) < rng.choice([0.3, 0.7, 0.95])] = 0
    return labels


def slow(labels: np.ndarray, steps: int) -> np.ndarray:
    """For every background voxel: of the labels fewest steps away, the smallest."""
    found = labels.copy()
    for z, y, x in np.argwhere(labels == 0).tolist():
        near = [(abs(y - j) + abs(x - i), int(labels[z, j, i])) for j, i in np.argwhere(labels[z]).tolist()]
        near = [pair for pair in near if pair[0] <= steps]
        found[z, y, x] = min(near)[1] if near else 0
    return found


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_every_voxel_goes_to_the_nearest_segment(steps: int) -> None:
    rng = np.random.default_rng(steps)
    for _ in range(40):
        labels = volume(rng)
        np.testing.assert_array_equal(grow.grow(labels, steps), slow(labels, steps))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_blocks_see_what_the_whole_does(steps: int) -> None:
    rng = np.random.default_rng(10 + steps)
    for _ in range(20):
        labels, at = volume(rng), tuple(int(n) for n in rng.integers(0, 9, 3))
        roi = Box.of_shape(labels.shape).shift(at)
        whole = slow(labels, steps)
        for index in (grid := Grid(roi, tuple(int(n) for n in rng.integers(1, 6, 3)))):
            box = grid.block_box(index)
            seen = box.grow(*halo(steps)).clip(roi)
            found = grown_block(labels[seen.slices(at)], seen, box, steps)
            np.testing.assert_array_equal(found.labels_ZYX, whole[box.slices(at)])
            np.testing.assert_array_equal(found.own_ZYX, labels[box.slices(at)])
            assert set(found.before) == {side for axis, side in enumerate(faces.LOW) if index[axis]}
            for axis, side in enumerate(faces.LOW):
                if index[axis]:
                    step = tuple(-(a == axis) for a in range(3))
                    before = whole[box.shift(step).slices(at)].take(0, axis)
                    np.testing.assert_array_equal(found.before[side], before)
            check_edges(labels, box, at, found.edges_ZYX)


def check_edges(labels: np.ndarray, box: Box, at: tuple[int, ...], edges_ZYX: np.ndarray) -> None:
    """A bit is set unless both ends were labelled; what leaves the region has no edge, and a bit."""
    for p in product(*(range(b - a, e - a) for b, e, a in zip(box.begin, box.end, at, strict=True))):
        for channel in range(3):
            q = tuple(v - (axis == channel) for axis, v in enumerate(p))
            known = min(q) >= 0 and labels[p] and labels[q]
            here = tuple(v + a - b for v, a, b in zip(p, at, box.begin, strict=True))
            assert bool(edges_ZYX[here] >> channel & 1) != bool(known)


def test_control_too_small_a_halo() -> None:
    labels = np.zeros((1, 1, 6), np.uint64)
    labels[0, 0, 0] = 7
    box = Box((0, 0, 2), (1, 1, 6))
    found = grown_block(labels[:, :, 1:], Box((0, 0, 1), (1, 1, 6)), box, 3)
    assert not np.array_equal(found.labels_ZYX, slow(labels, 3)[box.slices()])
