"""The hashes that `neurotile run --json` tells of an embedding net's answer: three grids, one worker and two.

`test_one_answer.py` does the same for a network of affinities.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import SERIAL

from models.offsets import METRIC
from pipeline.digests import NAMES
from pipeline.geometry import Box
from pipeline.rundir import RunFolder
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel
from pipeline.work import load_plan
from workers.receipts import Receipts

LAYER = (8, 28, 30)
NET: dict[str, Any] = {
    "architecture": {
        "name": "rsunet",
        "widths": [4, 6],
        "heads": {"embedding": 5, "background": 1},
        "crop": [1, 2, 2],
    },
    "offsets": METRIC,
    "voxel_size_nm": (30.0, 12.0, 12.0),
    "patch": (8, 20, 20),
    "stride": (4, 10, 10),
    "delta": 1.5,
    "background_threshold": 0.45,
}
CONFIG = """
[input]
image = "image.npy"
voxel_size_nm = [30, 12, 12]

[predict]
weights = "./embedding.safetensors"
block = [{block}]

[fragments]
method = "mutex_watershed"

[mutex_watershed]
mode = "exact"

[pyramid]
levels = 0

[blocks]
shape = [8, 32, 32]
chunk = [4, 8, 8]
"""
GRIDS = {"8, 32, 32": SERIAL, "4, 16, 24": SERIAL, "8, 8, 16": ("--executor", "daisy", "--workers", "2")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image, and a network that nobody trained."""
    import torch

    from models.checkpoint import save_weights
    from models.networks import build
    from models.spec import WeightsSpec

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, [n // 2 for n in LAYER]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.save(tmp_path / "image.npy", (coarse + rng.integers(0, 55, LAYER)).astype(np.uint8))
    torch.manual_seed(2)
    network = build(NET["architecture"])
    network.heads.scale.data.fill_(0.4)
    save_weights(network, WeightsSpec(**NET), tmp_path / "embedding.safetensors")
    return tmp_path


def test_hashes_are_equal_on_three_grids_and_for_two_workers(folder: Path, neurotile: Callable[..., Any]) -> None:
    runs = []
    for number, (block, flags) in enumerate(GRIDS.items()):
        config = folder / f"{number}.toml"
        config.write_text(CONFIG.format(block=block))
        result = neurotile("run", config, "--out", folder / str(number), "--json", *flags)
        assert result.returncode == 0, result.stderr
        runs.append(json.loads(result.stdout))
    assert [run["tasks"]["predict/blocks"]["total"] for run in runs] == [1, 8, 8]
    assert len({tuple(run[name] for name in NAMES) for run in runs}) == 1
    check_hashes(folder / "1", runs[1])


def check_hashes(root: Path, run: dict[str, Any]) -> None:
    """They are those of what is stored, all channels, and there is something in it."""
    plan = load_plan(RunFolder(root), Receipts(RunFolder(root).journals))
    predict, whole = plan.stage(Predict), Box.of_shape(LAYER)
    codes_CZYX = predict.read_codes(whole, len(predict.offsets))
    labels_ZYX = plan.stage(Relabel).read_segmentation(whole)
    assert len(np.unique(labels_ZYX)) > 20
    assert codes_CZYX.std() > 1
    assert hashlib.sha256(codes_CZYX.tobytes()).hexdigest() == run["sha256_affinities"]
    assert hashlib.sha256(labels_ZYX.tobytes()).hexdigest() == run["sha256"]
    background_ZYX = predict.read_background(whole)
    assert 0 < np.mean(predict.code_table[background_ZYX] >= predict.level) < 1
    assert hashlib.sha256(background_ZYX.tobytes()).hexdigest() == run["sha256_background"]
