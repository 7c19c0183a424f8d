"""Other weights for one predict block: only its dependency cone is recomputed, to the result of a fresh run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import SERIAL

SIZE = [8, 144, 144]


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network with one layer disturbed: a retrained one, as far as the pipeline can tell."""
    import torch

    from models.checkpoint import load_network, save_weights

    network, spec = load_network("tiny")
    with torch.no_grad():
        next(iter(network.parameters())).mul_(0.8)
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    save_weights(network, spec, path)
    return path


def test_only_the_cone_is_recomputed(other_weights: Path, neurotile: Callable[..., Any], tmp_path: Path) -> None:
    base = (
        f"[input.synthetic]\nseed = 5\nsize = {SIZE}\n[blocks]\nshape = [8, 24, 24]\nchunk = [8, 24, 24]\n"
        "[predict]\nblock = [8, 24, 24]\n"
    )
    override = (
        f'[[predict.override]]\nweights = "{other_weights}"\n'
        "[predict.override.roi]\nbegin = [0, 0, 0]\nend = [8, 24, 24]\n"
    )
    plain, changed = tmp_path / "plain.toml", tmp_path / "changed.toml"
    plain.write_text(base)
    changed.write_text(base + override)
    root = tmp_path / "run"
    first = neurotile("run", plain, "--out", root, "--json", *SERIAL)
    assert first.returncode == 0, first.stderr
    refused = neurotile("run", changed, "--out", root)
    assert refused.returncode == 78
    assert "predict.override" in refused.stderr
    updated = neurotile("run", changed, "--out", root, "--update", "--json", *SERIAL)
    assert updated.returncode == 0, updated.stderr
    blocks = json.loads(updated.stdout)["tasks"]
    ran = {task: counts["executed"] for task, counts in blocks.items() if counts["executed"]}
    assert "synthesize/blocks" not in ran
    assert "resample/blocks" not in ran
    assert ran["predict/blocks"] == 1
    assert ran["fragments/up0"] == 4  # the block and those that see it through their halo of one voxel
    assert blocks["fragments/up0"]["total"] == 9
    assert 1 <= ran["region_graph/blocks"] <= blocks["region_graph/blocks"]["total"]
    fresh = neurotile("run", changed, "--out", tmp_path / "fresh", "--json", *SERIAL)
    assert fresh.returncode == 0, fresh.stderr
    one, two = (json.loads(neurotile("demo", "--json", "--out", p).stdout) for p in (root, tmp_path / "fresh"))
    assert one["sha256_affinities"] == two["sha256_affinities"]
    assert one["sha256"] == two["sha256"]
