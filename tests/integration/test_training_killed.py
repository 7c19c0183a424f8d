"""A training through the real command on an HDF5 volume, killed between two saves: it ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from harness import NEUROTILE

from models.resume import load_state
from models.spec import load_spec
from pipeline.geometry import Box
from pipeline.ops.synthesize import generate

SHAPE = (12, 64, 64)
STEPS, SAVED_EVERY, EVALUATED_EVERY, KILLED_AFTER = 40, 10, 15, 23
TOML = f"""
name = "cells"
[network]
widths = [4, 6]
patch = [4, 16, 16]
stride = [3, 12, 12]
[[sample]]
image = "$VOLUMES/cells.h5:volumes/raw"
labels = "$VOLUMES/cells.h5:volumes/labels/neuron_ids"
voxel_size_nm = [30, 6, 6]
end = [8, 64, 64]
[[validation]]
image = "$VOLUMES/cells.h5:volumes/raw"
labels = "$VOLUMES/cells.h5:volumes/labels/neuron_ids"
voxel_size_nm = [30, 6, 6]
begin = [8, 0, 0]
[segmentation]
thresholds = [0.2, 0.5]
[training]
patch = [6, 32, 32]
batch = 4
steps = {STEPS}
report_every = 1
save_every = {SAVED_EVERY}
evaluate_every = {EVALUATED_EVERY}
"""
KEPT = ("cells.safetensors", "cells-last.safetensors", "best.json")


def steps_told(folder: Path) -> list[int]:
    log = folder / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def train(folder: Path, out: str, config: str) -> list[str]:
    """The command."""
    return [NEUROTILE, "train", str(folder / config), str(folder / out), "--json", "--quiet"]


def ended(folder: Path, command: list[str]) -> str:
    """The hash of the weights of a training that comes to its end."""
    done = subprocess.run(command, capture_output=True, env=os.environ | {"VOLUMES": str(folder)}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return str(json.loads(done.stdout)["sha256"])


def kill_between_saves(folder: Path, command: list[str], out: Path) -> None:
    """SIGKILL as soon as some steps after a save are told."""
    training = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"VOLUMES": str(folder)})
    deadline = time.monotonic() + 300
    while not (out / "log.jsonl").exists() or max(steps_told(out), default=0) < KILLED_AFTER:
        assert training.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    training.send_signal(signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, and in `whole` the training on it that nothing interrupts."""
    folder = tmp_path_factory.mktemp("killed")
    image, truth = generate(Box.of_shape(SHAPE), seed=3, shape=SHAPE, voxel_size_nm=(30, 6, 6))
    ids = np.unique(truth, return_inverse=True)[1].reshape(SHAPE).astype(np.uint16)
    with h5py.File(folder / "cells.h5", "w") as file:
        file.create_dataset("volumes/raw", data=image, chunks=(4, 32, 32), compression="gzip")
        file.create_dataset("volumes/labels/neuron_ids", data=ids, chunks=(4, 32, 32), compression="gzip")
    for loaders in (1, 2):  # who draws the crops is no part of the recipe
        (folder / f"{loaders}.toml").write_text(f"{TOML}loaders = {loaders}\n")
    ended(folder, train(folder, "whole", "1.toml"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [1, 2])
def test_a_killed_training_ends_in_the_bytes_of_a_whole_one(folder: Path, loaders: int) -> None:
    whole, cut = folder / "whole", folder / f"cut{loaders}"
    command = train(folder, cut.name, f"{loaders}.toml")
    kill_between_saves(folder, command, cut)
    assert "Running" in (cut / "training.html").read_text()
    kept_at, last = int(load_state(cut / "state")["step"]), max(steps_told(cut))
    assert kept_at < last < STEPS  # steps were lost, and come again
    assert kept_at % SAVED_EVERY == 0 or kept_at % EVALUATED_EVERY == 0

    assert ended(folder, command) == load_spec(str(whole / "cells")).sha256
    for name in KEPT:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert steps_told(cut) == steps_told(whole) == list(range(1, STEPS + 1))
    assert "Done" in (cut / "training.html").read_text()
