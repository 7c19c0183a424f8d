import numpy as np
import pytest

from models.augmentation.occlusion import Occlusion, cover, occlude

SHAPE = (20, 64, 64)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9])
def test_boxes_cover_the_share_and_no_more_than_one_box_beyond(share: float):
    image = np.full(SHAPE, 2.0, np.float32)
    covered = cover(image, Occlusion(), share, np.random.default_rng(0))
    np.testing.assert_array_equal(covered, image != 2.0)
    assert 0 <= image[covered].min() <= image[covered].max() < 1
    assert share * covered.size < np.count_nonzero(covered) <= share * covered.size + 6 * 30 * 30


def test_a_box_is_flat_and_has_sides_in_the_range():
    for seed in range(300):
        covered = cover(np.zeros(SHAPE, np.float32), Occlusion(), 0.0, np.random.default_rng(seed))
        depth, height, width = (int(np.ptp(where)) + 1 for where in np.nonzero(covered))
        assert height == width
        assert 6 <= height <= 30
        assert depth == max(1, round(height * 0.2))
        assert np.count_nonzero(covered) == depth * height * width


def test_a_crop_smaller_than_a_box_is_covered():
    image = np.full((2, 4, 40), 2.0, np.float32)
    cover(image, Occlusion(), 0.5, np.random.default_rng(0))
    assert (image != 2.0).mean() > 0.5


def test_the_generator_decides():
    def occluded(seed: int) -> bytes:
        image = np.ones(SHAPE, np.float32)
        occlude(image, Occlusion(), np.random.default_rng(seed))
        return image.tobytes()

    assert occluded(4) == occluded(4)
    assert occluded(4) != occluded(5)


def test_all_of_a_crop_is_too_much():
    with pytest.raises(ValueError, match="below 1"):
        Occlusion(volume=1.0)
