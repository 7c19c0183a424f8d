"""Fixtures for all tests: the command line, a small finished run, and a watch on listening sockets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

NEUROTILE = str(Path(sys.executable).with_name("neurotile"))
SMALL = ("--size", "16,96,96", "--block", "8,48,48")  # 2 x 2 x 2 blocks, seconds
LOOPBACK = {"127.0.0.1", "::1"}

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

Result = subprocess.CompletedProcess[str]


def neurotile_command(*words: str | Path, timeout_s: float = 600, **environment: str) -> Result:
    """Run the installed command as a user does."""
    return subprocess.run(
        [NEUROTILE, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def neurotile() -> Callable[..., Result]:
    """The command line: `neurotile("run", path)`."""
    return neurotile_command


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An undisturbed small run and what it printed; treat it as read-only, or take `fresh_demo`."""
    out = tmp_path_factory.mktemp("small") / "run"
    result = neurotile_command("demo", "--json", "--out", out, *SMALL)
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return out, told


@pytest.fixture
def fresh_demo(small_demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the small run that a test may ruin."""
    out = tmp_path / "run"
    shutil.copytree(small_demo[0], out, symlinks=True)
    return out, small_demo[1]


@pytest.fixture(scope="session")
def tree_hash() -> Callable[[Path], dict[str, str]]:
    """Hashes of all files below a folder, by relative path."""

    def of(folder: Path) -> dict[str, str]:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    return of


@pytest.fixture(scope="session", autouse=True)
def _nothing_listens_beyond_loopback() -> Iterator[None]:
    """Look at the listening sockets of this process and its children all the time."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        me = psutil.Process()
        while not over.is_set():
            for process in [me, *me.children(recursive=True)]:
                try:
                    for connection in process.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in LOOPBACK:
                            found.add(f"{process.pid} {process.cmdline()} on {connection.laddr}")
                except psutil.Error:
                    continue
            time.sleep(0.25)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()
    assert not found, found
