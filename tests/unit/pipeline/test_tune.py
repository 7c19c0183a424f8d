"""Tuning: the search finds settings that are known to be best; what is stored with weights is taken up by runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.spec import NEAREST, SHIPPED, load_spec
from pipeline.config import load
from pipeline.training import tune_weights
from pipeline.training.apply import Held, Said, labels, segmented
from pipeline.training.card import with_recipes
from pipeline.training.tune import MUTEX, WATERSHED, Search, Tuner, config_of

TABLE = np.asarray(load_spec("tiny").code_table, np.int64)


def rooms(weak: int, wall: int) -> Held:
    """Two rooms with a wall between them, one of them cut once by a weaker one."""
    truth = np.ones((3, 8, 12), np.uint64)
    truth[:, :, 6:] = 2
    codes = np.full((3, 3, 8, 12), 255, np.uint8)
    codes[0, 0], codes[1, :, 0], codes[2, :, :, 0] = 0, 0, 0
    codes[2, :, :, 3], codes[2, :, :, 6] = weak, wall
    return Held("rooms", Said(codes, None, NEAREST, TABLE, (30.0, 12.0, 12.0)), truth)


def test_a_threshold_between_the_walls_is_found() -> None:
    found = Tuner([rooms(160, 90), rooms(200, 60)]).tuned(Search("mean", {}, WATERSHED))
    table = TABLE / 65535
    assert table[90] < found["relabel"]["threshold"] <= table[160]
    assert found["tuned"]["voi"] == 0
    assert [one["voi"] for one in found["tuned"]["volumes"]] == [0, 0]


def test_a_setting_that_alone_helps_is_taken() -> None:
    # The wall is weak where it is stored, but above the first `high`: only a higher one keeps the rooms apart.
    held = rooms(255, 235)
    knobs = {"fragments.high": (0.9, 0.99)}
    told: list[str] = []
    found = Tuner([held], told.append).tuned(Search("mean", {}, knobs))
    assert found["fragments"]["high"] == 0.99
    assert found["tuned"]["voi"] == 0
    assert any("fragments.high 0.9" in line for line in told)


def test_background_is_taken_out_before_the_mutex_watershed() -> None:
    held = rooms(255, 255)
    wall = np.zeros(held.truth_ZYX.shape, np.uint8)
    wall[:, :, 5] = 200
    walled = replace(held.said, background_ZYX=wall)
    share = TABLE[200] / 65535
    for threshold, count in ((share - 0.05, 2), (share + 0.05, 1)):
        settings = {**MUTEX, "predict.background_threshold": round(threshold, 3), "mutex_watershed.low": 0.02}
        found = labels(walled, config_of(settings))
        assert np.unique(found[found > 0]).size == count
    joined = segmented(walled, config_of({"predict.background_threshold": 0.2})).segments(0.5)
    assert joined[0, 0, 0] != joined[0, 0, 11]


def test_recipes_go_from_a_training_to_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for suffix in (".json", ".safetensors", ".md"):
        shutil.copy(SHIPPED / f"tiny{suffix}", folder / f"own{suffix}")
    config = tmp_path / "train.toml"
    config.write_text(
        'name = "own"\n[network]\nwidths = [8, 16, 32]\npatch = [16, 96, 96]\nstride = [12, 80, 80]\n'
        "[volumes]\nfirst_seed = 1\ncount = 1\nsize = [16, 96, 96]\n"
        "[validation]\nfirst_seed = 2\ncount = 1\nsize = [16, 96, 96]\n"
    )
    recipes = tune_weights(config, folder)
    assert set(recipes) == {"mean", "max", "quantile", "seeded_quantile"}
    stored = json.loads((folder / "own.json").read_text())["recipes"]
    assert stored == json.loads(json.dumps(recipes))
    assert load_spec(str(folder / "own.safetensors")).sha256 == load_spec("tiny").sha256
    run = tmp_path / "run.toml"
    weights = folder / "own.safetensors"
    for name, recipe in recipes.items():
        run.write_text(f'recipe = "{name}"\n[input.synthetic]\n[predict]\nweights = "{weights}"\n')
        taken = load(run)
        assert taken.relabel.threshold == recipe["relabel"]["threshold"]
        assert taken.fragments.method == recipe["fragments"].get("method", "watershed")
    card = (folder / "own.md").read_text()
    assert card.count("## Recipes") == 1
    assert with_recipes(card, recipes) == card
