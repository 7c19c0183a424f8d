"""A background mask: the labels of a skip mask, from codes that are stored as they were; another mask keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import SERIAL

from pipeline.geometry import Box
from pipeline.rundir import RunFolder
from pipeline.stages.relabel import Relabel
from pipeline.work import load_plan
from workers.receipts import Receipts

SHAPE = (16, 64, 64)
Run = Callable[..., Any]

CONFIG = """
[input.synthetic]
seed = 1
size = [16, 64, 64]
voxel_size_nm = [30.0, 12.0, 12.0]

[affinities]
offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], [0, -5, 0], [0, 3, -3]]

[affinities.from_labels]
noise = 0.3

[[mask]]
path = "{mask}.npy"
role = "{role}"
voxel_size_nm = [30.0, 24.0, 24.0]

[fragments]
method = "{method}"

[mutex_watershed]
tile = [8, 16, 16]
halo = [2, 4, 4]

[blocks]
shape = [{block}]
chunk = [{block}]
"""


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corner that holds whole blocks, and scattered voxels; and another mask."""
    folder = tmp_path_factory.mktemp("background")
    mask = np.random.default_rng(2).random((16, 32, 32)) < 0.02
    mask[:, :14, :20] = True
    np.save(folder / "one.npy", mask)
    np.save(folder / "other.npy", ~mask)
    return folder


def run(neurotile: Run, masks: Path, name: str, *words: str, **settings: str) -> tuple[dict[str, Any], np.ndarray]:
    """What a run printed, and its labels."""
    own = masks / f"{name}.toml"
    filled = {"mask": "one", "role": "background", "method": "watershed", "block": "8, 16, 16", **settings}
    own.write_text(CONFIG.format(**filled))
    result = neurotile("run", own, "--out", masks / name, "--json", *SERIAL, *words)
    assert result.returncode == 0, result.stderr
    folder = RunFolder(masks / name)
    plan = load_plan(folder, Receipts(folder.journals))
    return json.loads(result.stdout), plan.stage(Relabel).read_segmentation(Box.of_shape(SHAPE))


@pytest.mark.parametrize("method", ["watershed", "mutex_watershed"])
def test_labels_are_those_of_a_skip_mask_but_the_codes_are_there(neurotile: Run, masks: Path, method: str) -> None:
    background = np.load(masks / "one.npy").repeat(2, 1).repeat(2, 2)
    skipped, expected = run(neurotile, masks, f"skip-{method}", role="skip", method=method)
    done, labels = run(neurotile, masks, f"background-{method}", method=method)
    assert np.array_equal(labels, expected)
    assert not labels[background].any()
    assert np.unique(labels).size > 3
    assert skipped["tasks"]["affinities/blocks"]["masked"] > 0 == done["tasks"]["affinities/blocks"]["masked"]
    _, same = run(neurotile, masks, f"blocks-{method}", method=method, block="16, 32, 64")
    assert np.array_equal(same, expected)
    for words in (("verify",), ("audit",)):
        result = neurotile(words[0], masks / f"background-{method}", "--json")
        assert result.returncode == 0, (words, result.stderr)


def test_another_mask_needs_no_other_codes(neurotile: Run, masks: Path) -> None:
    _, before = run(neurotile, masks, "changed")
    done, after = run(neurotile, masks, "changed", "--update", mask="other")
    ran = {task.partition("/")[0] for task, counts in done["tasks"].items() if counts["executed"]}
    assert "fragments" in ran
    assert "affinities" not in ran
    assert not (before.astype(bool) & after.astype(bool)).any()
    assert after.any()
