"""A run with an embedding net that keeps its vectors: they open for everybody, are verified, and are in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from harness import SERIAL

CONFIG = """
[input.synthetic]
seed = 3
size = [8, 40, 48]
voxel_size_nm = [30.0, 12.0, 12.0]

[predict]
weights = "{weights}"
keep_embeddings = true

[fragments]
method = "mutex_watershed"

[mutex_watershed]
tile = [8, 16, 16]
halo = [2, 4, 4]

[blocks]
shape = [8, 32, 32]
chunk = [8, 16, 16]
"""


def untrained(folder: Path) -> Path:
    """An embedding net of a few weights."""
    import torch

    from models.checkpoint import save_weights
    from models.networks import build
    from models.offsets import METRIC
    from models.spec import WeightsSpec

    torch.manual_seed(0)
    heads = {"embedding": 5, "background": 1}
    spec = WeightsSpec(
        architecture={"name": "rsunet", "widths": [4, 6], "heads": heads, "crop": [1, 2, 2]},
        offsets=METRIC,
        voxel_size_nm=(30.0, 12.0, 12.0),
        patch=(8, 20, 20),
        stride=(4, 10, 10),
        delta=1.5,
    )
    path = folder / "embedding.safetensors"
    save_weights(build(spec.architecture), spec, path)
    return path


def test_vectors_of_a_run(neurotile: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG.format(weights=untrained(tmp_path)))
    root = tmp_path / "run"
    done = neurotile("run", tmp_path / "run.toml", "--out", root, "--json", *SERIAL)
    assert done.returncode == 0, done.stderr
    vectors = zarr.open_array(root / "embeddings.zarr", mode="r")
    assert (vectors.shape, vectors.dtype) == ((5, 8, 40, 48), np.float16)
    assert np.asarray(vectors[:]).any(axis=0).all()
    page = (root / "report.html").read_text()
    assert page.count('<img alt="Embedding, ') == 2
    assert "embeddings.zarr" in page
    verified = neurotile("verify", root, "--json")
    assert verified.returncode == 0, verified.stderr
    assert not json.loads(verified.stdout)["damaged"]
