"""What a changed config does to a run: refused with a diff, or exactly the dependent blocks; and one run at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import SERIAL
from test_damage import toml_with

Demo = tuple[Path, dict[str, Any]]
NEUROTILE = str(Path(sys.executable).with_name("neurotile"))


def executed(told: dict[str, Any]) -> dict[str, int]:
    return {task: counts["executed"] for task, counts in told["tasks"].items() if counts["executed"]}


def test_a_changed_threshold(
    fresh_demo: Demo, neurotile: Callable[..., Any], tree_hash: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    root, told = fresh_demo
    config = tmp_path / "changed.toml"
    config.write_text(toml_with(root, "[relabel]\nthreshold = 0.6\n"))
    result = neurotile("run", config, "--out", root)
    assert result.returncode == 78
    assert "relabel.threshold: 0.25 -> 0.6 (changes the answer)" in result.stderr
    assert "--update" in result.stderr
    planned = neurotile("plan", config, "--out", root, "--update", "--json")
    to_run = {t["task"]: t["to_run"] for t in json.loads(planned.stdout)["tasks"] if t["to_run"]}
    result = neurotile("run", config, "--out", root, "--update", "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    dependent = {"relabel/down1", "relabel/blocks", "pyramid/segmentation1", "pyramid/segmentation2"}
    dependent |= {"evaluate/blocks", "evaluate/total", "pyramid/image1", "pyramid/image2"}
    ran = executed(json.loads(result.stdout))
    assert {"relabel/down1", "relabel/blocks", "evaluate/total"} <= set(ran) <= dependent
    assert ran["relabel/blocks"] == told["tasks"]["relabel/blocks"]["total"]
    assert set(ran) <= set(to_run)
    fresh = neurotile("run", config, "--out", tmp_path / "fresh", "--json", *SERIAL)
    assert fresh.returncode == 0, fresh.stderr
    labels = [
        sorted(
            (p.relative_to(r / "labels.zarr"), p.read_bytes())
            for p in (r / "labels.zarr" / "c").rglob("*")
            if p.is_file()
        )
        for r in (root, tmp_path / "fresh")
    ]
    assert labels[0] == labels[1]


def test_a_changed_block_shape_is_layout_only(fresh_demo: Demo, neurotile: Callable[..., Any], tmp_path: Path) -> None:
    root, told = fresh_demo
    text = toml_with(root, "").replace("shape = [8, 48, 48]", "shape = [16, 48, 96]")
    config = tmp_path / "blocks.toml"
    config.write_text(text)
    result = neurotile("run", config, "--out", root)
    assert result.returncode == 78
    assert "changes the layout only, not the answer" in result.stderr
    assert "changes the answer" not in result.stderr.replace("would change the layout, not the answer", "")
    result = neurotile("run", config, "--out", root, "--update", "--json", *SERIAL)
    assert result.returncode == 0, result.stderr
    again = json.loads(neurotile("demo", "--json", "--out", root).stdout)
    assert (again["sha256"], again["sha256_affinities"]) == (told["sha256"], told["sha256_affinities"])


def test_workers_and_executor_are_no_part_of_it(fresh_demo: Demo, neurotile: Callable[..., Any]) -> None:
    root, told = fresh_demo
    result = neurotile("demo", "--json", "--out", root, "--workers", "1", "--executor", "serial")
    assert result.returncode == 0, result.stderr
    again = json.loads(result.stdout)
    assert again["totals"]["executed"] == 0
    assert again["sha256"] == told["sha256"]


def test_the_second_run_is_turned_away(tmp_path: Path, neurotile: Callable[..., Any]) -> None:
    root = tmp_path / "run"
    argv = ["demo", "--quiet", "--out", str(root), "--size", "16,96,96", "--block", "8,48,48"]
    first = subprocess.Popen([NEUROTILE, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (root / "run.json").exists():
            time.sleep(0.02)
        began = time.monotonic()
        second = neurotile(*argv)
        assert second.returncode == 75
        assert f'"pid": {first.pid}' in second.stderr
        assert time.monotonic() - began < 60  # at once, and not after the patience for workers
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=60) == 130
    assert neurotile("status", root).stdout.splitlines()[-1].startswith("stopped")


def test_a_terminated_run_says_so(tmp_path: Path, neurotile: Callable[..., Any]) -> None:
    root = tmp_path / "run"
    argv = ["demo", "--quiet", "--out", str(root), "--size", "16,96,96", "--block", "8,48,48"]
    run = subprocess.Popen([NEUROTILE, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (root / "status.json").exists():
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=60) == 143
    assert json.loads((root / "status.json").read_text())["state"] == "stopped"
    assert neurotile(*argv).returncode == 0


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path, neurotile: Callable[..., Any]) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    for name in ("data/mine/file", "notes.partial-12-ab", "x.__lock"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = neurotile("demo", "--out", tmp_path, "--size", "8,48,48")
    assert result.returncode == 2
    assert "not empty and holds no run" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").write_text("")
    assert neurotile("demo", "--out", tmp_path / "file").returncode == 2


def test_verify_after_an_interrupted_update_finds_no_damage(
    fresh_demo: Demo, neurotile: Callable[..., Any], tmp_path: Path
) -> None:
    root, _ = fresh_demo
    record = json.loads((root / "run.json").read_text())
    record["config"]["relabel"]["threshold"] = 0.6  # what an update that was killed at once leaves
    (root / "run.json").write_text(json.dumps(record))
    result = neurotile("verify", root, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["stale"] > 0


@pytest.mark.parametrize("code", [signal.SIGTERM])
def test_a_terminated_worker_finishes_or_drops_its_block(
    tmp_path: Path, neurotile: Callable[..., Any], code: signal.Signals
) -> None:
    import psutil
    from harness import broken_promises

    root = tmp_path / "run"
    argv = ["demo", "--quiet", "--out", str(root), "--size", "16,96,96", "--block", "8,24,24"]
    run = subprocess.Popen([NEUROTILE, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asked = 0
    while run.poll() is None and asked < 3:
        for process in psutil.Process(run.pid).children(recursive=True):
            try:
                words = process.cmdline()
            except psutil.Error:  # it has ended, or is a zombie until its crew is filled up
                continue
            if "worker" in words and asked < 3:
                os.kill(process.pid, code)
                asked += 1
        time.sleep(0.3)
    assert run.wait(timeout=300) == 0
    assert broken_promises(root) == []
