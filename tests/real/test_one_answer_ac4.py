"""The one answer on a crop of a real volume: affinities from its labels plus noise, cut and run in many ways."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import kill_again_and_again

from pipeline.digests import sha256_of
from pipeline.rundir import RunFolder
from pipeline.stages.code_source import NEAREST_CHANNELS, CodeSource
from pipeline.stages.relabel import Relabel
from pipeline.work import load_plan
from workers.receipts import Receipts

DATA = Path(os.environ.get("NEUROTILE_DATA", Path(__file__).parents[3] / "shared" / "data"))
VOLUME = DATA / "ac4.h5"

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not VOLUME.exists(), reason="the real volumes are not here (NEUROTILE_DATA names their folder)"),
]

NEAREST = "[-1, 0, 0], [0, -1, 0], [0, 0, -1]"
LONG = "[-2, 0, 0], [0, -5, 0], [0, 0, -5], [-1, -5, 0], [-1, 0, -5], [0, -9, 9]"
CONFIG = """
[input]
image = "{volume}:volumes/raw"
truth = "{volume}:volumes/labels/neuron_ids"
voxel_size_nm = [29.0, 6.0, 6.0]
[roi]
begin = [10, 300, 420]
end = [34, 460, 580]
[affinities]
offsets = [{offsets}]
[affinities.from_labels]
noise = 0.35
seed = 3
[fragments]
{fragments}
[blocks]
shape = {block}
chunk = {block}
"""
WATERSHED = ("low = 0.05\nhigh = 0.98\nsize_vx = 40\ndust_vx = 3", NEAREST)
TILES = (
    'method = "mutex_watershed"\n[mutex_watershed]\nmode = "tiles"\ntile = [12, 40, 40]\nhalo = [4, 16, 16]',
    f"{NEAREST}, {LONG}",
)
ANOTHER_WAY = [
    ((24, 160, 160), "serial", 1),
    ((12, 80, 80), "daisy", 2),
    ((12, 40, 160), "serial", 1),
    ((24, 40, 80), "daisy", 8),
    ((12, 160, 40), "daisy", 3),
]


def write_config(path: Path, method: tuple[str, str], block: tuple[int, int, int]) -> Path:
    fragments, offsets = method
    path.write_text(CONFIG.format(volume=VOLUME, fragments=fragments, offsets=offsets, block=list(block)))
    return path


def answer(run: Path) -> tuple[str, str]:
    """The hashes of a run's codes and of its labels."""
    folder = RunFolder(run)
    plan = load_plan(folder, Receipts(folder.journals))
    source, relabel, roi = plan.stage(CodeSource), plan.stage(Relabel), plan.layer.roi
    codes = sha256_of(source.read_codes, roi, "u1", channels=NEAREST_CHANNELS)
    return codes, sha256_of(relabel.read_segmentation, roi, "<u8")


@pytest.mark.parametrize("method", [WATERSHED, TILES], ids=["watershed", "mutex watershed on tiles"])
def test_five_grids_many_workers_and_kills_give_one_answer(
    neurotile: Callable[..., Any], tmp_path: Path, method: tuple[str, str]
) -> None:
    answers = set()
    for number, (block, executor, workers) in enumerate(ANOTHER_WAY):
        config = write_config(tmp_path / f"{number}.toml", method, block)
        out = tmp_path / str(number)
        done = neurotile("run", config, "--out", out, "--executor", executor, "--workers", workers)
        assert done.returncode == 0, done.stderr
        answers.add(answer(out))
    config = write_config(tmp_path / "killed.toml", method, (12, 80, 80))
    argv = ["run", str(config), "--out", str(tmp_path / "killed"), "--executor", "daisy", "--workers", "2"]
    campaign = kill_again_and_again(tmp_path / "killed", argv, kills=6, seed=5)
    assert campaign.violations == []
    assert campaign.kills >= 6
    done = neurotile("run", "--out", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    answers.add(answer(tmp_path / "killed"))
    assert len(answers) == 1, answers
