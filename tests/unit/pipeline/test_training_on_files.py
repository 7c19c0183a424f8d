"""Trainings on labelled volumes in files: what is read, kept, told, and refused."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.checkpoint import load_network
from models.spec import load_spec
from pipeline.errors import ConfigError, InputError, MissingInput, WrongShape, WrongType, WrongVoxelSize
from pipeline.geometry import Box, VoxelSize
from pipeline.ops.background import widen_background
from pipeline.ops.resample import first_labels, mean_image
from pipeline.ops.synthesize import generate
from pipeline.training import load, train_from_config
from pipeline.training import volumes as opened
from pipeline.training.settings import Labelled
from pipeline.volumes import ArraySpec, Volume, write_multiscale

SHAPE = (14, 64, 64)
NETWORK = (30.0, 12.0, 12.0)
TOML = """
name = "real"
[network]
widths = [4, 6]
long_range = [[0, 0, -3]]
patch = [4, 16, 16]
stride = [3, 12, 12]
[[sample]]
image = "$VOLUMES/cells.h5:raw"
labels = "$VOLUMES/cells.h5:ids"
voxel_size_nm = [30, 6, 6]
end = [8, 64, 64]
[[validation]]
image = "$VOLUMES/cells.h5:raw"
labels = "$VOLUMES/cells.h5:ids"
voxel_size_nm = [30, 6, 6]
begin = [8, 0, 0]
[segmentation]
thresholds = [0.2, 0.5]
[training]
patch = [4, 16, 16]
batch = 1
steps = 4
evaluate_every = 2
report_every = 1
save_every = 1
"""
SAMPLE = TOML[TOML.index("[[sample]]") : TOML.index("\nend = ")]
EMBEDDING = TOML.replace("long_range = [[0, 0, -3]]", 'predicts = "embedding"\ndimensions = 4\ncrop = [0, 2, 2]')
EMBEDDING = EMBEDDING.replace("patch = [4, 16, 16]\nstride = [3, 12, 12]", "patch = [5, 20, 20]\nstride = [3, 8, 8]")


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray]:
    image, truth = generate(Box.of_shape(SHAPE), seed=3, shape=SHAPE, voxel_size_nm=(30, 6, 6))
    return image, np.unique(truth, return_inverse=True)[1].reshape(SHAPE).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path, cells: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an HDF5 file, which the variable VOLUMES names."""
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file.create_dataset("raw", data=cells[0], chunks=(4, 32, 32), compression="gzip")
        file.create_dataset("ids", data=cells[1], chunks=(4, 32, 32), compression="gzip")
        file.create_dataset("short", data=cells[1][:9])
        file.create_dataset("wide", data=cells[0].astype(np.uint16))
        file.create_dataset("nothing", data=np.zeros_like(cells[1]))
        file.create_dataset("copy", data=cells[0])
        file.create_dataset("signed", data=cells[1].astype(np.int32) - 1)
    monkeypatch.setenv("VOLUMES", str(tmp_path))
    return tmp_path


def write(folder: Path, text: str = TOML) -> Path:
    path = folder / "train.toml"
    path.write_text(text)
    return path


def labelled(**differently: object) -> Labelled:
    given = {"image": "cells.h5:raw", "labels": "cells.h5:ids", "voxel_size_nm": (30, 6, 6), **differently}
    return Labelled.model_validate(given)


