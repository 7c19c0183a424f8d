"""`neurotile run --affinities`: from affinities made elsewhere to scored labels and a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from pipeline.config import load
from pipeline.geometry import Box
from pipeline.ops.noisy_affinities import noisy_affinities, recipe
from pipeline.ops.synthesize import generate
from pipeline.volumes import Volume

SHAPE = (16, 64, 80)
NM = (30.0, 12.0, 12.0)
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
Run = Callable[..., Any]

CONFIG = """
[affinities]
path = "nowhere.npy"
voxel_size_nm = [30.0, 12.0, 12.0]

[blocks]
shape = [{block}]
chunk = [8, 16, 16]

[workers]
executor = "serial"
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same affinities as a zarr array, in an archive, in HDF5 and of 8 bits; and the truth."""
    folder = tmp_path_factory.mktemp("given")
    whole = Box.of_shape(SHAPE)
    _, truth = generate(whole, seed=1, shape=SHAPE, voxel_size_nm=NM)
    how = recipe(NEAREST, seed=0, noise=0.2, smooth_vx=3, voxel_pm=(30000, 12000, 12000))
    codes = noisy_affinities(truth, whole, whole, how) >> 8
    edges = (codes / 255).astype(np.float32)
    np.savez(folder / "a.npz", affs=edges)
    zarr.create_array(folder / "a.zarr", shape=(*SHAPE, 3), chunks=(8, 32, 32, 3), dtype="f4", zarr_format=2)[:] = (
        np.moveaxis(edges, 0, 3)
    )
    with h5py.File(folder / "a.h5", "w") as file:
        stored = file.create_dataset("volumes/affs", data=edges, chunks=(3, 8, 32, 32))
        stored.attrs["resolution"] = [30, 12, 12]
        file["volumes/truth"] = truth
    np.save(folder / "eight.npy", codes.astype(np.uint8))
    return folder


def config(folder: Path, block: str = "16, 32, 32", rest: str = "") -> Path:
    path = folder / "own.toml"
    path.write_text(CONFIG.format(block=block).replace("[blocks]", f"{rest}\n[blocks]"))
    return path


def run(neurotile: Run, own: Path, out: Path, *words: str) -> tuple[dict[str, Any], np.ndarray]:
    result = neurotile("run", own, "--out", out, "--json", *words)
    assert result.returncode == 0, result.stderr
    labels = Volume.open(out / "labels.zarr")
    return json.loads(result.stdout), labels.read(labels.box)


def test_formats_and_grids_agree_and_the_truth_scores(neurotile: Run, given: Path, tmp_path: Path) -> None:
    truth = ("--truth", f"{given}/a.h5:volumes/truth")
    own = config(tmp_path)
    planned = neurotile("plan", own, "--affinities", f"{given}/a.npz:affs", *truth, "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["layer"], plan["redundancy"]) == (list(SHAPE), None)
    told, labels = run(neurotile, own, tmp_path / "npz", "--affinities", f"{given}/a.npz:affs", *truth)
    assert {t["task"] for t in plan["tasks"]} == set(told["tasks"])
    assert not {"predict", "resample", "synthesize"} & set(told["blocks"])
    assert told["scores"]["voi"] < 0.5
    page = (tmp_path / "npz/report.html").read_text()
    assert "affinities were given" in page
    assert "VOI sum" in page
    assert "Segmentation" in page
    assert "not available" not in page
    assert not (tmp_path / "npz/image.zarr").exists()
    again = neurotile("run", "--out", tmp_path / "npz", "--json")
    assert json.loads(again.stdout)["totals"]["executed"] == 0
    own = config(tmp_path, "8, 16, 48")
    other, same = run(neurotile, own, tmp_path / "h5", "--affinities", f"{given}/a.h5:volumes/affs", *truth)
    assert np.array_equal(labels, same)
    assert other["scores"] == told["scores"]
    own = config(tmp_path, rest='axes = "ZYXC"')
    _, same = run(neurotile, own, tmp_path / "zarr", "--affinities", f"{given}/a.zarr")
    assert np.array_equal(labels, same)
    _, same = run(neurotile, config(tmp_path), tmp_path / "eight", "--affinities", f"{given}/eight.npy")
    assert np.array_equal(labels, same), "floats of 8 bits and the bytes themselves"


def test_generated_affinities_of_a_generated_volume(neurotile: Run, tmp_path: Path) -> None:
    path = tmp_path / "made.toml"
    volume = "[input.synthetic]\nseed = 1\nsize = [16, 64, 80]\nvoxel_size_nm = [30.0, 12.0, 12.0]\n"
    layout = CONFIG[CONFIG.index("[blocks]") :].format(block="16, 32, 32")
    path.write_text(f"{volume}[affinities.from_labels]\nnoise = 0.2\n{layout}")
    told, _ = run(neurotile, path, tmp_path / "run")
    assert set(told["blocks"]) >= {"synthesize", "affinities", "evaluate"}
    assert not {"predict", "resample"} & set(told["blocks"])
    assert told["scores"]["voi"] < 0.5


def test_the_image_is_shown_if_it_is_named(neurotile: Run, given: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 128, 160), np.uint8)
    np.save(tmp_path / "image.npy", image)
    own = config(tmp_path, rest='[input]\nimage = "image.npy"\nvoxel_size_nm = [30.0, 6.0, 6.0]')
    told, _ = run(neurotile, own, tmp_path / "run", "--affinities", f"{given}/eight.npy")
    assert "resample" in told["blocks"]
    shown = Volume.open(tmp_path / "run/image.zarr/0")
    assert shown.box == Box.of_shape(SHAPE)
    np.save(tmp_path / "image.npy", image[:, :100])
    result = neurotile("run", own, "--out", tmp_path / "other", "--affinities", f"{given}/eight.npy")
    assert result.returncode == 2
    assert "does not cover the affinities" in result.stderr


def test_relative_paths_count_from_the_current_folder(
    neurotile: Run, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(given)
    result = neurotile("plan", config(tmp_path), "--affinities", "a.npz:affs", "--truth", "a.h5:volumes/truth")
    assert result.returncode == 0, result.stderr
    assert "no network is run" in result.stdout.replace("\n", " ")


def test_init_writes_a_config_that_works(neurotile: Run, given: Path, tmp_path: Path) -> None:
    for name, axes in (("a.h5:volumes/affs", "CZYX"), ("a.zarr", "ZYXC")):
        own = tmp_path / f"{axes}.toml"
        result = neurotile("init", "--affinities", f"{given}/{name}", "--out", own)
        assert result.returncode == 0, result.stderr
        own.write_text(own.read_text().replace("[?, ?, ?]", "[30.0, 12.0, 12.0]"))
        read = load(own)
        assert read.affinities is not None
        assert read.affinities.axes == axes
        result = neurotile("plan", own, "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["layer"] == list(SHAPE)
    assert neurotile("init").returncode == 2


@pytest.mark.parametrize(
    ("name", "rest", "says"),
    [
        ("four.npy", "", "have 4 channels; the config describes 3"),
        ("nowhere.npy", "", "no such file or folder"),
        ("a.npz:other", "", "has no array 'other'"),
        ("eight.npy", "offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -3]]", "nearest neighbour along x is missing"),
    ],
)
def test_refusals_are_three_lines(neurotile: Run, given: Path, tmp_path: Path, name: str, rest: str, says: str) -> None:
    np.save(given / "four.npy", np.ones((4, *SHAPE), np.uint8))
    own = config(tmp_path, rest=rest)
    result = neurotile("run", own, "--out", tmp_path / "run", "--affinities", f"{given}/{name}")
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 3
    assert not (tmp_path / "run").exists()


def test_a_bad_value_fails_its_block_and_can_be_left_out(neurotile: Run, given: Path, tmp_path: Path) -> None:
    edges = np.load(given / "a.npz")["affs"]
    edges[0, 12, 40, 50] = np.nan
    np.save(tmp_path / "bad.npy", edges)
    own = config(tmp_path)
    result = neurotile("run", own, "--out", tmp_path / "run", "--json", "--affinities", tmp_path / "bad.npy")
    assert result.returncode == 3, result.stderr
    told = json.loads(result.stdout)
    assert told["tasks"]["affinities/blocks"]["failed"] == 1
    assert told["failures"][0]["error"] == "NotFinite"
    assert "voxel (12, 40, 50) holds nan" in told["failures"][0]["what"]
    result = neurotile("run", "--out", tmp_path / "run", "--json", "--accept-holes")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tasks"]["affinities/blocks"]["masked"] == 1
