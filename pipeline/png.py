"""PNG pictures as data URIs, for pages that need no other file."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[Any]
COMPRESSION = 6


def rgb_uri(picture_YXC: NDArray[np.uint8]) -> str:
    """A picture in red, green, blue; one that has no colour takes a third of the bytes."""
    plain = bool((picture_YXC == picture_YXC[..., :1]).all())
    return _uri(Image.fromarray(np.ascontiguousarray(picture_YXC[..., 0] if plain else picture_YXC)))


def palette_uri(indices_YX: Plane, palette: list[tuple[int, int, int]], opacity: list[int]) -> str:
    """A picture of few colours, each with its opacity."""
    image = Image.fromarray(np.ascontiguousarray(indices_YX, dtype=np.uint8))
    image.putpalette([channel for entry in palette for channel in entry])
    return _uri(image, transparency=bytes(opacity))


def _uri(image: Image.Image, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=COMPRESSION, **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