# ---- volumes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("background", ["widen", "keep"])
def test_crops_are_those_of_the_resampled_region(folder: Path, cells, kept: bool, background: str):
    volume = opened.open_labelled(labelled(begin=(1, 2, 4), end=(13, 61, 64), background=background), NETWORK, folder)
    region = (slice(1, 13), slice(2, 61), slice(4, 64))
    image, truth = mean_image(cells[0][region], (1, 2, 2)), first_labels(cells[1][region], (1, 2, 2))
    labels = widen_background(truth) if background == "widen" else truth
    volume = volume.kept() if kept else volume
    assert volume.image.shape == volume.labels.shape == image.shape == (12, 30, 30)
    rng = np.random.default_rng(0)
    for _ in range(20):
        begin = tuple(int(rng.integers(n)) for n in image.shape)
        end = tuple(int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, image.shape, strict=True))
        box = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        np.testing.assert_array_equal(volume.image.read(begin, end), image[box])
        np.testing.assert_array_equal(volume.labels.read(begin, end), labels[box])
        np.testing.assert_array_equal(volume.truth.read(begin, end), truth[box])
    if kept:
        assert (volume.image.values.dtype, volume.labels.values.dtype) == (np.uint8, np.uint32)


def test_an_ome_zarr_image_says_its_own_voxel_size(folder: Path, cells):
    size = VoxelSize.from_nm((30, 6, 6))
    for name, data in zip(("raw", "ids"), cells, strict=True):
        spec = ArraySpec(SHAPE, data.dtype.name, block=(8, 32, 32), chunk=(4, 16, 16), voxel_size=size)
        Volume.create(folder / f"{name}.zarr" / "0", spec).write(Box.of_shape(SHAPE), data)
        write_multiscale(folder / f"{name}.zarr", [("0", size, (0, 0, 0))], name=name, axes=("z", "y", "x"))
    found = opened.open_labelled(
        labelled(image="raw.zarr", labels="ids.zarr", voxel_size_nm=None, scale=0), NETWORK, folder
    )
    same = opened.open_labelled(labelled(), NETWORK, folder)
    whole = ((0, 0, 0), found.image.shape)
    np.testing.assert_array_equal(found.image.read(*whole), same.image.read(*whole))
    np.testing.assert_array_equal(found.labels.read(*whole), same.labels.read(*whole))


@pytest.mark.parametrize(
    ("differently", "error", "message"),
    [
        ({"voxel_size_nm": None}, WrongVoxelSize, "how large its voxels are"),
        ({"voxel_size_nm": (30, 5, 5)}, WrongVoxelSize, "no whole multiple"),
        ({"labels": "cells.h5:short"}, WrongShape, "its labels have"),
        ({"image": "cells.h5:wide"}, WrongType, "must be uint8"),
        ({"labels": "cells.h5:none"}, MissingInput, "no dataset"),
        ({"end": (15, 64, 64)}, WrongShape, "reaches out"),
        ({"image": "$NOWHERE/cells.h5:raw"}, ConfigError, "NOWHERE is not set"),
    ],
)
def test_a_volume_that_cannot_be_used_is_refused(folder: Path, differently, error, message: str):
    with pytest.raises(error, match=message) as caught:
        opened.open_labelled(labelled(**differently), NETWORK, folder)
    assert len(str(caught.value).splitlines()) == 3


def test_negative_labels_are_refused(folder: Path):
    found = opened.open_labelled(labelled(labels="cells.h5:signed"), NETWORK, folder)
    with pytest.raises(InputError, match="numbers from 0 up"):
        found.kept()


# ---- trainings -----------------------------------------------------------------------------------------------------
def test_affinities_are_trained_judged_and_kept(folder: Path):
    seen = []
    result = train_from_config(write(folder), folder / "out", on_progress=lambda *told: seen.append(told))
    assert [step for step, _, _ in seen] == [1, 2, 3, 4]
    judged = {step: metrics for step, _, metrics in seen if "voi" in metrics}
    assert sorted(judged) == [2, 4]
    assert all(m["voi"] == pytest.approx(m["voi_split"] + m["voi_merge"], abs=2e-5) for m in judged.values())
    assert all(m["threshold"] in (0.2, 0.5) for m in judged.values())

    best = json.loads((folder / "out" / "best.json").read_text())
    assert best["score"] == min(m["voi"] for m in judged.values())
    _, spec = load_network(result["weights"])
    assert (spec.training["step"], spec.training["metrics"]["voi"]) == (best["step"], best["score"])
    assert spec.offsets[3:] == ((0, 0, -3),)
    assert load_spec(str(folder / "out" / "real-last")).training["step"] == 4
    card = (folder / "out" / "real.md").read_text()
    assert spec.sha256 in card
    assert str(folder) not in card  # no machine in what is shipped
    assert str(folder) not in (folder / "out" / "real.json").read_text()

    lines = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    page = (folder / "out" / "training.html").read_text()
    for told in ("Done", "bits, held out", "Segmentation", "data:image/png", "<polyline"):
        assert told in page
    assert 'http-equiv="refresh"' not in page
    assert 'src="http' not in page


