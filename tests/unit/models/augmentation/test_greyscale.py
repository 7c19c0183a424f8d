from dataclasses import replace

import numpy as np

from models.augmentation.greyscale import Greyscale, vary_grey

SHAPE = (6, 20, 24)


def varied(change: Greyscale, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(9).random(SHAPE, np.float32)
    changed = image.copy()
    vary_grey(changed, change, np.random.default_rng(seed))
    return image, changed


def test_greys_stay_in_range_and_the_generator_decides():
    seen = {varied(Greyscale(), seed)[1].tobytes() for seed in range(20)}
    assert len(seen) == 20
    assert varied(Greyscale(), 3)[1].tobytes() in seen
    for seed in range(20):
        changed = varied(Greyscale(), seed)[1]
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1


def test_a_section_that_is_not_split_has_one_curve():
    image, changed = varied(Greyscale(split=0.0))
    for before, after in zip(image, changed, strict=True):
        assert (np.diff(after.ravel()[np.argsort(before, axis=None)]) >= 0).all()
    curves = [np.polyfit(b.ravel(), a.ravel(), 1).tobytes() for b, a in zip(image, changed, strict=True)]
    assert len(set(curves)) == SHAPE[0]


def test_a_split_section_has_four_curves_about_one_point():
    image = np.full(SHAPE, 0.5, np.float32)
    vary_grey(image, Greyscale(split=1.0), np.random.default_rng(0))
    for section in image:
        rows = 1 + np.flatnonzero((np.diff(section, axis=0) != 0).any(axis=1))
        columns = 1 + np.flatnonzero((np.diff(section, axis=1) != 0).any(axis=0))
        assert len(rows) == len(columns) == 1
        assert len(np.unique(section)) == 4


def test_a_volume_without_sections_changes_as_a_whole():
    image, changed = varied(Greyscale(by_section=False))
    assert (np.diff(changed.ravel()[np.argsort(image, axis=None)]) >= 0).all()


def test_the_numbers_are_the_published_formula():
    change = replace(Greyscale(), split=0.0)
    image, changed = varied(change, 5)
    rng = np.random.default_rng(5)
    for before, after in zip(image, changed, strict=True):
        rng.random()
        u, v, w = rng.random(3)
        wanted = np.clip(before * (1 + (u - 0.5) * 0.5) + (v - 0.5) * 0.5, 0, 1) ** 2 ** (2 * w - 1)
        np.testing.assert_allclose(after, wanted, atol=1e-5)
