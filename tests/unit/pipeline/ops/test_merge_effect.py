"""What merges do to VOI: against relabelling and counting anew."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ops.evaluate import Pairs, merge, pairs, scores
from pipeline.ops.merge_effect import Point, accepted, best, effect, effect_by_round, sweep, united

MEASURES = ("voi_split", "voi_merge", "voi")


def random_pairs(seed: int, rows: int) -> Pairs:
    rng = np.random.default_rng(seed)
    truth, segment = rng.integers(0, 5, rows).astype(np.uint64), rng.integers(0, 9, rows).astype(np.uint64)
    large = np.uint64(1) << np.uint64(60)
    return merge([Pairs(truth * large, segment + large, rng.integers(1, 10 ** rng.integers(1, 9), rows))])


def relabelled(counted: Pairs, one: int, other: int) -> Pairs:
    segment = np.where(counted.segment == other, np.uint64(one), counted.segment)
    return merge([Pairs(counted.truth, segment, counted.voxels)])


@pytest.mark.parametrize("ignore", [True, False])
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_every_pair_changes_what_counting_anew_finds(ignore: bool, seed: int, rows: int) -> None:
    counted = random_pairs(seed, rows)
    names = np.append(np.unique(counted.segment), np.uint64(3)).tolist()  # 3 is nowhere
    first, second = np.array(list(combinations(names, 2)), np.uint64).T
    found = effect(counted, first, second, ignore_truth_zero=ignore)
    before = scores(counted, ignore_truth_zero=ignore)
    for row, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        after = scores(relabelled(counted, one, other), ignore_truth_zero=ignore)
        changes = (found.split[row], found.merge[row], found.sum[row])
        for name, change in zip(MEASURES, changes, strict=True):
            if before[name] is None:
                assert np.isnan(change)
            else:
                assert change == pytest.approx(after[name] - before[name], abs=1e-9)  # type: ignore[operator]


def test_right_merges_fall_and_wrong_ones_rise() -> None:
    truth = np.array([[[1, 1, 2, 2, 0, 0]]], np.uint64)
    counted = pairs(truth, np.array([[[1, 3, 2, 2, 8, 9]]], np.uint64))
    found = effect(counted, np.array([1, 1, 8, 2], np.uint64), np.array([3, 2, 9, 2], np.uint64))
    assert found.split.tolist() == [-0.5, 0.0, 0.0, 0.0]
    assert found.merge[0] == 0.0
    assert found.merge[1] == pytest.approx((np.log2(3) + 2 * np.log2(1.5)) / 4)
    assert np.sign(found.sum).tolist() == [-1, 1, 0, 0]
    assert found.take(np.array([1])).merge[0] == found.merge[1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_merging_many_is_merging_one_after_the_other(seed: int) -> None:
    counted, rng = random_pairs(seed, 50), np.random.default_rng(seed)
    names = np.unique(counted.segment)
    first, second = rng.choice(names, (2, int(rng.integers(0, 6))))
    name = {one: one for one in names.tolist()}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((name[one], name[other]))
        name = {key: low if value == high else value for key, value in name.items()}
    renamed = np.array([name[one] for one in counted.segment.tolist()], np.uint64)
    expected, found = merge([Pairs(counted.truth, renamed, counted.voxels)]), united(counted, first, second)
    for column in ("truth", "segment", "voxels"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


def test_a_threshold_merges_what_is_nearer_and_may_be_merged() -> None:
    truth = np.array([[[1, 1, 1, 1, 2, 2]]], np.uint64)
    counted = pairs(truth, np.array([[[1, 2, 3, 4, 5, 5]]], np.uint64))
    candidates = np.array([1, 2, 4, 4, 3], np.uint64), np.array([2, 3, 5, 3, 4], np.uint64)
    distance, eligible = np.array([0.5, 1.0, 2.0, np.nan, 0.1]), np.array([True, True, True, True, False])
    assert accepted(distance, eligible, 1.0).tolist() == [True, False, False, False, False]
    points = sweep(counted, candidates, distance, eligible, (0.0, 0.5, 0.75, 1.5, 9.0))
    assert [point.accepted for point in points] == [0, 0, 1, 2, 3]
    assert points[0].voi == scores(counted)["voi"]
    assert [round(point.voi_split or 0, 3) for point in points] == [1.333, 1.333, 1.0, 0.541, 0.541]
    assert points[4].voi_merge == pytest.approx((np.log2(3) + 2 * np.log2(1.5)) / 6)  # 4 and 5 together
    assert best(points) == points[3]


def test_nothing_to_measure_is_no_number() -> None:
    counted = pairs(np.zeros((1, 1, 2), np.uint64), np.array([[[1, 2]]], np.uint64))
    one, other = np.array([1], np.uint64), np.array([2], np.uint64)
    assert np.isnan(effect(counted, one, other).sum).all()
    points = sweep(counted, (one, other), np.array([0.1]), np.array([True]), [1.5])
    assert points == [Point(1.5, 1, None, None, None, None)]
    assert best(points) is None
    none = np.empty(0, np.uint64)
    assert effect(counted, none, none).split.size == 0


def test_a_round_begins_with_what_those_before_it_have_merged() -> None:
    counted = random_pairs(7, 60)
    names = np.unique(counted.segment)[:4]
    first, second = names[[0, 0, 2, 0, 0]], names[[1, 2, 3, 2, 3]]
    rounds, merged = np.array([1, 1, 1, 2, 2], np.uint8), np.array([True, False, False, True, False])
    found = effect_by_round(counted, (first, second), rounds, merged)
    early, late = effect(counted, first, second), effect(united(counted, first[:1], second[:1]), first, second)
    for name in ("split", "merge", "sum"):
        expected = np.where(rounds == 1, getattr(early, name), getattr(late, name))
        np.testing.assert_array_equal(getattr(found, name), expected)
    assert early.sum[3] != late.sum[3]
