"""Data URIs hold what was drawn."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.png import palette_uri, rgb_uri


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(BytesIO(base64.b64decode(body)))


def test_every_pixel_is_kept():
    picture = np.random.default_rng(0).integers(0, 256, (5, 9, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(decoded(rgb_uri(picture))), picture)


def test_a_picture_without_colour_is_stored_as_grey():
    picture = np.repeat(np.random.default_rng(0).integers(0, 256, (5, 9, 1)).astype(np.uint8), 3, axis=2)
    shown = decoded(rgb_uri(picture))
    assert shown.mode == "L"
    assert np.array_equal(np.asarray(shown), picture[..., 0])


def test_a_palette_keeps_colours_and_opacity():
    uri = palette_uri(np.array([[0, 1], [2, 1]]), [(0, 0, 0), (1, 2, 3), (9, 8, 7)], [0, 128, 255])
    shown = np.asarray(decoded(uri).convert("RGBA"))
    assert shown[0, 0, 3] == 0
    assert shown[0, 1].tolist() == [1, 2, 3, 128]
    assert shown[1, 0].tolist() == [9, 8, 7, 255]
