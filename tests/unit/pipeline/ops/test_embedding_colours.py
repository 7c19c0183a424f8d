"""Colours of vectors: principal components as numpy's SVD finds them, part by part, signs and scale fixed."""

from __future__ import annotations

import numpy as np

from pipeline.ops.embedding_colours import DARKEST, embedding_colours, principal_components, scaled


def vectors(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Of unlike spread along every channel."""
    return np.random.default_rng(seed).normal(0, 1, shape) * (1 + np.arange(shape[-1]))


def test_components_are_those_of_the_svd():
    found = vectors(0, (40, 6))
    centred = found - found.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    signs = [np.sign(axis[np.abs(axis).argmax()]) for axis in axes[:3]]
    np.testing.assert_allclose(principal_components(found), centred @ (axes[:3].T * signs), atol=1e-9)
    np.testing.assert_allclose(principal_components(found + 1000), principal_components(found), atol=1e-6)


def test_what_has_no_spread_is_nothing():
    assert not principal_components(np.full((5, 6), 0.1)).any()
    assert not principal_components(np.ones((1, 6))).any()
    line = np.arange(7.0)[:, None] * np.array([1.0, -2.0, 0.5, 0.25])
    found = principal_components(line)
    assert (np.diff(found[:, 0]) < 0).all()  # the largest entry of the axis, that of -2, counts as positive
    assert not found[:, 1:].any()
    assert not principal_components(vectors(1, (9, 2)))[:, 2].any()  # vectors may be shorter than a colour


def test_the_scale_goes_from_percentile_to_percentile():
    components = np.stack([np.arange(101.0), np.zeros(101), np.r_[-1e9, np.arange(99.0), 1e9]], axis=1)
    shades = scaled(components)
    assert shades[:3, 0].tolist() == [DARKEST, DARKEST, DARKEST]
    assert shades[98:, 0].tolist() == [255, 255, 255]
    assert (np.diff(shades[:, 0].astype(int)) >= 0).all()
    assert set(shades[:, 1]) == {round((DARKEST + 255) / 2)}
    assert len(np.unique(shades[:, 2])) > 90  # what lies far out does not matter


def test_parts_are_coloured_by_themselves_and_the_rest_is_black():
    found = np.moveaxis(vectors(2, (12, 20, 6)), 2, 0)
    parts = np.zeros((12, 20), np.int32)
    parts[:, 8:] = 5
    foreground = np.random.default_rng(3).random(parts.shape) < 0.8
    shown = embedding_colours(found, foreground, parts)
    assert shown.shape == (3, 12, 20)
    assert not shown[:, ~foreground].any()
    assert shown[:, foreground].min() == DARKEST
    for part in (0, 5):
        own = foreground & (parts == part)
        np.testing.assert_array_equal(shown[:, own].T, scaled(principal_components(found[:, own].T)))
    changed = found.copy()
    changed[:, :, 8:] *= 3
    changed[:, :, 8:] -= 2  # another patch's vectors, and what lies in the background
    changed[:, ~foreground] = 99
    np.testing.assert_array_equal(embedding_colours(changed, foreground, parts)[:, :, :8], shown[:, :, :8])
    np.testing.assert_array_equal(embedding_colours(found, foreground, parts), shown)
    assert not embedding_colours(found, np.zeros_like(foreground), parts).any()
