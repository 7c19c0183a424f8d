"""The answer depends on seed and size alone: not on blocks, workers or executor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import SERIAL

from pipeline.volumes import Volume

SIZE = "16,96,96"


@pytest.mark.parametrize(
    ("block", "workers", "executor"),
    [("16,96,96", "1", "serial"), ("8,32,96", "2", "daisy"), ("5,48,40", "1", "serial"), ("4,96,24", "2", "serial")],
)
def test_equal_hashes(
    small_demo: tuple[Path, dict[str, Any]],
    neurotile: Callable[..., Any],
    tmp_path: Path,
    block: str,
    workers: str,
    executor: str,
) -> None:
    _, told = small_demo
    argv = ("--size", SIZE, "--block", block, "--workers", workers, "--executor", executor)
    result = neurotile("demo", "--json", "--out", tmp_path / "run", *argv)
    assert result.returncode == 0, result.stderr
    again = json.loads(result.stdout)
    assert again["sha256_affinities"] == told["sha256_affinities"]
    assert again["sha256"] == told["sha256"]
    assert (again["voi_split"], again["voi_merge"]) == (told["voi_split"], told["voi_merge"])
    journals = len(list((tmp_path / "run" / "journals").iterdir()))  # one of the scheduler, one of every worker
    assert journals == 1 if executor == "serial" else journals <= 1 + 2 * int(workers) + 1  # they outlive a task


def test_the_hash_is_of_the_stored_labels(small_demo: tuple[Path, dict[str, Any]]) -> None:
    root, told = small_demo
    labels = Volume.open(root / "labels.zarr")
    data = np.ascontiguousarray(labels.read(labels.box), dtype="<u8")
    assert data.shape == (16, 96, 96)
    assert hashlib.sha256(data.tobytes()).hexdigest() == told["sha256"]
    assert Path(told["segmentation"]).resolve() == (root / "labels.zarr").resolve()


def test_another_seed_is_another_volume(
    small_demo: tuple[Path, dict[str, Any]], neurotile: Callable[..., Any], tmp_path: Path
) -> None:
    result = neurotile(
        "demo", "--json", "--out", tmp_path / "run", "--size", "8,48,48", "--block", "8,48,48", "--seed", "7", *SERIAL
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sha256_affinities"] != small_demo[1]["sha256_affinities"]


def test_the_products_open_for_everybody(small_demo: tuple[Path, dict[str, Any]]) -> None:
    import warnings

    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from funlib.persistence import open_ds
    root, _ = small_demo
    labels = zarr.open_array(root / "labels.zarr", mode="r")
    assert labels.shape == (16, 96, 96)
    group = zarr.open_group(root / "segmentation.zarr", mode="r")
    scales = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert len(scales) == 3
    assert [zarr.open_array(root / "segmentation.zarr" / s["path"], mode="r").ndim for s in scales] == [3, 3, 3]
    assert open_ds(str((root / "labels.zarr").resolve())).shape == (16, 96, 96)
