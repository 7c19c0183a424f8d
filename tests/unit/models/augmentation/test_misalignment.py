from collections import Counter

import numpy as np
import pytest

from models.augmentation.misalignment import Misalignment, Shift, draw_shift, misalign

SHAPE = (7, 30, 34)


def crop() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(np.prod(SHAPE), dtype=np.uint64).reshape(SHAPE)
    return labels.astype(np.float32), labels


@pytest.mark.parametrize("slip", [False, True])
@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize(("y", "x"), [(3, 5), (-3, 5), (3, -5), (-3, -5), (0, 4), (0, 0)])
def test_what_moves_and_what_does_not(slip: bool, interpolate: bool, y: int, x: int):
    image, labels = crop()
    labels_too = not (slip and interpolate)
    moved, truth = misalign(image, labels, Shift(2, y, x, slip=slip, labels_too=labels_too))
    height, width = SHAPE[1] - abs(y), SHAPE[2] - abs(x)
    top, left = max(0, -y), max(0, -x)
    assert moved.shape == truth.shape == (SHAPE[0], height, width)
    for z in range(SHAPE[0]):
        shifted = z == 2 if slip else z >= 2
        dy, dx = (y, x) if shifted else (0, 0)
        there = slice(top + dy, top + dy + height), slice(left + dx, left + dx + width)
        here = slice(top, top + height), slice(left, left + width)
        np.testing.assert_array_equal(moved[z], image[z][there])
        np.testing.assert_array_equal(truth[z], labels[z][there if labels_too else here])


def test_an_interpolated_slip_moves_one_image_section_and_no_label():
    image, labels = crop()
    slipped, truth = misalign(image, labels, Shift(3, 4, -2, slip=True, labels_too=False))
    differ = [z for z in range(SHAPE[0]) if not np.array_equal(slipped[z].astype(np.uint64), truth[z])]
    assert differ == [3]
    steps = truth[1:].astype(np.int64) - truth[:-1].astype(np.int64)
    assert (steps == SHAPE[1] * SHAPE[2]).all()


def test_draws_are_as_often_as_stated_and_reach_both_sides():
    shifts = [draw_shift(Misalignment(), 20, np.random.default_rng(seed)) for seed in range(4000)]
    kinds = Counter("none" if s is None else "slip" if s.slip else "translation" for s in shifts)
    assert kinds["translation"] == pytest.approx(2000, abs=150)
    assert kinds["slip"] == pytest.approx(800, abs=120)
    made = [s for s in shifts if s is not None]
    assert {s.y for s in made} == {s.x for s in made} == set(range(-16, 17))
    assert {s.z for s in made} == set(range(1, 19))
    assert all(s.labels_too != s.slip for s in made)
    baseline = [draw_shift(Misalignment(interpolate=False), 20, np.random.default_rng(seed)) for seed in range(50)]
    assert all(s.labels_too for s in baseline if s is not None)


def test_two_sections_are_too_few():
    assert draw_shift(Misalignment(translation=1.0, slip=0.0), 2, np.random.default_rng(0)) is None
