"""Made-up candidates for the report's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import VoxelSize
from pipeline.ops.candidate_views import Views
from pipeline.ops.merge_effect import Effect
from pipeline.ops.self_touch import ABSTAINED, APART, REFUSED
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.self_touch_gallery import Decided

SHAPE_YX = (12, 16)


def views_of(rows: NDArray[np.integer]) -> Views:
    """The image of row n is n everywhere; the first segment is left, the second right, another one below."""
    sides = np.zeros((rows.size, *SHAPE_YX), np.uint8)
    sides[:, :9, :7], sides[:, :9, 8:], sides[:, 10:] = 1, 2, 3
    image = np.broadcast_to(rows.astype(np.uint8)[:, None, None], sides.shape)
    return Views(image, sides, np.repeat((sides * 60)[..., None], 3, axis=-1))


def candidates(count: int = 60, *, truth: bool = True, rounds: int = 1, threshold: float = 1.5) -> Decided:
    """Every tenth abstains, two more of ten are refused; the truth agrees with nearly all decisions."""
    rng = np.random.default_rng(3)
    distance = rng.uniform(0, 2 * threshold, count)
    decision = np.where(distance < threshold, MERGED, APART)
    distance[::10], decision[::10] = np.nan, ABSTAINED
    decision[4::10] = np.where(distance[4::10] < threshold, REFUSED, APART)
    table: dict[str, NDArray[Any]] = {
        "s1": np.arange(count, dtype=np.uint64) + np.uint64(1 << 40),
        "s2": np.arange(count, dtype=np.uint64) + np.uint64(2 << 40),
        **{axis: rng.integers(0, 300, count) for axis in "zyx"},
        "contacts": rng.integers(2, 6, count),
        "score_sum": np.full(count, 65535 * 30),
        "edges": np.full(count, 60),
        "voxels_1": np.full(count, 1234),
        "voxels_2": np.arange(count),
        "distance": distance,
        "decision": decision.astype(np.uint8),
        "round": (1 + np.arange(count) * rounds // max(count, 1)).astype(np.uint8),
    }
    size = 10 ** rng.uniform(-7, -1, count)
    alike = np.nan_to_num(distance, nan=3.0) + rng.normal(0, 0.1, count) < threshold
    effect = Effect(np.where(alike, -size, 0.0), np.where(alike, 0.0, size))
    size_nm = VoxelSize.from_nm([30, 12, 6])
    return Decided(table, threshold, size_nm, (3, 4, 6), views_of, effect if truth else None)
