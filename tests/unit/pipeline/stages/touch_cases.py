"""Self-touches on a chain of stages, judged by a stand-in for the network whose answers depend on patches alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from conftest import LAYER

from models.mean_embeddings import Judged
from models.offsets import METRIC
from models.spec import WeightsSpec
from pipeline.stages.judge import Judge

HIDDEN = ((0, 1, 0), (1, 0, 1))
OWN = 0.6  # threshold of the distance
ON = {"enabled": True, "theta_self_contact": 0.1, "min_contact_edges": 2, "window": [3, 8, 8], "theta_d": OWN}
IMAGE = np.random.default_rng(3).integers(0, 256, LAYER.shape).astype(np.uint8)
SPEC = WeightsSpec(
    architecture={"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 5, "background": 1}, "crop": [1, 2, 2]},
    offsets=METRIC[:3],
    voxel_size_nm=(30.0, 12.0, 12.0),
    patch=(8, 20, 20),
    stride=(4, 10, 10),
    delta=1.5,
)


def judge(self: Judge, candidates: Any) -> Judged:
    """A stand-in for the network: what it says depends on the patch alone."""
    voxels = np.array([[16, 16] for _ in candidates], np.int64).reshape(-1, 2)
    distance = np.array([float(c.patch_ZYX.sum() % 97) / 60 for c in candidates])
    sections = np.array([np.random.default_rng(int(c.patch_ZYX.sum())).normal(size=(5, 16, 16)) for c in candidates])
    return Judged(voxels, distance, sections.reshape(-1, 5, 16, 16).astype(np.float16))


FACTS = {"self_touch_weights": {"sha256": "0" * 64, "spec": SPEC.to_json(), "patch": list(SPEC.patch)}}
