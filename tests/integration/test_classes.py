"""A class mask on a run: it keeps two objects apart, the guard acts, one answer on three grids, and all commands work.

Three fragments along x: A, then U, then B; for small y A touches B directly. Affinities would make them one object.
A is vessel, B is soma, U has no class.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import SERIAL

from pipeline.volumes import Volume

SHAPE = (8, 24, 24)
Run = Callable[..., Any]

CONFIG = """
[input]
truth = "truth.npy"

[affinities]
path = "affinities.npy"
voxel_size_nm = [30.0, 12.0, 12.0]
{mask}
[guards]
conflicting_classes = {guard}

[relabel]
threshold = 0.3

[blocks]
shape = [{block}]
chunk = [{block}]
"""
MASK = """
[[mask]]
path = "classes.npy"
role = "class"
voxel_size_nm = [30.0, 24.0, 24.0]
share = 0.6
names = { 1 = "vessel", 2 = "soma" }
"""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Affinities, and classes at half the resolution."""
    folder = tmp_path_factory.mktemp("classes")
    parts = np.ones(SHAPE, np.uint64)
    parts[:, :, 14:] = 2
    parts[:, 8:, 10:14] = 3
    affinities = np.full((3, *SHAPE), 255, np.uint8)
    between = {(1, 2): 120, (1, 3): 150, (2, 3): 180}
    for axis in range(3):
        before = np.roll(parts, 1, axis)
        for (one, other), code in between.items():
            affinities[axis][(np.minimum(parts, before) == one) & (np.maximum(parts, before) == other)] = code
    np.save(folder / "affinities.npy", affinities)
    np.save(folder / "truth.npy", parts)
    np.save(folder / "classes.npy", np.where(parts == 3, 0, parts)[:, ::2, ::2].astype(np.uint16))
    return folder


def run(
    neurotile: Run, volumes: Path, name: str, *, block: str = "8, 24, 24", mask: str = MASK, guard: str = "true"
) -> tuple[dict[str, Any], np.ndarray]:
    """What a run printed, and its labels."""
    own = volumes / f"{name}.toml"
    own.write_text(CONFIG.format(block=block, mask=mask, guard=guard))
    result = neurotile("run", own, "--out", volumes / name, "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    labels = Volume.open(volumes / name / "labels.zarr")
    return json.loads(result.stdout), labels.read(labels.box)


def told(volumes: Path, name: str) -> str:
    page = (volumes / name / "report.html").read_text()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.fixture(scope="module")
def guarded(volumes: Path, neurotile: Run) -> tuple[dict[str, Any], np.ndarray]:
    return run(neurotile, volumes, "whole")


def test_classes_and_the_guard_keep_objects_apart(
    volumes: Path, neurotile: Run, guarded: tuple[dict[str, Any], np.ndarray]
) -> None:
    parts = np.load(volumes / "truth.npy")
    done, labels = guarded
    assert done["tasks"]["classes/up0"]["done"] == 1
    vessel, soma, between = (np.unique(labels[parts == part]) for part in (1, 2, 3))
    assert (vessel.size, soma.size, between.size) == (1, 1, 1)
    assert vessel != soma
    assert between == soma, "the fragment without a class goes where its affinity is best"
    page = told(volumes, "whole")
    assert "Fragments with a class: vessel: 1, soma: 1. 64 voxel edges" in page
    assert "1 merges above the threshold were refused" in page
    assert page.count(" vessel ") == page.count(" soma ") == 1
    plain, one = run(neurotile, volumes, "plain", mask="")
    assert "classes/up0" not in plain["tasks"]
    assert np.unique(one).size == 1, "without the mask all of them are one object"
    assert "Fragments with a class" not in told(volumes, "plain")
    _, one = run(neurotile, volumes, "open", guard="false")
    assert np.unique(one).size == 1, "without the guard they meet through the fragment between"
    page = told(volumes, "open")
    assert "were allowed (guards.conflicting_classes = false)" in page
    assert " several " in page


@pytest.mark.parametrize("block", ["4, 8, 6", "3, 24, 11"])
def test_one_answer_on_other_grids(
    volumes: Path, neurotile: Run, guarded: tuple[dict[str, Any], np.ndarray], block: str
) -> None:
    name = block.replace(", ", "-")
    done, labels = run(neurotile, volumes, name, block=block)
    assert np.array_equal(labels, guarded[1])
    assert done["scores"] == guarded[0]["scores"]
    assert "soma: 1. 64 voxel edges" in told(volumes, name)
    assert "1 merges above the threshold were refused" in told(volumes, name)


def test_every_command_knows_them(volumes: Path, neurotile: Run, guarded: tuple[dict[str, Any], np.ndarray]) -> None:
    out = volumes / "commands"
    run(neurotile, volumes, "commands", block="8, 24, 12")
    for words in (("verify",), ("audit",), ("sweep",), ("report",)):
        result = neurotile(words[0], out, *words[1:], "--json")
        assert result.returncode == 0, (words, result.stderr)
    cut = neurotile("segment", out, "--threshold", "0.65", "--json")
    assert cut.returncode == 0, cut.stderr
    tasks = json.loads(cut.stdout)["tasks"]
    assert not any(tasks[task]["executed"] for task in tasks if task.startswith(("classes", "agglomerate")))
    labels = Volume.open(out / "segments/T0.650/labels.zarr")
    found = labels.read(labels.box)
    assert hashlib.sha256(found.tobytes()).digest() == hashlib.sha256(guarded[1].tobytes()).digest()
    again = neurotile("run", "--out", out, "--json")
    assert json.loads(again.stdout)["totals"]["executed"] == 0


def test_other_names_redo_nothing_and_other_classes_only_what_follows(volumes: Path, neurotile: Run) -> None:
    run(neurotile, volumes, "changed", block="4, 24, 12")
    own = volumes / "changed.toml"
    own.write_text(own.read_text().replace("vessel", "artery"))
    result = neurotile("run", own, "--out", volumes / "changed", "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["totals"]["executed"] == 0
    assert " artery " in told(volumes, "changed")
    own.write_text(own.read_text().replace("share = 0.6", "share = 0.7"))
    result = neurotile("run", own, "--out", volumes / "changed", "--json", *SERIAL)
    assert result.returncode == 78
    assert "mask[0].share: 0.6 -> 0.7 (changes the answer)" in result.stderr
    result = neurotile("run", own, "--out", volumes / "changed", "--update", "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    ran = {task.partition("/")[0] for task, n in json.loads(result.stdout)["tasks"].items() if n["executed"]}
    assert "classes" in ran
    assert not ran & {"affinities", "fragments", "region_graph"}
