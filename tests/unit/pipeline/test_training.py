import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.checkpoint import load_network
from pipeline.errors import BadWeights, ConfigError
from pipeline.training import load, train_from_config
from pipeline.training.volumes import InMemory, make_volume

TOML = """
name = "small"
[network]
widths = [4, 6]
patch = [4, 16, 16]
stride = [3, 12, 12]
[volumes]
first_seed = 1000
count = 2
size = [6, 48, 48]
[validation]
first_seed = 2000
count = 1
size = [6, 40, 40]
[training]
patch = [4, 16, 16]
batch = 2
steps = 3
evaluate_every = 2
"""


def write(folder: Path, text: str = TOML) -> Path:
    path = folder / "train.toml"
    path.write_text(text)
    return path


def test_one_config_gives_one_network(tmp_path: Path):
    seen = []
    config = write(tmp_path)
    first = train_from_config(config, tmp_path / "a", on_progress=lambda *told: seen.append(told))
    again = train_from_config(config, tmp_path / "b")
    assert first["sha256"] == again["sha256"]
    assert [(step, steps) for step, steps, _ in seen] == [(2, 3), (3, 3)]
    assert {"held_out_auc", "held_out_loss"} <= set(first["metrics"])
    _, spec = load_network(first["weights"])
    assert spec.training["config"] == load(config).model_dump(mode="json")
    assert spec.training["metrics"] == first["metrics"]
    assert spec.patch == (4, 16, 16)


def test_a_finished_training_is_taken_up_and_another_one_refused(tmp_path: Path):
    config = write(tmp_path)
    first = train_from_config(config, tmp_path / "out")
    assert train_from_config(config, tmp_path / "out")["sha256"] == first["sha256"]
    changes = (
        ("steps = 3", "steps = 4", r"another recipe: training\.steps is 4, was 3$"),
        ("first_seed = 1000", "first_seed = 1001", r"another recipe: volumes\.first_seed is 1001, was 1000$"),
    )
    for old, new, message in changes:
        with pytest.raises(BadWeights, match=f"(?m){message}"):
            train_from_config(write(tmp_path, TOML.replace(old, new)), tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = 1", "count = 1\nhue = 3", "validation.hue"),
        ("first_seed = 2000", "first_seed = 1001", "held out"),
        ("patch = [4, 16, 16]\nbatch", "patch = [4, 16, 12]\nbatch", "as long in y as in x"),
        ('name = "small"', 'name = "../small"', "name"),
        ("[network]", "[network", "not TOML"),
        ("stride = [3, 12, 12]", "stride = [4, 12, 12]", "smaller than the patch"),
    ],
)
def test_a_config_that_cannot_work_is_refused(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises((ConfigError, BadWeights), match=message):
        train_from_config(write(tmp_path, TOML.replace(old, new)), tmp_path / "out")


def test_a_missing_config_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.toml")


def test_volumes_come_at_the_networks_voxel_size(tmp_path: Path):
    config = load(write(tmp_path))
    image, labels = make_volume(config.volumes, 1000, (30.0, 12.0, 12.0))
    assert image.shape == labels.shape == (6, 24, 24)
    assert image.dtype == np.uint8
    assert labels.dtype == np.uint64
    assert InMemory(image).shape == (6, 24, 24)
    np.testing.assert_array_equal(InMemory(image).read((1, 2, 3), (4, 5, 6)), image[1:4, 2:5, 3:6])
    with pytest.raises(ConfigError, match="whole multiple"):
        make_volume(config.volumes, 1000, (30.0, 10.0, 10.0))


def test_the_config_is_read_without_torch():
    code = "import sys, pipeline.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_named_augmentation_trains(tmp_path: Path):
    text = TOML.replace("count = 2\nsize = [6, 48, 48]", "count = 1\nsize = [6, 112, 112]")
    named = text + '[augmentation]\nrecipe = "published"\n'
    first = train_from_config(write(tmp_path, named), tmp_path / "a")
    again = train_from_config(write(tmp_path, named), tmp_path / "b")
    assert first["sha256"] == again["sha256"]
    assert train_from_config(write(tmp_path, text), tmp_path / "c")["sha256"] != first["sha256"]
    with pytest.raises(ConfigError, match="with its augmentation"):
        train_from_config(write(tmp_path, named.replace("112", "60")), tmp_path / "d")
