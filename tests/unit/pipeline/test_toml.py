"""A config as text reads back as itself."""

from __future__ import annotations

import tomllib

from pipeline.config import parse
from pipeline.toml import dump

CONFIG = {
    "input": {"image": '/data/"quoted" µ.zarr', "voxel_size_nm": [30.0, 6.0, 6.5]},
    "roi": {"begin": [0, 0, 1], "end": [8, 8, 8]},
    "mask": [{"path": "a.zarr"}, {"path": "b.zarr", "voxel_size_nm": [1.0, 2.0, 3.0]}],
    "predict": {
        "override": [{"roi": {"end": [1, 2, 3]}, "weights": "w.json"}, {"roi": {"end": [1, 1, 1]}, "weights": "v"}]
    },
    "sweep": {"thresholds": []},
    "limits": {"disk_gb": 1e-7},
    "holes": [{"begin": [1, 2, 3], "end": [4, 5, 6]}],
}


def test_round_trip():
    config = parse(CONFIG, where="here")
    assert parse(tomllib.loads(dump(config.model_dump(mode="json"))), where="here") == config


def test_nothing():
    assert dump({"a": None, "b": {}}) == ""


def test_an_empty_list_is_not_nothing():
    assert dump({"a": [], "b": {"c": []}}) == "a = []\n\n[b]\nc = []"
