from pathlib import Path

import pytest

from models.checkpoint import load_network
from models.engine import Engine
from models.spec import NEAREST, SHIPPED, load_spec, smooth_code_table
from pipeline.ops import affinity_score
from pipeline.training.settings import TrainConfig, Volumes, load
from pipeline.training.volumes import make_volume

NAMES = sorted(path.stem for path in SHIPPED.glob("*.json"))


def test_tiny_is_shipped():
    assert "tiny" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_whole_small_and_described(name: str):
    load_network(name)
    spec = load_spec(name)
    assert (SHIPPED / f"{name}.safetensors").stat().st_size < 8_000_000
    card = (SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    assert spec.sha256 in card
    assert "neurotile train configs/" in card
    assert spec.training["config"]["name"] == name


def test_tiny_is_the_network_that_its_config_describes():
    config = load(Path(__file__).parents[3] / "configs" / "tiny_train.toml")
    assert TrainConfig.model_validate(load_spec("tiny").training["config"]) == config


def test_tiny_tells_edges_apart_in_a_volume_it_has_not_seen():
    network, spec = load_network("tiny")
    assert spec.code_table == smooth_code_table()
    unseen = Volumes(first_seed=4711, count=1, size=(16, 256, 256))
    image, labels = make_volume(unseen, 4711, spec.voxel_size_nm)
    shape = (16, 128, 128)
    codes = Engine(network, spec).predict(image, origin=(0, 0, 0), begin=(0, 0, 0), end=shape, layer=shape)
    found = affinity_score.score(codes, labels, NEAREST, spec.code_table)
    assert min(found[f"auc_{axis}"] for axis in "zyx") > 0.95
