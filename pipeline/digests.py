"""The hash of a whole volume: C order, unpadded, little-endian, read slab by slab."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.geometry import Box

Read = Callable[[Box], np.ndarray[Any, Any]]

SLAB_BYTES = 256 << 20


def sha256_of(read: Read, box: Box, dtype: str, *, channels: int | None = None) -> str:
    """SHA-256 over `read(box)`; with channels, over the channels one after the other."""
    total = hashlib.sha256()
    _, y, x = box.shape
    step = max(1, SLAB_BYTES // (y * x * np.dtype(dtype).itemsize * (channels or 1)))
    for channel in range(channels or 1):
        for z in range(box.begin[0], box.end[0], step):
            slab = Box((z, *box.begin[1:]), (min(z + step, box.end[0]), *box.end[1:]))
            data = read(slab)
            total.update(np.ascontiguousarray(data if channels is None else data[channel], dtype=dtype).tobytes())
    return total.hexdigest()
