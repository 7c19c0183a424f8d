"""Resampling: against the arithmetic of fractions, voxel by voxel."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.ops.resample import first_labels, mean_image, upsample_labels

SHAPES = st.tuples(*[st.integers(1, 7)] * 3)
FACTORS = st.tuples(*[st.integers(1, 3)] * 3)


def slow_mean(image: NDArray[np.uint8], factor: tuple[int, int, int]) -> NDArray[np.uint8]:
    shape = tuple(-(-n // f) for n, f in zip(image.shape, factor, strict=True))
    out = np.zeros(shape, np.uint8)
    for at in product(*(range(n) for n in shape)):
        cell = image[tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, factor, strict=True))]
        out[at] = floor(Fraction(int(cell.astype(int).sum()), cell.size) + Fraction(1, 2))
    return out


@settings(max_examples=60, deadline=None)
@given(SHAPES, FACTORS, st.integers(0, 2**32 - 1))
def test_mean_is_rounded_half_up_also_at_ragged_borders(
    shape: tuple[int, int, int], factor: tuple[int, int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(mean_image(image, factor), slow_mean(image, factor))


@pytest.mark.parametrize(("voxels", "mean"), [((0, 1), 1), ((0, 0), 0), ((254, 255), 255), ((1, 2), 2)])
def test_halves_go_up(voxels: tuple[int, int], mean: int) -> None:
    assert mean_image(np.array([[voxels]], np.uint8), (1, 1, 2)).tolist() == [[[mean]]]


def test_no_factor_changes_nothing() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(mean_image(image, (1, 1, 1)), image)


@given(SHAPES, FACTORS)
def test_labels_take_the_first_voxel_and_come_back_by_repetition(
    shape: tuple[int, int, int], factor: tuple[int, int, int]
) -> None:
    labels = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    fine = upsample_labels(labels, factor)
    assert fine.shape == tuple(n * f for n, f in zip(shape, factor, strict=True))
    assert np.array_equal(first_labels(fine, factor), labels)
    for at in product(*(range(n) for n in fine.shape)):
        assert fine[at] == labels[tuple(i // f for i, f in zip(at, factor, strict=True))]
