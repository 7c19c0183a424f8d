"""A worker that has lost its scheduler, or has grown beyond its limit, leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.watchdog import EXIT_OUT_OF_MEMORY, EXIT_SCHEDULER_GONE

CODE = """
import sys, time
from pathlib import Path
from workers.watchdog import resident_bytes, watch

alive, limit = sys.argv[1] == "alive", resident_bytes() + int(sys.argv[2])
watch(
    scheduler_alive=lambda: alive,
    limit_bytes=limit,
    on_memory=lambda used: Path(sys.argv[3]).write_text(str(used - limit)),
    every_s=0.05,
)
hoard = bytearray(64 << 20)
hoard[:: 4096] = b"x" * len(hoard[:: 4096])
time.sleep(1)
"""


@pytest.mark.parametrize(
    ("scheduler", "spare", "code"),
    [("alive", 256 << 20, 0), ("gone", 256 << 20, EXIT_SCHEDULER_GONE), ("alive", 16 << 20, EXIT_OUT_OF_MEMORY)],
)
def test_what_ends_a_worker(tmp_path: Path, scheduler: str, spare: int, code: int) -> None:
    mark = tmp_path / "used"
    done = subprocess.run([sys.executable, "-c", CODE, scheduler, str(spare), str(mark)], check=False, timeout=60)
    assert done.returncode == code
    assert mark.exists() == (code == EXIT_OUT_OF_MEMORY)
    if mark.exists():
        assert int(mark.read_text()) > 0
