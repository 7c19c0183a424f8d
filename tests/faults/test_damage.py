"""Torn and bit-flipped data is found by `verify` and repaired by `run`; damage met by a run is a named error."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import SERIAL

Demo = tuple[Path, dict[str, Any]]
Tree = Callable[[Path], dict[str, str]]


def data_files(root: Path) -> list[Path]:
    """Shards and tables."""
    return sorted(p for p in (root / "data").rglob("*") if p.is_file() and p.name != "zarr.json")


def flip(path: Path, choose: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def test_verify_finds_and_run_repairs(fresh_demo: Demo, neurotile: Callable[..., Any], tree_hash: Tree) -> None:
    root, told = fresh_demo
    before = tree_hash(root / "data")
    result = neurotile("verify", root, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["damaged"] == []
    choose = random.Random(5)
    files = [path for path in data_files(root) if path.suffix != ".arrow"]
    tables = [path for path in data_files(root) if path.suffix == ".arrow"]
    torn, flipped, gone, table = *choose.sample(files, 3), choose.choice(tables)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    flip(flipped, choose)
    gone.unlink()
    table.write_bytes(table.read_bytes()[:-9])
    result = neurotile("verify", root, "--json")
    assert result.returncode == 3
    assert len(json.loads(result.stdout)["damaged"]) >= 4
    result = neurotile("run", "--out", root, "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    assert 4 <= json.loads(result.stdout)["totals"]["executed"] < told["totals"]["total"]
    assert tree_hash(root / "data") == before
    assert neurotile("verify", root).returncode == 0


def test_a_poison_block_is_quarantined_and_reproducible(
    fresh_demo: Demo, neurotile: Callable[..., Any], tmp_path: Path
) -> None:
    """A damaged region-graph table poisons one block of agglomeration; all that does not need it gets done."""
    root, told = fresh_demo
    folder = next((root / "data").glob("region_graph-*"))
    table = folder / "blocks" / "1" / "0" / "1.arrow"
    good = table.read_bytes()
    table.write_bytes(good[:-9])
    config = root.parent / "other.toml"
    config.write_text(toml_with(root, "[agglomerate]\nfloor = 0.15\n"))
    result = neurotile("run", config, "--out", root, "--update", "--json")
    assert result.returncode == 3, result.stderr
    ended = json.loads(result.stdout)
    blocks = ended["tasks"]
    assert blocks["agglomerate/up0"]["failed"] == 1
    assert blocks["agglomerate/up0"]["done"] == blocks["agglomerate/up0"]["total"] - 1
    assert blocks["relabel/blocks"]["waiting"] == blocks["relabel/blocks"]["total"]
    assert blocks["pyramid/image1"]["done"] == blocks["pyramid/image1"]["total"]
    (failure,) = ended["failures"]
    assert (failure["task"], failure["block"], failure["error"]) == ("agglomerate/up0", "1.0.1", "ChunkCorrupt")
    assert str(table) in failure["what"]
    bundle = json.loads((root / failure["bundle"] / "error.json").read_text())
    assert bundle["command"] == failure["command"]
    assert neurotile("run", "--out", root, "--json", *SERIAL).returncode == 3  # poison stays quarantined
    again = neurotile(*failure["command"].split()[1:])
    assert again.returncode == 3
    assert "ChunkCorrupt" in again.stderr
    assert "agglomerate/up0 1.0.1" in neurotile("status", root).stdout
    assert neurotile("verify", root).returncode == 3
    assert neurotile("run", "--out", root, *SERIAL).returncode in (0, 3)
    result = neurotile("retry", root, "--json")
    assert result.returncode == 0, result.stderr
    assert table.read_bytes() == good
    assert told["sha256_affinities"]


def toml_with(root: Path, extra: str) -> str:
    """The run's own config as TOML, and something more."""
    config = json.loads((root / "run.json").read_text())["config"]
    synthetic = config["input"]["synthetic"]
    return (
        f"[input.synthetic]\nseed = {synthetic['seed']}\nsize = {synthetic['size']}\n"
        f"voxel_size_nm = {synthetic['voxel_size_nm']}\n"
        f"[blocks]\nshape = {config['blocks']['shape']}\nchunk = {config['blocks']['chunk']}\n{extra}"
    )
