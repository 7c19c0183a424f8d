import numpy as np

from models.augmentation.flip import Flip, flip


def orientations(shape: tuple[int, int, int], change: Flip, draws: int = 400) -> set[tuple[int, ...]]:
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    seen = set()
    for seed in range(draws):
        flipped, labels = flip(image, image.astype(np.uint64), change, np.random.default_rng(seed))
        np.testing.assert_array_equal(flipped.astype(np.uint64), labels)
        corner = flipped[0, 0, 0]
        seen.add(tuple(int(v) for v in (corner, *(flipped[n] - corner for n in ((1, 0, 0), (0, 1, 0), (0, 0, 1))))))
    return seen


def test_image_and_labels_take_every_orientation_alike():
    assert len(orientations((4, 6, 6), Flip())) == 16
    assert len(orientations((4, 6, 5), Flip())) == 8
    assert len(orientations((6, 6, 6), Flip())) == 16
    assert len(orientations((6, 6, 6), Flip(every_axis=True), 1500)) == 48
    assert len(orientations((4, 6, 6), Flip(every_axis=True))) == 16


def test_it_can_be_switched_off():
    assert orientations((6, 6, 6), Flip(probability=0.0, every_axis=True)) == {(0, 36, 6, 1)}
