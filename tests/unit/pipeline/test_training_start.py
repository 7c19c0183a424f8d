"""Trainings that start from other weights: what is taken over, what is part of the recipe, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_network, save_weights
from models.networks import build
from models.resume import load_state
from models.spec import load_spec
from pipeline.errors import BadWeights
from pipeline.training import load, train_from_config

TOML = """
name = "small"
[network]
widths = [4, 6]
patch = [4, 16, 16]
stride = [3, 12, 12]
[volumes]
first_seed = 1000
count = 1
size = [6, 40, 40]
[validation]
first_seed = 2000
count = 1
size = [4, 32, 32]
[training]
patch = [4, 16, 16]
batch = 1
steps = 3
start_from = "given/net.safetensors"
"""


def write(folder: Path, text: str = TOML) -> Path:
    path = folder / "train.toml"
    path.write_text(text)
    return path


def give(folder: Path, seed: int = 7, **differently: object) -> str:
    """Weights in the folder `given`; returns their hash."""
    torch.manual_seed(seed)
    spec = load(write(folder)).network.model_copy(update=differently).spec()
    (folder / "given").mkdir(exist_ok=True)
    return save_weights(build(spec.architecture), spec, folder / "given" / "net.safetensors").sha256


@pytest.mark.parametrize("named", ["given/net.safetensors", "given/net", "$GIVEN/net"])
def test_a_training_begins_with_other_weights(tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIVEN", str(tmp_path / "given"))
    monkeypatch.chdir("/")  # paths count from the folder of the config
    digest = give(tmp_path)
    text = TOML.replace("given/net.safetensors", named).replace("steps = 3", "steps = 1\nlearning_rate = 1e-9")
    result = train_from_config(write(tmp_path, text), tmp_path / "out")
    found, spec = load_network(result["weights"])
    given, _ = load_network(str(tmp_path / "given" / "net"))
    for name, tensor in found.state_dict().items():
        assert torch.allclose(tensor, given.state_dict()[name], atol=1e-3), name
    begun = spec.training["started_from"]
    assert (begun["weights"], begun["sha256"], begun["tensors"]) == (named, digest, begun["of"])
    assert digest in (tmp_path / "out" / "small.md").read_text()


def test_a_cut_training_ends_like_a_whole_one_and_another_start_is_refused(tmp_path: Path):
    give(tmp_path, long_range=((0, 0, -3),))  # its head is of another size
    config = write(tmp_path)
    whole = train_from_config(config, tmp_path / "whole")
    assert load_spec(whole["weights"]).training["started_from"]["tensors"] > 0
    fresh = TOML.replace("start_from", "# start_from")
    assert train_from_config(write(tmp_path, fresh), tmp_path / "fresh")["sha256"] != whole["sha256"]

    def stop(step: int, steps: int, metrics: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    cut = write(tmp_path, TOML + "report_every = 1\nsave_every = 1\n")
    with pytest.raises(KeyboardInterrupt):
        train_from_config(cut, tmp_path / "cut", on_progress=stop)
    assert int(load_state(tmp_path / "cut" / "state")["step"]) == 1
    for text in (fresh, fresh + "save_every = 7\n"):
        with pytest.raises(BadWeights, match="another recipe") as refused:
            train_from_config(write(tmp_path, text), tmp_path / "cut")
        assert "--out" in str(refused.value)
    give(tmp_path, seed=8, long_range=((0, 0, -3),))
    with pytest.raises(BadWeights, match="another recipe"):
        train_from_config(write(tmp_path), tmp_path / "cut")
    give(tmp_path, long_range=((0, 0, -3),))
    assert train_from_config(write(tmp_path), tmp_path / "cut")["sha256"] == whole["sha256"]


@pytest.mark.parametrize(
    ("named", "message"),
    [("given/none", "cannot read"), ("tinny", "cannot read"), ("given/net", "shares no tensor"), ("given/bad", "JSON")],
)
def test_a_start_that_cannot_be_is_refused(tmp_path: Path, named: str, message: str):
    give(tmp_path, widths=(5, 7), long_range=((0, 0, -3),))
    (tmp_path / "given" / "bad.json").write_text("{")
    config = write(tmp_path, TOML.replace("given/net.safetensors", named))
    with pytest.raises(BadWeights, match=message) as refused:
        train_from_config(config, tmp_path / "out")
    _, where, way_out = str(refused.value).splitlines()
    assert "training.start_from" in where
    assert "remove" not in way_out
    assert not (tmp_path / "out").exists()


def test_the_best_network_is_one_judged_by_the_same_volumes(tmp_path: Path):
    from pipeline.training.keep import Keeper

    config = load(write(tmp_path, TOML + "[segmentation]\n"))
    network = build(config.network.spec().architecture)

    def keeper(judged: str = "a") -> Keeper:
        return Keeper(config, tmp_path, "a machine", came={}, judged=(judged,))

    keeper().keep(network, 1, {"voi": 0.5}, 60.0)
    keeper().keep(network, 2, {"voi": 0.7}, 60.0)
    keeper().keep(network, 3, {"voi": float("nan")}, 60.0)
    assert keeper().best["step"] == 1
    assert keeper("b").best == {}
    note = tmp_path / "best.json"
    old = json.loads(note.read_text())
    note.write_text(json.dumps({name: value for name, value in old.items() if name != "judged_by"}))
    assert keeper("b").best["step"] == 1  # written before that was noted
    note.write_text("{")
    with pytest.raises(BadWeights, match="note of the best network"):
        keeper()
