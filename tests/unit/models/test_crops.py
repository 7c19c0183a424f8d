"""Where crops come from, and that loaders of any kind hand out the same ones in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from models.augmentation.plain import Plain
from models.crops import Drawing, Sample, draw
from models.prefetch import Batches

UNCHANGED = Plain(greyscale=0, missing=0, blur=0, noise=0, flip=False)


@dataclass(frozen=True)
class Numbers:
    """A volume whose voxels are their own numbers, from a first one on."""

    shape: tuple[int, int, int]
    first: int = 0

    def read(self, begin, end) -> np.ndarray:
        whole = np.arange(self.first, self.first + np.prod(self.shape)).reshape(self.shape)
        return whole[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]


def sample(shape: tuple[int, int, int], first: int = 0, myelin: tuple[int, ...] = ()) -> Sample:
    return Sample(Numbers(shape), Numbers(shape, first), myelin)


def test_samples_are_drawn_by_their_volume():
    samples = [sample((4, 8, 8), 0), sample((4, 8, 24), 10_000)]
    drawing = Drawing((1, 1, 1), 400, augmentation=UNCHANGED)
    found = Counter(bool(labels.min() >= 10_000) for labels in draw(samples, drawing, 0).labels_BZYX)
    assert 0.67 < found[True] / 400 < 0.83


def test_labels_and_parts_are_those_of_the_output():
    labels = np.zeros((6, 20, 20), np.uint64)
    labels[:, :, :6], labels[:, :8, 10:], labels[:, 12:, 10:] = 7, 3, 3  # two arms of 3 that meet nowhere

    class Fixed:
        shape = labels.shape

        def read(self, begin, end) -> np.ndarray:
            return labels[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]

    drawing = Drawing((6, 20, 20), 1, augmentation=UNCHANGED, crop=(1, 2, 2), parts=True)
    batch = draw([Sample(Fixed(), Fixed(), myelin=(7,))], drawing, 0)
    assert batch.images_BZYX.shape == (1, 6, 20, 20)
    np.testing.assert_array_equal(batch.labels_BZYX[0], labels[1:-1, 2:-2, 2:-2])
    (parts,) = batch.parts
    assert sorted(parts.objects.tolist()) == [3, 3, 7]
    assert parts.parts_ZYX.shape == (4, 16, 16)
    assert batch.background_BZYX is not None
    np.testing.assert_array_equal(batch.background_BZYX[0], batch.labels_BZYX[0] != 3)


@pytest.mark.parametrize("loaders", [1, 2])
def test_batches_come_in_order_whoever_draws_them(loaders: int):
    samples, drawing = [sample((6, 20, 20))], Drawing((4, 8, 8), 2, seed=5)
    with Batches(samples, drawing, first=3, last=9, loaders=loaders) as batches:
        for step in range(3, 9):
            np.testing.assert_array_equal(batches.take().images_BZYX, draw(samples, drawing, step).images_BZYX)


def test_an_error_of_a_loader_reaches_the_loop():
    with (
        Batches([sample((2, 8, 8))], Drawing((4, 8, 8), 1), first=0, last=2) as batches,
        pytest.raises(ValueError, match="high"),
    ):
        batches.take()
