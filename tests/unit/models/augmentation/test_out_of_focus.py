import numpy as np

from models.augmentation.noise import Noise, add_noise
from models.augmentation.out_of_focus import OutOfFocus, defocus

SHAPE = (20, 24, 24)


def defocused(image: np.ndarray, seed: int) -> np.ndarray:
    changed = image.copy()
    defocus(changed, OutOfFocus(), np.random.default_rng(seed))
    return changed


def test_one_to_k_sections_lose_detail():
    image = np.random.default_rng(1).random(SHAPE, np.float32)
    counts, whole = set(), []
    for seed in range(60):
        changed = defocused(image, seed)
        differ = changed != image
        sections = np.flatnonzero(differ.any(axis=(1, 2)))
        counts.add(len(sections))
        assert all(changed[z].std() < image[z].std() for z in sections)
        whole += [bool(differ[z].mean() > 0.99) for z in sections]
        assert 0 <= changed.min() <= changed.max() <= 1
    assert counts >= {1, 3, 5}
    assert max(counts) == 5
    assert {True, False} == set(whole)


def test_a_constant_stays_and_the_generator_decides():
    flat = np.full(SHAPE, 0.25, np.float32)
    np.testing.assert_allclose(defocused(flat, 0), flat, rtol=1e-6)
    image = np.random.default_rng(1).random(SHAPE, np.float32)
    np.testing.assert_array_equal(defocused(image, 3), defocused(image, 3))
    assert not np.array_equal(defocused(image, 3), defocused(image, 4))


def test_noise_is_as_strong_as_stated_and_stays_in_range():
    deviations = []
    for seed in range(50):
        image = np.full(SHAPE, 0.5, np.float32)
        add_noise(image, Noise(sigma=0.1), np.random.default_rng(seed))
        deviations.append(float(image.std()))
        edge = np.ones(SHAPE, np.float32)
        add_noise(edge, Noise(sigma=0.1), np.random.default_rng(seed))
        assert edge.max() <= 1
    assert 0.08 < max(deviations) < 0.102
    assert min(deviations) < 0.02
