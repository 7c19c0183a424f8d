"""A volume of one's own: init, plan, run with a region and a mask; and what is said when it cannot work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from harness import SERIAL

from pipeline.config import load
from pipeline.geometry import Box
from pipeline.ops.synthesize import generate
from pipeline.volumes import Volume

SHAPE = (16, 128, 128)
NM = (30.0, 6.0, 6.0)
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image and its truth as zarr and HDF5, and a mask."""
    folder = tmp_path_factory.mktemp("volumes")
    image, truth = generate(Box.of_shape(SHAPE), seed=3, shape=SHAPE, voxel_size_nm=NM)
    attributes = {"voxel_size": [30, 6, 6], "offset": [0, 0, 0], "units": ["nm"] * 3, "axis_names": ["z", "y", "x"]}
    stored = zarr.create_array(
        folder / "image.zarr", shape=SHAPE, chunks=(8, 64, 64), dtype="u1", attributes=attributes
    )
    stored[:] = image
    with h5py.File(folder / "both.h5", "w") as file:
        file["volumes/raw"] = image
        file["volumes/labels"] = truth
    np.save(folder / "truth.npy", truth)
    mask = np.zeros((16, 64, 64), np.uint8)
    mask[:, :32] = 1
    np.save(folder / "mask.npy", mask)
    return folder


def config(folder: Path, volumes: Path, *, input_: str = "", rest: str = "") -> Path:
    path = folder / "own.toml"
    text = f'[input]\nimage = "{volumes}/image.zarr"\n{input_}\n'
    path.write_text(f"{text}{rest}\n[blocks]\nshape = [8, 32, 32]\nchunk = [8, 32, 32]\n")
    return path


