"""The hashes that `neurotile run --json` tells of a network's answer: three grids of blocks, one worker and two."""

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
from models.spec import NEAREST
from pipeline.digests import NAMES
from pipeline.geometry import Box
from pipeline.rundir import RunFolder
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel
from pipeline.work import load_plan
from workers.receipts import Receipts

LAYER = (8, 28, 30)
FAR = (*NEAREST, (-2, 0, 0), (0, -4, 0), (0, 0, -4))
NETS: dict[str, dict[str, Any]] = {
    "affinity": {"heads": {"affinity": len(FAR)}, "crop": [0, 0, 0], "offsets": FAR, "stride": (4, 12, 12)},
    "embedding": {
        "heads": {"embedding": 5, "background": 1},
        "crop": [1, 2, 2],
        "offsets": METRIC,
        "stride": (4, 10, 10),
        "delta": 1.5,
        "background_threshold": 0.45,
    },
}
CONFIG = """
[input]
image = "image.npy"
voxel_size_nm = [30, 12, 12]

[predict]
weights = "./{weights}.safetensors"
offsets = "all"
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
GRIDS = ["8, 32, 32", "4, 16, 24", "8, 8, 16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, and two networks that nobody trained."""
    import torch

    from models.checkpoint import save_weights
    from models.networks import build
    from models.spec import WeightsSpec

    place = tmp_path_factory.mktemp("networks")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, [n // 2 for n in LAYER]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.save(place / "image.npy", (coarse + rng.integers(0, 55, LAYER)).astype(np.uint8))
    for name, net in NETS.items():
        torch.manual_seed(2)
        fields = {key: value for key, value in net.items() if key not in ("heads", "crop")}
        architecture = {"name": "rsunet", "widths": [4, 6], "heads": net["heads"], "crop": net["crop"]}
        spec = WeightsSpec(architecture=architecture, voxel_size_nm=(30.0, 12.0, 12.0), patch=(8, 20, 20), **fields)
        network = build(spec.architecture)
        if name == "embedding":
            network.heads.scale.data.fill_(0.4)
        save_weights(network, spec, place / f"{name}.safetensors")
    return place


def told(folder: Path, neurotile: Callable[..., Any], weights: str, block: str, *flags: str) -> dict[str, Any]:
    name = f"{weights}-{block.replace(', ', 'x')}-{'-'.join(flags).strip('-')}"
    config = folder / f"{name}.toml"
    config.write_text(CONFIG.format(weights=weights, block=block))
    result = neurotile("run", config, "--out", folder / name, "--json", *flags)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("weights", list(NETS))
def test_hashes_are_equal_on_three_grids_and_for_two_workers(
    folder: Path, neurotile: Callable[..., Any], weights: str
) -> None:
    runs = [told(folder, neurotile, weights, block, *SERIAL) for block in GRIDS[:2]]
    runs.append(told(folder, neurotile, weights, GRIDS[2], "--executor", "daisy", "--workers", "2"))
    assert [run["tasks"]["predict/blocks"]["total"] for run in runs] == [1, 8, 8]
    assert len({tuple(run[name] for name in NAMES) for run in runs}) == 1
    assert runs[0]["sha256"]
    assert runs[0]["sha256_affinities"]
    assert bool(runs[0]["sha256_background"]) == (weights == "embedding")
    check_hashes(Path(runs[1]["run"]), runs[1])


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
    if predict.knows_background:
        background_ZYX = predict.read_background(whole)
        assert 0 < np.mean(predict.code_table[background_ZYX] >= predict.level) < 1
        assert hashlib.sha256(background_ZYX.tobytes()).hexdigest() == run["sha256_background"]
