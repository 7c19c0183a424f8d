"""Patches around points, against a mirrored and averaged volume that is held as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import Box, Index
from pipeline.ops.patches import Coarse, see, sides
from pipeline.ops.resample import mean_image


@pytest.mark.parametrize("factor", [(1, 1, 1), (1, 2, 2), (2, 3, 1)])
@pytest.mark.parametrize("extent", [(3, 4, 5), (1, 6, 2), (9, 8, 30)])
def test_a_patch_is_a_piece_of_the_mirrored_image(factor: Index, extent: Index) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 13, 11)).astype(np.uint8)
    coarse = Coarse(image.shape, factor)
    whole = tuple(n * f for n, f in zip(coarse.shape, factor, strict=True))
    small = mean_image(image[tuple(slice(n) for n in whole)], factor)
    wide = np.pad(small, 40, mode="reflect")
    asked: list[Box] = []

    def read(box: Box) -> np.ndarray:
        asked.append(box)
        return image[box.slices()]

    points = [tuple(int(n) for n in rng.integers(0, image.shape)) for _ in range(12)]
    patches = [coarse.around(point, extent) for point in points]
    seen = see(coarse, patches, read)
    assert Box.of_shape(whole).contains(asked[0])
    for point, patch in zip(points, patches, strict=True):
        middle = [min(p // f, n - 1) for p, f, n in zip(point, factor, coarse.shape, strict=True)]
        begin = [40 + m - e // 2 for m, e in zip(middle, extent, strict=True)]
        expected = wide[tuple(slice(b, b + e) for b, e in zip(begin, extent, strict=True))]
        np.testing.assert_array_equal(seen.patch(patch), expected)


def test_sides_are_first_labels_and_nothing_beyond_the_layer() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (5, 9, 8)).astype(np.uint64)
    coarse = Coarse(labels.shape, (1, 2, 2))
    window = coarse.around((0, 8, 3), (3, 4, 4))
    found = sides(coarse, window, (2, 3), lambda box: labels[box.slices()])
    for z, y, x in np.ndindex(found.shape):
        place = (z + window.begin[0], y + window.begin[1], x + window.begin[2])
        inside = all(0 <= p < n for p, n in zip(place, coarse.shape, strict=True))
        label = int(labels[place[0], 2 * place[1], 2 * place[2]]) if inside else 0
        assert found[z, y, x] == {2: 1, 3: 2}.get(label, 0)
    assert (found == 0).any()
