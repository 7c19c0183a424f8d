import numpy as np

from models.augmentation.plain import Plain, blur_sections, change, fill_sections, greyscale

SHAPE = (6, 12, 12)
GREYS = [0.6007748, 0.0231586, 0.3444208]
LABELS = [2, 2, 4]


def crop(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(SHAPE, np.float32), rng.integers(0, 9, SHAPE, dtype=np.uint64)


def test_the_generator_decides_everything():
    image, labels = crop()
    first = change(image, labels, Plain(), np.random.default_rng(3))
    again = change(image, labels, Plain(), np.random.default_rng(3))
    other = change(image, labels, Plain(), np.random.default_rng(4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_the_input_is_left_alone_and_values_stay_in_range():
    image, labels = crop()
    before = image.copy(), labels.copy()
    for seed in range(30):
        changed, _ = change(image, labels, Plain(), np.random.default_rng(seed))
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_nothing_happens_when_everything_is_off():
    image, labels = crop()
    off = Plain(greyscale=0, missing=0, blur=0, noise=0, flip=False)
    same, unchanged = change(image, labels, off, np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(unchanged, labels)


def test_greyscale_is_monotone_within_a_section():
    image, _ = crop()
    changed = greyscale(image, 0.5, 0.5, np.random.default_rng(0))
    for before, after in zip(image, changed, strict=True):
        order = np.argsort(before, axis=None)
        assert (np.diff(after.ravel()[order]) >= 0).all()


def test_missing_sections_are_uniform_and_few():
    image, _ = crop()
    before = image.copy()
    fill_sections(image, 2, np.random.default_rng(0))
    changed = [z for z in range(SHAPE[0]) if not np.array_equal(image[z], before[z])]
    assert 1 <= len(changed) <= 2
    assert all(np.ptp(image[z]) == 0 for z in changed)


def test_blur_keeps_a_constant_and_smooths():
    image, _ = crop()
    before = image.copy()
    blur_sections(image, 3, np.random.default_rng(0))
    changed = [z for z in range(SHAPE[0]) if not np.array_equal(image[z], before[z])]
    assert 1 <= len(changed) <= 3
    assert all(image[z].std() < before[z].std() for z in changed)
    constant = np.full(SHAPE, 0.25, np.float32)
    blur_sections(constant, 3, np.random.default_rng(0))
    assert (constant == 0.25).all()


def test_what_it_draws_stays_as_it_is():
    """The shipped weights are made again from their config: the same crops must come out."""
    image, labels = crop()
    changed, truth = change(image, labels, Plain(), np.random.default_rng(7))
    np.testing.assert_allclose(changed[::2, 3, 5], GREYS, atol=1e-5)
    assert truth[::2, 3, 5].tolist() == LABELS
