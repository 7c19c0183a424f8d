"""Another threshold from a finished run: the same bytes as a fresh run, only what depends on it, and no harm done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import broken_promises, kill_again_and_again
from test_damage import toml_with

from pipeline.derived import default_folder, derive, origin_of
from pipeline.errors import CannotWork, ConfigError
from pipeline.rundir import RunFolder
from workers.errors import RunLocked
from workers.fence import Fence

Demo = tuple[Path, dict[str, Any]]
Tree = Callable[[Path], dict[str, str]]
SHARED = {"synthesize", "resample", "predict", "fragments", "region_graph", "agglomerate", "sweep"}


def stage_of(task: str) -> str:
    return task.partition("/")[0]


def executed(told: dict[str, Any]) -> set[str]:
    return {stage_of(task) for task, counts in told["tasks"].items() if counts["executed"]}


@pytest.fixture
def unharmed(small_demo: Demo, tree_hash: Tree) -> Iterator[Path]:
    """The finished run; a test may derive from it, and must leave its data and journals as they are."""
    root = small_demo[0]
    before = {name: tree_hash(root / name) for name in ("data", "journals")}
    yield root
    assert {name: tree_hash(root / name) for name in before} == before


def test_the_same_bytes_as_a_fresh_run_and_only_what_depends_on_the_threshold(
    unharmed: Path, neurotile: Callable[..., Any], tree_hash: Tree, tmp_path: Path
) -> None:
    result = neurotile("segment", unharmed, "--threshold", "0.6", "--out", tmp_path / "cut", "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["complete"]
    assert "relabel" in executed(told)
    assert not executed(told) & SHARED
    config = tmp_path / "fresh.toml"
    config.write_text(toml_with(unharmed, "[relabel]\nthreshold = 0.6\n"))
    fresh = neurotile("run", config, "--out", tmp_path / "fresh", "--executor", "serial", "--json")
    assert fresh.returncode == 0, fresh.stderr
    assert tree_hash(tmp_path / "cut" / "labels.zarr") == tree_hash(tmp_path / "fresh" / "labels.zarr")
    assert tree_hash(tmp_path / "cut" / "labels.zarr") != tree_hash(unharmed / "labels.zarr")
    for command in ("verify", "status", "report", "retry"):
        again = neurotile(command, tmp_path / "cut", "--json")
        assert again.returncode == 0, (command, again.stderr)
    assert not executed(json.loads(again.stdout))


def test_kills_leave_nothing_behind(unharmed: Path, neurotile: Callable[..., Any], tree_hash: Tree) -> None:
    words = ["segment", str(unharmed), "--threshold", "0.5", "--json"]
    root = default_folder(unharmed, 0.5)
    campaign = kill_again_and_again(root, words, kills=4, seed=3)
    assert not campaign.violations
    result = neurotile(*words)
    assert result.returncode == 0, result.stderr
    assert not executed(json.loads(result.stdout)) & SHARED
    assert not broken_promises(root)
    assert root == unharmed / "segments" / "T0.500"


@pytest.mark.parametrize("links", [0, 5, 40])
def test_a_half_made_folder_is_made_anew(
    unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree_hash: Tree, links: int
) -> None:
    link, made = os.link, 0

    def killed(*given: Any) -> None:
        nonlocal made
        made += 1
        if made > links:
            raise KeyboardInterrupt
        link(*given)

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            derive(unharmed, 0.7, out)
    assert not RunFolder(out).exists()
    derive(unharmed, 0.7, out)
    assert RunFolder(out).exists()
    assert origin_of(RunFolder(out)) == str(unharmed)
    shared = {p.name for p in (unharmed / "data").iterdir() if stage_of(p.name.replace("-", "/")) in SHARED}
    assert {p.name for p in (out / "data").iterdir()} == shared
    assert all(tree_hash(out / "data" / name) == tree_hash(unharmed / "data" / name) for name in shared)
    derive(unharmed, 0.7, out)


def test_what_cannot_be_derived_is_refused(
    unharmed: Path, neurotile: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = neurotile("segment", unharmed, "--threshold", "0.05", "--out", tmp_path / "low")
    assert result.returncode == 2
    assert "begins at its floor 0.1" in result.stderr
    assert not (tmp_path / "low").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="holds no run"):
        derive(unharmed, 0.3, other)
    with pytest.raises(ConfigError, match=r"threshold 0\.25 in this folder"):
        derive(unharmed, 0.3, unharmed)
    fence = Fence(RunFolder(unharmed).fence)
    fence.acquire()
    with pytest.raises(RunLocked):
        derive(unharmed, 0.3, tmp_path / "locked")
    fence.release()

    def unshared(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", unshared)
    with pytest.raises(CannotWork, match="hard links"):
        derive(unharmed, 0.3, tmp_path / "far")


def test_an_unfinished_tree_is_refused(fresh_demo: Demo, tmp_path: Path) -> None:
    root = fresh_demo[0]
    for journal in (root / "journals").iterdir():
        journal.unlink()
    with pytest.raises(ConfigError, match="not finished"):
        derive(root, 0.3, tmp_path / "cut")
    assert not RunFolder(tmp_path / "cut").exists()
