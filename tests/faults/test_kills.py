"""Random SIGKILLs of workers and schedulers in mid-block; the answer and the promise survive them all."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import SERIAL, broken_promises, kill_again_and_again

Tree = Callable[[Path], dict[str, str]]
KILLS = 20
SIZE = ("--size", "24,128,128", "--block", "8,32,32")  # 3 x 4 x 4 blocks

# A worker that writes its receipt, with the right digests, before its data: the harness must catch it.
RECEIPT_FIRST = """
    import time
    from pipeline import volumes
    from workers import loop

    honest = loop.BlockLoop._commit

    def commit(self, attempt):
        kept = volumes.Volume.write
        later = []
        volumes.Volume.write = lambda volume, box, data: later.append((volume, box, data)) or volumes.digest(data)
        try:
            honest(self, attempt)
        finally:
            volumes.Volume.write = kept
        time.sleep(0.5)
        for volume, box, data in later:
            volume.write(box, data)

    loop.BlockLoop._commit = commit
"""


@pytest.mark.slow
def test_twenty_kills_and_the_same_bytes(tmp_path: Path, neurotile: Callable[..., Any], tree_hash: Tree) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    result = neurotile("demo", "--json", "--out", calm, *SIZE, *SERIAL)
    assert result.returncode == 0, result.stderr
    argv = ["demo", "--quiet", "--out", str(stormy), *SIZE]
    campaign = kill_again_and_again(stormy, argv, kills=KILLS, seed=1)
    assert campaign.kills >= KILLS, campaign
    assert campaign.workers_killed > 0
    assert campaign.schedulers_killed > 0
    assert campaign.violations == []
    assert neurotile(*argv).returncode == 0
    assert tree_hash(stormy / "data") == tree_hash(calm / "data")
    again = json.loads(neurotile("demo", "--json", "--out", stormy).stdout)
    told = json.loads(result.stdout)
    assert (again["sha256"], again["sha256_affinities"]) == (told["sha256"], told["sha256_affinities"])
    assert again["totals"]["executed"] == 0


def test_the_harness_catches_receipts_that_come_first(
    fresh_demo: tuple[Path, dict[str, Any]], tmp_path: Path, neurotile: Callable[..., Any]
) -> None:
    root, _ = fresh_demo
    assert broken_promises(root) == []
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(RECEIPT_FIRST))
    config = changed_config(root, tmp_path)
    argv = ["run", str(config), "--out", str(root), "--update", "--quiet"]
    environment = {"PYTHONPATH": str(site)}
    campaign = kill_again_and_again(root, argv, kills=6, seed=2, environment=environment, only_busy=False)
    assert campaign.violations, campaign


def test_without_kills_the_wrong_order_goes_unseen(
    fresh_demo: tuple[Path, dict[str, Any]], tmp_path: Path, neurotile: Callable[..., Any]
) -> None:
    """The control must fail for its order, not for its content."""
    root, _ = fresh_demo
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(RECEIPT_FIRST))
    argv = ("run", changed_config(root, tmp_path), "--out", root, "--update")
    result = neurotile(*argv, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    assert broken_promises(root) == []


def changed_config(root: Path, folder: Path) -> Path:
    """The run's own config with another dust limit, as a file."""
    record = json.loads((root / "run.json").read_text())["config"]
    config = folder / "changed.toml"
    synthetic = record["input"]["synthetic"]
    config.write_text(
        textwrap.dedent(f"""
            [input.synthetic]
            seed = {synthetic["seed"]}
            size = {synthetic["size"]}
            voxel_size_nm = {synthetic["voxel_size_nm"]}
            [fragments]
            dust_vx = 5
            [blocks]
            shape = {record["blocks"]["shape"]}
            chunk = {record["blocks"]["chunk"]}
        """)
    )
    return config
