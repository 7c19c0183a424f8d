"""Evaluation: against skimage, against a dictionary, and against the cut into blocks."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import adapted_rand_error, variation_of_information

from pipeline.ops.evaluate import merge, pairs, scores

Labels = NDArray[np.uint64]


def random_labels(seed: int, shape: tuple[int, int, int] = (6, 20, 20), most: int = 30) -> tuple[Labels, Labels]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, most, (*shape[:2], shape[2] // 4), dtype=np.uint64), 4, axis=2)
    swap = rng.random(truth.shape) < 0.3
    segments = np.where(swap, rng.integers(0, most, truth.shape, dtype=np.uint64), truth % np.uint64(most // 2 + 1))
    return truth << np.uint64(40), segments + np.uint64(7)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ignore", [True, False])
def test_agrees_with_skimage(seed: int, ignore: bool) -> None:
    truth, segments = random_labels(seed)
    found = scores(pairs(truth, segments), ignore_truth_zero=ignore)
    dense = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)  # 0 stays 0; skimage's table is dense
    ignored = (0,) if ignore else ()
    split, merged = variation_of_information(dense, segments.astype(np.int64), ignore_labels=ignored)
    error, by_truth, by_segment = adapted_rand_error(dense, segments.astype(np.int64), ignore_labels=ignored)
    expected = {
        "voi_split": split,
        "voi_merge": merged,
        "voi": split + merged,
        "voi_nats": (split + merged) * math.log(2),
        "arand": error,
        "recall": by_truth,  # skimage divides by the pairs of the truth and calls it precision
        "precision": by_segment,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_a_split_costs_split_and_a_merge_costs_merge() -> None:
    truth = np.array([[[1, 1, 2, 2]]], np.uint64)
    cut = scores(pairs(truth, np.array([[[1, 3, 2, 2]]], np.uint64)))
    assert (cut["voi_split"], cut["voi_merge"], cut["precision"], cut["recall"]) == (0.5, 0.0, 1.0, 0.5)
    glued = scores(pairs(truth, np.array([[[1, 1, 1, 1]]], np.uint64)))
    assert (glued["voi_split"], glued["voi_merge"], glued["recall"]) == (0.0, 1.0, 1.0)
    assert glued["precision"] == pytest.approx(1 / 3)
    same = scores(pairs(truth, truth))
    assert (same["voi"], same["arand"], same["truth_objects"], same["segments"], same["voxels"]) == (0.0, 0.0, 2, 2, 4)


def test_nothing_to_compare_is_no_number() -> None:
    found = scores(pairs(np.zeros((1, 2, 2), np.uint64), np.ones((1, 2, 2), np.uint64)))
    assert found["voi"] is None
    assert found["arand"] is None
    assert found["voxels"] == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 19))
def test_counts_are_exact_and_do_not_show_the_cut(seed: int, z: int, x: int) -> None:
    truth, segments = random_labels(seed, most=int(seed % 300) + 2)
    whole = pairs(truth, segments)
    listed = zip(whole.truth.tolist(), whole.segment.tolist(), whole.voxels.tolist(), strict=True)
    expected = Counter(zip(truth.ravel().tolist(), segments.ravel().tolist(), strict=True))
    assert list(listed) == [(*pair, expected[pair]) for pair in sorted(expected)]
    cuts = [(slice(0, z), slice(0, x)), (slice(0, z), slice(x, None)), (slice(z, None), slice(None))]
    blocks = merge(pairs(truth[a, :, b], segments[a, :, b]) for a, b in cuts)
    for column in ("truth", "segment", "voxels"):
        assert np.array_equal(getattr(blocks, column), getattr(whole, column))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_waterz(seed: int) -> None:
    truth, segments = random_labels(seed)
    found = scores(pairs(truth, segments))
    dense = [np.unique(labels, return_inverse=True)[1].astype(np.uint64) for labels in (truth, segments)]
    expected = waterz.evaluate(dense[1].reshape(truth.shape) + 1, dense[0].reshape(truth.shape))  # its 0 is ignored
    assert found["voi_split"] == pytest.approx(expected["voi_split"], abs=1e-6)
    assert found["voi_merge"] == pytest.approx(expected["voi_merge"], abs=1e-6)
    for ours, theirs in (("recall", "rand_split"), ("precision", "rand_merge")):
        assert found[ours] < expected[theirs] < found[ours] + 0.05  # theirs has the pairs of a voxel with itself


@pytest.mark.parametrize(("one", "other"), [("u4", "u8"), ("u8", "u4"), ("u4", "u4"), ("u2", "i8")])
def test_the_type_of_the_labels_does_not_count(one: str, other: str) -> None:
    truth, segments = random_labels(5)
    truth >>= np.uint64(40)
    expected = pairs(truth, segments)
    found = pairs(truth.astype(one), segments.astype(other))
    for column in ("truth", "segment", "voxels"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))
        assert getattr(found, column).dtype == getattr(expected, column).dtype


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        pairs(np.zeros((1, 2, 3), np.uint64), np.zeros((1, 3, 2), np.uint64))


def test_the_table_grows() -> None:
    labels = np.arange(20_000, dtype=np.uint64).reshape(2, 100, 100)
    assert pairs(labels, labels[::-1].copy()).size == 20_000


def test_merging_nothing() -> None:
    assert merge([]).size == 0
