"""Hashes of whole volumes: C order, unpadded, little-endian, read slab by slab. Equal answers have equal hashes.

Of a run: `sha256_affinities` is that of the stored codes of all channels (ZYX after ZYX), `sha256_background` that of
the background's, where the network knows it, and `sha256` that of the labels, all over the region of interest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipeline.geometry import Box
from pipeline.outcome import Outcome
from pipeline.stages.code_source import CodeSource
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel

Read = Callable[[Box], np.ndarray[Any, Any]]

SLAB_BYTES = 256 << 20
NAMES = ("sha256_affinities", "sha256_background", "sha256")


def sha256_of(read: Read, box: Box, dtype: str, *, channels: int | None = None) -> str:
    """SHA-256 over `read(box)`; with channels, over the channels one after the other."""
    total = hashlib.sha256()
    _, y, x = box.shape
    step = max(1, SLAB_BYTES // (y * x * np.dtype(dtype).itemsize * (channels or 1)))
    if step >= box.shape[0]:
        return hashlib.sha256(np.ascontiguousarray(read(box), dtype=dtype).tobytes()).hexdigest()
    for channel in range(channels or 1):
        for z in range(box.begin[0], box.end[0], step):
            slab = Box((z, *box.begin[1:]), (min(z + step, box.end[0]), *box.end[1:]))
            data = read(slab)
            total.update(np.ascontiguousarray(data if channels is None else data[channel], dtype=dtype).tobytes())
    return total.hexdigest()


def hashes(outcome: Outcome, *, most_voxels: int | None = None) -> dict[str, str | None]:
    """The hashes of a run; None where there is nothing to hash, it is not complete, or it has more voxels than that."""
    told: dict[str, str | None] = dict.fromkeys(NAMES)
    roi = outcome.plan.layer.roi
    if not outcome.complete or (most_voxels is not None and roi.voxels > most_voxels):
        return told
    source, relabel = outcome.plan.stage(CodeSource), outcome.plan.stage(Relabel)
    channels, stored = len(source.offsets), source.code_dtype.newbyteorder("<").str
    told["sha256_affinities"] = sha256_of(partial(source.read_codes, channels=channels), roi, stored, channels=channels)
    if isinstance(source, Predict) and source.knows_background:
        told["sha256_background"] = sha256_of(source.read_background, roi, "u1")
    told["sha256"] = sha256_of(relabel.read_segmentation, roi, "<u8")
    return told
