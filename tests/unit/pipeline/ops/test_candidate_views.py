"""Views of candidates: what a table keeps, and colours from each view's own segments."""

from __future__ import annotations

import numpy as np

from pipeline.ops.candidate_views import Views, stacked, views


def made(count: int = 3) -> Views:
    rng = np.random.default_rng(1)
    image, side = rng.integers(0, 256, (count, 6, 9)), rng.integers(0, 4, (count, 6, 9))
    return views(image.astype(np.uint8), side.astype(np.uint8), rng.normal(size=(count, 5, 6, 9)).astype(np.float16))


def test_a_table_keeps_them() -> None:
    found = made()
    table = found.columns()
    assert {column.shape for column in table.values()} == {(3 * 6 * 9,)}
    again = Views.of_columns(table, (6, 9))
    for name in ("image_NYX", "sides_NYX", "colours_NYXC"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.size == 3
    assert Views.of_columns({name: column[:0] for name, column in table.items()}, (6, 9)).size == 0


def test_a_view_does_not_notice_the_others_and_is_black_where_there_is_no_segment() -> None:
    found, one = made(), made().take(np.array([1]))
    rng = np.random.default_rng(1)
    rng.integers(0, 256, (3, 6, 9)), rng.integers(0, 4, (3, 6, 9))
    sections = rng.normal(size=(3, 5, 6, 9)).astype(np.float16)
    alone = views(one.image_NYX, one.sides_NYX, sections[1:2])
    np.testing.assert_array_equal(alone.colours_NYXC, found.colours_NYXC[1:2])
    np.testing.assert_array_equal(found.colours_NYXC.any(axis=-1), found.sides_NYX != 0)


def test_two_segments_with_vectors_of_their_own_look_different() -> None:
    side = np.repeat(np.array([[1, 1, 1, 0, 2, 2, 2]], np.uint8), 4, axis=0)[None]
    sections = np.where(side == 1, 1.0, -1.0)[:, None] * np.array([1, 2, 0, -1.0])[:, None, None]
    colours = views(np.zeros_like(side), side, sections).colours_NYXC[0]
    assert len(np.unique(colours[:, :3].reshape(-1, 3), axis=0)) == 1
    assert np.abs(colours[0, 0].astype(int) - colours[0, 6]).max() > 200


def test_views_are_stacked() -> None:
    found = made()
    again = stacked([Views.none((6, 9)), found.take(np.array([0])), Views.none((6, 9)), found.take(np.array([1, 2]))])
    np.testing.assert_array_equal(again.colours_NYXC, found.colours_NYXC)
    assert stacked([Views.none((6, 9))]).columns()["image"].dtype == np.uint8
