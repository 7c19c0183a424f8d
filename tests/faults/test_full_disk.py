"""A full disk fails blocks cleanly; with space again, the run goes on to the same bytes. Needs a small file system."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import SERIAL, broken_promises

SIZE = ("--size", "16,96,96", "--block", "8,48,48")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_full_then_free(
    small_demo: tuple[Path, dict[str, Any]],
    small_disk: Path,
    neurotile: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    calm, _ = small_demo
    root = small_disk / "run"
    config = small_disk / "run.toml"
    recorded = json.loads((calm / "run.json").read_text())["config"]
    synthetic = recorded["input"]["synthetic"]
    config.write_text(
        f"[input.synthetic]\nseed = {synthetic['seed']}\nsize = {synthetic['size']}\n"
        f"[blocks]\nshape = {recorded['blocks']['shape']}\nchunk = {recorded['blocks']['chunk']}\n"
        "[limits]\ndisk_gb = 100\n"
    )
    full = neurotile("run", config, "--out", root, "--json")
    assert full.returncode in (3, 75), full.stderr  # 75: not even the failure could be written down
    if full.returncode == 3:
        failures = json.loads(full.stdout)["failures"]
        assert failures
        assert all(failure["retryable"] for failure in failures)
    else:
        assert "No space left" in full.stderr
        assert "way out: free " in full.stderr  # whichever write it was: a journal, an array, a table
    assert broken_promises(root) == []
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = neurotile("run", config, "--out", root, "--json", *SERIAL)
    assert again.returncode == 0, again.stderr
    assert tree_hash(root / "data") == tree_hash(calm / "data")
