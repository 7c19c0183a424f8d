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


def kill_between_saves(command: list[str], folder: Path) -> None:
    """SIGKILL as soon as some steps after a save are told."""
    training = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / "log.jsonl").exists() or max(steps_told(folder), default=0) < KILLED_AFTER:
        assert training.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    training.send_signal(signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [1, 2])
def test_a_killed_training_ends_in_the_bytes_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaders: int
) -> None:
    image, truth = generate(Box.of_shape(SHAPE), seed=3, shape=SHAPE, voxel_size_nm=(30, 6, 6))
    ids = np.unique(truth, return_inverse=True)[1].reshape(SHAPE).astype(np.uint16)
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file.create_dataset("volumes/raw", data=image, chunks=(4, 32, 32), compression="gzip")
        file.create_dataset("volumes/labels/neuron_ids", data=ids, chunks=(4, 32, 32), compression="gzip")
    monkeypatch.setenv("VOLUMES", str(tmp_path))
    config = tmp_path / "cells.toml"
    config.write_text(TOML)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told = subprocess.run([NEUROTILE, "train", str(config), str(whole), "--json", "--quiet"], capture_output=True)
    assert told.returncode == 0, told.stderr.decode()

    config.write_text(f"{TOML}loaders = {loaders}\n")  # who draws the crops is no part of the recipe
    command = [NEUROTILE, "train", str(config), str(cut), "--json", "--quiet"]
    kill_between_saves(command, cut)
    assert "Running" in (cut / "training.html").read_text()
    kept_at = int(load_state(cut / "state")["step"])
    last = max(steps_told(cut))
    assert kept_at < last < STEPS  # steps were lost, and come again
    assert kept_at % SAVED_EVERY == 0 or kept_at % EVALUATED_EVERY == 0

    gone_on = subprocess.run(command, capture_output=True, env={**os.environ})
    assert gone_on.returncode == 0, gone_on.stderr.decode()
    assert json.loads(gone_on.stdout)["sha256"] == json.loads(told.stdout)["sha256"]
    for name in KEPT:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert steps_told(cut) == steps_told(whole) == list(range(1, STEPS + 1))
    assert "Done" in (cut / "training.html").read_text()
