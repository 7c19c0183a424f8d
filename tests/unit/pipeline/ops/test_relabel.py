"""Rename tables and segments, against dictionaries."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.ops import relabel
from pipeline.ops.relabel import FEW, index_of, look_up, rename, segments
from pipeline.ops.union_find import unite_pairs


def names(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def check_rename(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 30, (3, 4, 5)).astype(np.uint64)
    old = np.unique(rng.integers(1, 40, 12)).astype(np.uint64)
    new = rng.integers(0, 9, old.size).astype(np.uint64)
    table = dict(zip(old.tolist(), new.tolist(), strict=True))
    expected = [table.get(label, label) for label in labels.ravel().tolist()]
    assert rename(labels, old, new).ravel().tolist() == expected
    np.testing.assert_array_equal(
        rename(labels.transpose(2, 0, 1), old, new), rename(labels, old, new).transpose(2, 0, 1)
    )


def check_many_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    largest = int(rng.choice([20, 2**20, 2**63]))
    old = np.unique(rng.integers(0, largest, int(rng.integers(1, 200)), dtype=np.uint64))
    new = rng.integers(0, 2**64, old.size, dtype=np.uint64)
    named = rng.choice(old, FEW * old.size)
    labels = np.repeat(np.where(rng.random(named.size) < 0.8, named, rng.integers(0, largest, dtype=np.uint64)), 3)
    assert labels.size >= FEW * old.size
    piecewise = [rename(part, old, new) for part in np.array_split(labels, 3 * FEW)]
    np.testing.assert_array_equal(rename(labels, old, new), np.concatenate(piecewise))
    table = dict(zip(old.tolist(), new.tolist(), strict=True)) | {0: 0}
    assert rename(labels, old, new).tolist() == [table.get(label, label) for label in labels.tolist()]


def test_rename_is_a_dictionary() -> None:
    for seed in range(30):
        check_rename(seed)


def test_many_labels_are_renamed_as_few_are() -> None:
    for seed in range(10):
        check_many_labels(seed)


@pytest.mark.exhaustive
def test_renaming_and_components_often() -> None:
    """3 x 2,000 cases."""
    for seed in range(100, 2100):
        check_rename(seed)
        check_many_labels(seed)
        check_segments(seed)


@pytest.mark.parametrize("cached", [0, 1 << 18])
@pytest.mark.parametrize("wide", [np.uint32, np.uint64])
@pytest.mark.parametrize("named", [np.uint32, np.uint64])
def test_look_up_is_indexing(wide: type, named: type, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "CACHED_BYTES", cached)
    rng = np.random.default_rng(3)
    for shape in ((3, 40, 50), (0, 4), (7,)):
        labels = rng.integers(0, 90, shape).astype(wide)
        table = rng.integers(0, 2**31, 90).astype(named)
        found = look_up(labels, table)
        assert found.dtype == named
        np.testing.assert_array_equal(found, table[labels])
        np.testing.assert_array_equal(look_up(labels.T, table), table[labels.T])
        assert look_up(labels, table, out=found) is found
        if wide is named:
            look_up(labels, table, out=labels)
            np.testing.assert_array_equal(labels, found)


@pytest.mark.parametrize("cached", [0, 1 << 18])
def test_look_up_refuses_labels_beyond_its_table(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "CACHED_BYTES", cached)
    table = np.arange(5, dtype=np.uint64)
    for wrong in (5, 2**32 - 1, 2**64 - 1):
        with pytest.raises(ChunkCorrupt, match=str(wrong)):
            look_up(names(0, wrong, 4), table)
    with pytest.raises(ValueError, match="unsigned"):
        look_up(np.array([-1]), table)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows"):
        look_up(names(0), names())


def test_rename_keeps_background_and_large_names() -> None:
    assert rename(names(0, 2**63 + 1, 5), names(), names()).tolist() == [0, 2**63 + 1, 5]
    assert rename(names(0, 2**63 + 1, 5, 5), names(5, 2**63 + 1), names(0, 4)).tolist() == [0, 4, 0, 0]


def check_segments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, 40, (2, 30)).astype(np.uint64)
    score = rng.random(30).round(1)
    component = {n: n for n in range(1, 40)}
    for first, second, value in zip(a.tolist(), b.tolist(), score.tolist(), strict=True):
        if value > 0.5:
            low, high = sorted((component[first], component[second]))
            component = {k: low if v == high else v for k, v in component.items()}
    old, new = segments(a, b, score, 0.5)
    assert dict(zip(old.tolist(), new.tolist(), strict=True)) == {k: v for k, v in component.items() if k != v}
    assert (np.diff(old.astype(np.int64)) > 0).all()


def test_segments_are_components_named_after_their_smallest_fragment() -> None:
    for seed in range(30):
        check_segments(seed)


def test_unite_pairs_finds_smallest_members() -> None:
    root = unite_pairs(6, np.array([5, 3, 4]), np.array([3, 4, 1]))
    assert root.tolist() == [0, 1, 2, 1, 1, 1]


def test_index_of_refuses_unknown_names() -> None:
    assert index_of(names(3, 5, 9), names(9, 3), what="a face").tolist() == [2, 0]
    for known, asked in ((names(3, 5), names(4)), (names(3), names(7)), (names(), names(1))):
        with pytest.raises(ChunkCorrupt, match="a face"):
            index_of(known, asked, what="a face")
