"""Labels with self-touches corrected: equal on several grids, for one worker and two, and for another order of blocks.

The network is one that nobody trained: it decides at random, but always alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import SERIAL

from models.offsets import METRIC
from pipeline.rundir import RunFolder
from pipeline.stages.self_touch import SelfTouch
from pipeline.work import load_plan
from workers.receipts import Receipts

LAYER = (8, 36, 36)
NET: dict[str, Any] = {
    "architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 5, "background": 1}, "crop": [1, 2, 2]},
    "offsets": METRIC,
    "voxel_size_nm": (30.0, 12.0, 12.0),
    "patch": (8, 20, 20),
    "stride": (4, 10, 10),
    "delta": 1.5,
}
CONFIG = """
[input]
image = "image.npy"
voxel_size_nm = [30, 12, 12]

[predict]
weights = "./embedding.safetensors"
background_threshold = 0.8

[fragments]
method = "mutex_watershed"

[mutex_watershed]
mode = "exact"

[agglomerate]
score = "none"

[contacts]
expand_xy = 1

[self_touch]
enabled = true
theta_self_contact = 0.0
theta_d = 0.6
min_contact_edges = 1
window = [3, 8, 8]
min_voxels = 2
rounds = 2
batch = {batch}

[pyramid]
levels = 0

[blocks]
shape = [{block}]
chunk = [{block}]
"""
DAISY = ("--executor", "daisy", "--workers", "2")
GRIDS = {"8, 36, 36": (2, SERIAL), "4, 16, 24": (3, SERIAL), "8, 12, 12": (2, DAISY), "3, 20, 9": (5, SERIAL)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image, and a network."""
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


def test_hashes_are_equal_on_four_grids_and_for_two_workers(folder: Path, neurotile: Callable[..., Any]) -> None:
    runs, tables = [], []
    for number, (block, (batch, flags)) in enumerate(GRIDS.items()):
        config, out = folder / f"{number}.toml", folder / str(number)
        config.write_text(CONFIG.format(block=block, batch=batch))
        result = neurotile("run", config, "--out", out, "--json", *flags)
        assert result.returncode == 0, result.stderr
        runs.append(json.loads(result.stdout))
        tables.append(decisions(out))
    assert [run["tasks"]["self_touch/decide"]["total"] for run in runs] == [1, 12, 9, 24]
    assert len({run["sha256"] for run in runs}) == 1
    for table in tables[1:]:
        assert {name: column.tobytes() for name, column in table.items()} == {
            name: column.tobytes() for name, column in tables[0].items()
        }
    assert {0, 1} <= set(tables[0]["decision"].tolist())
    assert set(tables[0]["round"].tolist()) == {1, 2}


def decisions(root: Path) -> dict[str, np.ndarray]:
    plan = load_plan(RunFolder(root), Receipts(RunFolder(root).journals))
    return plan.stage(SelfTouch).decisions()


SECOND_ROUTE = """
[input]
image = "image.npy"
voxel_size_nm = [30, 6, 6]

[affinities]
path = "affinities.npy"
voxel_size_nm = [30, 6, 6]

[fragments]
low = 0.1
high = 0.95

[agglomerate]
floor = 0.3

[relabel]
threshold = 0.55

[self_touch]
enabled = true
weights = "./embedding.safetensors"
theta_self_contact = 0.0
theta_d = 1.0
min_contact_edges = 1
window = [3, 8, 8]
min_voxels = 1

[pyramid]
levels = 0

[blocks]
shape = [4, 20, 16]
chunk = [4, 20, 16]
"""


def test_behind_a_merge_tree_and_at_another_threshold(folder: Path, neurotile: Callable[..., Any]) -> None:
    """Affinities at 6 nm, judged at 12 nm; a derived run makes its own corrections, as a run from the start does."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 6, (3, 4, 9, 9)).repeat(2, 1).repeat(4, 2).repeat(4, 3)
    np.save(folder / "affinities.npy", (coarse * 45 + rng.integers(0, 4, (3, *LAYER)) * 9).astype(np.uint8))
    runs = []
    for number, threshold in enumerate(("0.55", "0.7")):
        config = folder / f"second{number}.toml"
        config.write_text(SECOND_ROUTE.replace("threshold = 0.55", f"threshold = {threshold}"))
        result = neurotile("run", config, "--out", folder / f"second{number}", "--json", *SERIAL)
        assert result.returncode == 0, result.stderr
        runs.append(json.loads(result.stdout))
    assert runs[0]["sha256"] != runs[1]["sha256"]
    out = folder / "derived"
    result = neurotile("segment", folder / "second0", "--threshold", "0.7", "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sha256"] == runs[1]["sha256"]
    assert {0, 1} & set(decisions(out)["decision"].tolist())
