"""One run at a time; late workers find their epoch gone; a dead scheduler is noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.errors import Fenced, RunLocked
from workers.fence import Fence


def test_the_second_run_is_turned_away_at_once(tmp_path: Path) -> None:
    first = Fence(tmp_path)
    assert first.acquire() == 1
    began = time.monotonic()
    with pytest.raises(RunLocked, match='"epoch": 1'):
        Fence(tmp_path).acquire()
    assert time.monotonic() - began < 1
    first.release()
    assert Fence(tmp_path).acquire() == 2


def test_a_worker_left_over_is_waited_for(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    epoch = fence.acquire()
    worker = Fence(tmp_path)
    worker.join(epoch)
    assert worker.scheduler_alive()
    fence.release()
    assert not worker.scheduler_alive()
    with pytest.raises(RunLocked, match="have not left"):
        Fence(tmp_path).acquire(patience_s=0.2)
    worker.release()
    assert Fence(tmp_path).acquire(patience_s=0.2) == 2


def test_a_late_worker_is_fenced(tmp_path: Path) -> None:
    Fence(tmp_path).acquire()
    with pytest.raises(Fenced, match="replaced run 0"):
        Fence(tmp_path).join(0)


def test_asking_does_not_take(tmp_path: Path) -> None:
    bystander = Fence(tmp_path)
    assert not bystander.held()
    fence = Fence(tmp_path)
    fence.acquire()
    for _ in range(3):
        assert bystander.held()
    fence.release()
    assert not bystander.held()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from workers.fence import Fence;"
        "Fence(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout as output:
        assert output.readline() == "held\n"
    with pytest.raises(RunLocked, match=str(holder.pid)):
        Fence(tmp_path).acquire()
    holder.kill()
    holder.wait()
    assert Fence(tmp_path).acquire() == 2