def test_init_plan_run(volumes: Path, neurotile: Run, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    result = neurotile("init", volumes / "image.zarr", "--out", own)
    assert result.returncode == 0, result.stderr
    assert "30 x 12 x 12 nm" in own.read_text()
    lines = [line.removeprefix("# ") for line in own.read_text().splitlines()[3:]]
    uncommented = tmp_path / "all.toml"
    uncommented.write_text("\n".join(line for line in lines if "=" in line or line.startswith("[")))
    load(uncommented)  # every line that is commented out is valid where it stands
    again = neurotile("init", volumes / "image.zarr", "--out", own)
    assert again.returncode == 2
    out = tmp_path / "run"
    planned = neurotile("plan", own, "--out", out, "--json")
    assert planned.returncode == 0, planned.stderr
    told = json.loads(planned.stdout)
    assert told["layer"] == [16, 64, 64]
    assert not out.exists()
    assert "unknown" in neurotile("plan", own, "--out", out).stdout
    result = neurotile("run", own, "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    assert {t["task"]: t["blocks"] for t in told["tasks"]} == {
        task: counts["done"] for task, counts in json.loads(result.stdout)["tasks"].items()
    }
    assert Volume.open(out / "labels.zarr").box == Box.of_shape((16, 64, 64))


def test_a_region_and_a_mask(volumes: Path, neurotile: Run, tmp_path: Path) -> None:
    mask = f'[[mask]]\npath = "{volumes}/mask.npy"\nvoxel_size_nm = [30.0, 12.0, 12.0]\n'
    own = config(
        tmp_path,
        volumes,
        input_=f'truth = "{volumes}/truth.npy"\ntruth_voxel_size_nm = [30.0, 6.0, 6.0]\n',
        rest=f"{mask}[roi]\nbegin = [2, 8, 8]\nend = [14, 64, 56]\n[predict]\nblock = [8, 32, 32]\n",
    )
    out = tmp_path / "run"
    result = neurotile("run", own, "--out", out, "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    labels = Volume.open(out / "labels.zarr")
    assert labels.box == Box((2, 8, 8), (14, 64, 56))
    assert told["tasks"]["predict/blocks"]["masked"] == 0  # rows 8 to 40: no block lies wholly under the mask
    data = labels.read(labels.box)
    assert not data[:, : 32 - 8].any()
    assert data[:, 32 - 8 :].any()
    begin = np.array([2, 8, 8])
    first = data.max() - np.uint64(1)
    position = [int(first) >> 42, (int(first) >> 21) & 0x1FFFFF, int(first) & 0x1FFFFF]
    assert (np.array(position) >= begin).all()  # ids count in layer coordinates


def test_hdf5_is_read_in_place(volumes: Path, neurotile: Run, tmp_path: Path) -> None:
    own = config(tmp_path, volumes, input_="voxel_size_nm = [30.0, 6.0, 6.0]\n")
    result = neurotile(
        "run", own, "--input", f"{volumes}/both.h5:volumes/raw", "--out", tmp_path / "h5", "--json", *SERIAL
    )
    assert result.returncode == 0, result.stderr
    other = neurotile("run", config(tmp_path, volumes), "--out", tmp_path / "zarr", "--json", *SERIAL)
    assert other.returncode == 0, other.stderr
    one, two = (Volume.open(tmp_path / name / "labels.zarr") for name in ("h5", "zarr"))
    np.testing.assert_array_equal(one.read(one.box), two.read(two.box))


# ---- bad inputs ----------------------------------------------------------------------------------------------------
def bad_image(folder: Path, name: str, data: np.ndarray[Any, Any], **attributes: Any) -> None:
    stored = zarr.create_array(folder / name, shape=data.shape, chunks=(8,) * data.ndim, dtype=data.dtype)
    stored[:] = data
    stored.attrs.update(attributes)


GOOD = {"voxel_size": [30, 6, 6], "offset": [0, 0, 0]}


@pytest.mark.parametrize(
    ("data", "attributes", "says", "way_out"),
    [
        (np.ones((8, 64, 64), np.float32), GOOD, "dtype float32; networks read uint8", "convert it to uint8"),
        (np.ones((64, 64), np.uint8), {}, "has shape (64, 64)", "take one channel"),
        (np.ones((8, 64, 64), np.uint8), {}, "does not say its voxel size", "set input.voxel_size_nm"),
        (np.ones((8, 64, 64), np.uint8), {"voxel_size": [30, 7, 7]}, "30 x 7 x 7 nm", "not a whole multiple"),
        (np.ones((8, 1, 64), np.uint8), GOOD, "no whole voxel", ""),
    ],
)
def test_bad_images_are_refused_with_three_lines(
    neurotile: Run, tmp_path: Path, data: np.ndarray[Any, Any], attributes: dict[str, Any], says: str, way_out: str
) -> None:
    bad_image(tmp_path, "image.zarr", data, **attributes)
    result = neurotile("run", config(tmp_path, tmp_path), "--out", tmp_path / "run")
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert way_out in result.stderr
    assert str(tmp_path / "image.zarr") in result.stderr or "shape" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[input]\nimage = 'nowhere.zarr'\n", "no such file or folder"),
        ("[input]\nimage = 'x'\n[fragment]\nlow = 1\n", "fragment: Extra inputs are not permitted"),
        ("[input\n", "this is not TOML"),
        ("[input.synthetic]\nseed = 1\n[relabel]\nthreshold = 0.05\n", "below agglomerate.floor"),
        ("[input.synthetic]\nseed = 1\n[predict]\nweights = 'nothing'\n", "cannot read the weights' spec"),
        ("[input.synthetic]\nseed = 1\n[workers.cpu]\nmemory_gb = 0.1\n", "the limit is 0.10 GB"),
        ("[input.synthetic]\nseed = 1\n[limits]\ninodes = 10\n", "files and folders, the limit is 10"),
        ("[input.synthetic]\nseed = 1\n[limits]\ndisk_gb = 0.001\n", "before compression"),
        ("[input.synthetic]\nseed = 1\nsize = [8, 64, 8388608]\n", "ids hold positions up to 2097152"),
        ("[input.synthetic]\nseed = 1\nvoxel_size_nm = [30.0, 5.0, 5.0]\n", "not a whole multiple"),
        ("[input.synthetic]\nseed = 1\n[roi]\nend = [9999, 10, 10]\n", "reaches beyond the layer"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_written(
    neurotile: Run, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    for verb in ("plan", "run"):
        result = neurotile(verb, path, "--out", tmp_path / "run")
        assert result.returncode == 2, result.stderr
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("harm", "kind"), [("missing", "ChunkMissing"), ("torn", "ChunkCorrupt")])
def test_a_bad_chunk_of_the_image_fails_its_blocks_only(
    volumes: Path, neurotile: Run, tmp_path: Path, harm: str, kind: str
) -> None:
    import shutil

    shutil.copytree(volumes / "image.zarr", tmp_path / "image.zarr")
    chunk = tmp_path / "image.zarr" / "c" / "1" / "1" / "1"
    good = chunk.read_bytes()
    if harm == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(good[: len(good) // 2])
    own = config(tmp_path, tmp_path, rest="[predict]\nblock = [8, 32, 32]\n")
    result = neurotile("run", own, "--out", tmp_path / "run", "--json", *SERIAL)
    assert result.returncode == 3, result.stderr
    told = json.loads(result.stdout)
    assert told["tasks"]["resample/blocks"]["failed"] == 1
    assert told["tasks"]["resample/blocks"]["done"] == 7
    assert told["failures"][0]["error"] == kind
    assert "image.zarr" in told["failures"][0]["what"]