def test_slices_end_like_one_training(folder: Path):
    config = write(folder)
    whole = train_from_config(config, folder / "whole")
    cut = train_from_config(config, folder / "cut", minutes=1e-9)
    assert (cut["step"], cut["finished"], cut["exit_code"], cut["weights"]) == (0, False, 0, None)

    def interrupt(step: int, steps: int, metrics: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)

    before = signal.getsignal(signal.SIGTERM)
    cut = train_from_config(config, folder / "cut", on_progress=interrupt)
    assert (cut["step"], cut["finished"], cut["exit_code"]) == (3, False, 143)
    assert signal.getsignal(signal.SIGTERM) is before
    page = (folder / "cut" / "training.html").read_text()
    assert "Stopped" in page
    assert "What it sees" in page  # the evaluation of step 2
    done = train_from_config(config, folder / "cut")
    assert (done["step"], done["finished"], done["sha256"]) == (4, True, whole["sha256"])
    for name in ("real.safetensors", "real-last.safetensors", "best.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    logs = [(folder / name / "log.jsonl").read_text().splitlines() for name in ("cut", "whole")]
    one, other = ([json.loads(line)["loss"] for line in lines] for lines in logs)
    assert one == other


def test_the_best_network_stays(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.training.judge import Judge

    scores = iter([0.9, 0.4, 0.6, 0.5])
    monkeypatch.setattr(Judge, "__call__", lambda self, network: {"voi": next(scores), "held_out_auc": 0.5})
    config = write(folder, TOML.replace("evaluate_every = 2", "evaluate_every = 1"))
    result = train_from_config(config, folder / "out")
    assert result["metrics"]["voi"] == 0.4
    assert load_spec(result["weights"]).training["step"] == 2
    assert load_spec(str(folder / "out" / "real-last")).training["step"] == 4


def test_an_embedding_is_trained_and_judged(folder: Path):
    result = train_from_config(write(folder, EMBEDDING), folder / "out")
    _, spec = load_network(result["weights"])
    assert spec.network.heads == {"embedding": 4, "background": 1}
    assert spec.delta == 1.5
    assert spec.output == (5, 16, 16)
    assert {"held_out_loss", "held_out_background", "voi", "held_out_auc"} <= set(result["metrics"])
    assert "threshold" not in result["metrics"]
    assert "<h2>What it sees</h2>" in (folder / "out" / "training.html").read_text()


def test_patches_of_an_embedding_must_overlap(folder: Path):
    with pytest.raises(ConfigError, match="overlap too little"):
        load(write(folder, EMBEDDING.replace("stride = [3, 8, 8]", "stride = [4, 8, 8]")))


def test_other_data_under_the_same_name_is_another_training(folder: Path, cells):
    config = write(folder)
    train_from_config(config, folder / "out", minutes=1e-9)
    with h5py.File(folder / "cells.h5", "r+") as file:
        file["raw"][...] = 255 - cells[0]
    with pytest.raises(Exception, match="another recipe"):
        train_from_config(config, folder / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("begin = [8, 0, 0]", "begin = [7, 0, 0]", "not held out"),
        ("begin = [8, 0, 0]", "begin = [8, 0, 0]\nend = [8, 64, 64]", "no voxel"),
        ("patch = [4, 16, 16]\nbatch", "patch = [4, 15, 15]\nbatch", "must divide by 2"),
        ("stride = [3, 12, 12]", "stride = [4, 12, 12]", "smaller than the patch"),
        ("end = [8, 64, 64]", "end = [3, 64, 64]", "smaller than the"),
        ("steps = 4", 'steps = 4\ndevice = "tpu"', "training.device"),
        ("thresholds = [0.2, 0.5]", "thresholds = []", "segmentation.thresholds"),
        ('image = "$VOLUMES/cells.h5:raw"', 'picture = "x"', "sample.0.image"),
        ("learning_rate = 1.0", "", "diverged"),
        ("steps = 4", "step = 4", "training.step: there is no such key; is it 'steps'"),
        ("h5:ids", "h5:nothing", "hold no object"),
        (
            f"{SAMPLE}\nend = [8",
            f"{SAMPLE.replace('$VOLUMES/cells.h5:raw', '$VOLUMES/./cells.h5:/raw')}\nend = [9",
            "held out",
        ),
        (f"{SAMPLE}\nend = [8", f"{SAMPLE.replace('cells.h5:raw', 'cells.h5:copy')}\nend = [9", "held out"),
    ],
)
def test_a_config_that_cannot_work_is_refused(folder: Path, old: str, new: str, message: str, monkeypatch):
    text = TOML.replace(old, new)
    if message == "diverged":
        import models.train

        monkeypatch.setattr(models.train.math, "isfinite", lambda _: False)
    with pytest.raises((ConfigError, InputError), match=message) as caught:
        train_from_config(write(folder, text), folder / "out")
    assert len(str(caught.value).splitlines()) == 3


def test_a_validation_too_small_for_the_loss_of_an_embedding_is_refused_at_once(folder: Path):
    config = write(folder, EMBEDDING.replace("begin = [8, 0, 0]", "begin = [11, 0, 0]"))
    with pytest.raises(ConfigError, match="smaller than the") as caught:
        train_from_config(config, folder / "out")
    assert "validation" in str(caught.value)
    assert not (folder / "out").exists()


def test_regions_of_two_scales_of_an_image_are_compared_in_the_world():
    fine = opened.Place("a", "image.zarr", Box((0, 0, 0), (8, 64, 64)), Box((0, 0, 0), (240, 384, 384)))
    apart = opened.Place("b", "image.zarr", Box((8, 0, 0), (14, 32, 32)), Box((240, 0, 0), (420, 384, 384)))
    within = opened.Place("b", "image.zarr", Box((7, 0, 0), (14, 32, 32)), Box((210, 0, 0), (420, 384, 384)))
    elsewhere = opened.Place("b", "other.zarr", within.region, within.world)
    assert not fine.shares_voxels(apart)
    assert fine.shares_voxels(within)
    assert not fine.shares_voxels(elsewhere)


def test_one_process_at_a_time(folder: Path):
    from workers.errors import RunLocked
    from workers.fence import Fence

    fence = Fence(folder / "out" / "fence")
    fence.acquire()
    try:
        with pytest.raises(RunLocked, match="holds this directory"):
            train_from_config(write(folder), folder / "out", minutes=1e-9)
    finally:
        fence.release()
    assert train_from_config(write(folder), folder / "out", minutes=1e-9)["exit_code"] == 0


def test_a_config_that_is_no_text_is_refused(folder: Path):
    path = write(folder)
    path.write_bytes(TOML.encode() + "# é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path)


def test_there_must_be_something_to_train_on(folder: Path):
    without = TOML[: TOML.index("[[sample]]")] + TOML[TOML.index("[[validation]]") :]
    with pytest.raises(ConfigError, match="nothing to train on"):
        load(write(folder, without))


def test_signals_stay_with_the_main_thread(folder: Path):
    found: list[dict[str, object]] = []
    config = write(folder)
    thread = threading.Thread(target=lambda: found.append(train_from_config(config, folder / "out", minutes=1e-9)))
    thread.start()
    thread.join()
    assert found[0]["exit_code"] == 0
