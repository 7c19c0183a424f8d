"""Candidates, decisions and unions: integers, no order, and guards that look at sets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.geometry import Box
from pipeline.ops.relabel import rename
from pipeline.ops.segment_pairs import PairRows
from pipeline.ops.self_touch import (
    ABSTAINED,
    APART,
    MERGE,
    REFUSED,
    Candidates,
    Guard,
    after,
    candidates,
    decide,
    in_order,
    unite,
)

NO_GUARD = Guard(0, {}, {})


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def random_pairs(rng: np.random.Generator, count: int) -> PairRows:
    edges = rng.integers(1, 30, count)
    scored = rng.integers(0, edges + 1)
    total = scored * rng.integers(0, 65536, count) // rng.integers(1, 5, count)
    position = edges[:, None] * 7 + rng.integers(0, 50, (count, 3))
    names = np.sort(rng.choice(2**60, 2 * count, replace=False)).astype(np.uint64)
    best = np.column_stack([total, scored, edges, position])
    return PairRows(names[:count], names[count:], rng.integers(1, 4, count), names[:count], best)


def test_candidates_in_fractions() -> None:
    rows = random_pairs(np.random.default_rng(0), 300)
    found = candidates(rows, threshold=250)
    expected = []
    for a, b, places, (total, scored, edges, *position) in zip(
        rows.a.tolist(), rows.b.tolist(), rows.places.tolist(), rows.best.tolist(), strict=True
    ):
        if places >= 2 and scored and Fraction(total, scored) > Fraction(65535, 4):
            point = [int(Fraction(p, edges) + Fraction(1, 2)) for p in position]
            expected.append((a, b, *point, places, total, scored))
    columns = [column.tolist() for column in found.columns().values()]
    assert list(zip(*columns, strict=True)) == sorted(expected)
    assert 20 < found.size < 280


def test_a_score_on_the_threshold_is_not_above_it() -> None:
    best = np.array([[65535, 4, 4, 0, 0, 0], [65536, 4, 4, 0, 0, 0]])
    rows = PairRows(u64(1, 2), u64(3, 4), np.array([2, 2]), u64(1, 2), best)
    assert candidates(rows, threshold=250).s1.tolist() == [2]


def test_every_point_lies_in_one_block() -> None:
    rng = np.random.default_rng(1)
    rows = candidates(random_pairs(rng, 200), threshold=100)
    halves = [rows.inside(Box((0, 0, begin), (99, 99, begin + 9))) for begin in range(0, 99, 9)]
    assert sum(half.size for half in halves) == rows.size
    back = in_order([half.take(np.arange(half.size)[::-1]) for half in halves[::-1]])
    assert back.columns().keys() == rows.columns().keys()
    for name, column in back.columns().items():
        np.testing.assert_array_equal(column, rows.columns()[name])
    assert Candidates.of_columns(rows.columns()).size == rows.size


def test_decisions() -> None:
    distance = np.array([1.4999, 1.5, 0.0, np.nan, 0.1, 9.0])
    voxels = np.array([[16, 16], [99, 99], [15, 99], [0, 50], [99, 15], [3, 3]])
    found = decide(voxels, distance, largest=1.5, least_voxels=16)
    assert found.tolist() == [MERGE, APART, ABSTAINED, ABSTAINED, ABSTAINED, ABSTAINED]


def shuffled(rng: np.random.Generator, *columns: np.ndarray) -> list[np.ndarray]:
    order = rng.permutation(columns[0].size)
    return [column[order] for column in columns]


@pytest.mark.parametrize("largest_vx", [0, 12, 30])
def test_no_order_of_the_pairs_matters(largest_vx: int) -> None:
    rng = np.random.default_rng(largest_vx)
    for _ in range(30):
        pairs = np.unique(np.sort(rng.integers(1, 15, (20, 2)), axis=1), axis=0).astype(np.uint64)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        distance = rng.integers(0, 4, len(pairs)) / 2
        decision = rng.integers(0, 3, len(pairs)).astype(np.uint8)
        kinds = {name: int(rng.choice([0, 0, 1, 2])) for name in range(1, 15)}
        guard = Guard(largest_vx, {name: int(rng.integers(1, 9)) for name in range(1, 15)}, kinds)
        results = []
        for _ in range(4):
            s1, s2, d, chosen = shuffled(rng, pairs[:, 0].copy(), pairs[:, 1].copy(), distance, decision)
            decided, (old, new) = unite(s1, s2, d, chosen, guard)
            rows = sorted(zip(s1.tolist(), s2.tolist(), decided.tolist(), strict=True))
            results.append((rows, old.tolist(), new.tolist()))
            check_union(rows, (old, new), guard)
        assert all(result == results[0] for result in results)


def check_union(rows: list[tuple[int, int, int]], names: tuple[np.ndarray, np.ndarray], guard: Guard) -> None:
    """Sets of what was merged, under their smallest name, and none that a guard forbids."""
    every = u64(*range(1, 15))
    became = dict(zip(every.tolist(), rename(every, *names).tolist(), strict=True))
    assert all(became[a] == became[b] for a, b, decision in rows if decision == MERGE)
    for root in set(became.values()):
        members = [name for name, to in became.items() if to == root]
        assert root == min(members)
        if len(members) > 1:
            assert not guard.largest_vx or sum(guard.voxels[name] for name in members) <= guard.largest_vx
            assert len({guard.kinds[name] for name in members} - {0}) <= 1


def test_what_a_guard_refuses() -> None:
    s1, s2 = u64(1, 2, 4), u64(2, 3, 5)
    merge = np.full(3, MERGE, np.uint8)
    distance = np.array([0.5, 0.1, 0.3])
    sizes = {1: 6, 2: 3, 3: 3, 4: 1, 5: 1}
    decided, (old, new) = unite(s1, s2, distance, merge, Guard(10, sizes, {}))
    assert decided.tolist() == [REFUSED, MERGE, MERGE], "the nearer pair comes first"
    assert (old.tolist(), new.tolist()) == ([3, 5], [2, 4])
    decided, _ = unite(s1, s2, distance, merge, Guard(0, {}, {1: 7, 3: 9, 4: 7}))
    assert decided.tolist() == [REFUSED, MERGE, MERGE]
    assert unite(s1, s2, distance, merge, NO_GUARD)[1][1].tolist() == [1, 1, 4]


def test_renames_after_one_another_are_one() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        names = np.arange(1, 30, dtype=np.uint64)
        first = np.minimum(names, rng.integers(1, 30, names.size).astype(np.uint64))
        first = first[(first - 1).astype(int)]  # a table of names that stay
        while not np.array_equal(first, first[(first - 1).astype(int)]):
            first = first[(first - 1).astype(int)]
        left = np.unique(first)
        second = left.copy()
        second[rng.random(left.size) < 0.4] = left[0]
        tables = [(a[a != b], b[a != b]) for a, b in ((names, first), (left, second))]
        both = after(*tables)
        assert (np.diff(both[0].astype(np.int64)) > 0).all()
        np.testing.assert_array_equal(rename(names, *both), rename(rename(names, *tables[0]), *tables[1]))
