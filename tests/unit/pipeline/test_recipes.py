"""Recipes of weights: they fill in what a config leaves out, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.spec import SHIPPED
from pipeline.config import load
from pipeline.errors import BadWeights, ConfigError
from pipeline.facts import resolve

MEAN = {
    "fragments": {"low": 0.05, "high": 0.99, "size_vx": 50},
    "agglomerate": {"floor": 0.3},
    "relabel": {"threshold": 0.6},
    "tuned": {"voi": 0.5},
}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """`config(text)`: a config beside weights with the recipe "mean"."""
    spec = json.loads((SHIPPED / "tiny.json").read_text())
    (tmp_path / "own.json").write_text(json.dumps({**spec, "recipes": {"mean": MEAN}}))
    (tmp_path / "own.safetensors").write_bytes((SHIPPED / "tiny.safetensors").read_bytes())

    def read(text: str, weights: str = "own.safetensors") -> Any:
        path = tmp_path / "run.toml"
        path.write_text(f'{text}\n[input.synthetic]\n[predict]\nweights = "{weights}"\n')
        return load(path)

    return read


def test_a_recipe_fills_in_what_the_config_leaves_out(config: Any) -> None:
    found = config('recipe = "mean"\n[fragments]\nhigh = 0.95')
    assert (found.fragments.low, found.fragments.high, found.fragments.size_vx) == (0.05, 0.95, 50)
    assert (found.agglomerate.floor, found.relabel.threshold) == (0.3, 0.6)
    assert (found.agglomerate.score, found.recipe) == ("mean", "mean")


def test_without_a_recipe_the_weights_change_nothing(config: Any) -> None:
    assert config("").fragments.low == 0.02


def test_a_recipe_that_the_weights_lack(config: Any) -> None:
    with pytest.raises(ConfigError, match="no recipe 'max'; they have 'mean'"):
        config('recipe = "max"')
    with pytest.raises(ConfigError, match="they have none"):
        config('recipe = "mean"', weights="tiny")


def test_weights_that_are_not_there(config: Any) -> None:
    with pytest.raises(BadWeights):
        config('recipe = "mean"', weights="./missing.safetensors")


def test_a_recipe_with_a_key_that_no_config_has_is_refused(config: Any, tmp_path: Path) -> None:
    spec = json.loads((tmp_path / "own.json").read_text())
    spec["recipes"]["mean"]["fragments"]["lowest"] = 0.1
    (tmp_path / "own.json").write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=r"fragments\.lowest"):
        config('recipe = "mean"')


def test_a_runs_facts_do_not_depend_on_recipes(config: Any, tmp_path: Path) -> None:
    before = resolve(config(""))["weights"]
    spec = json.loads((tmp_path / "own.json").read_text())
    (tmp_path / "own.json").write_text(json.dumps({**spec, "recipes": {}}))
    assert resolve(config(""))["weights"] == before
