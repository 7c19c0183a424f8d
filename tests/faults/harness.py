"""Kills a run again and again, checks the promise after every death, and lets it go on.

Promise: a receipt exists only for bytes that are durable and match its digest. After every death, with no process of
the run left, every receipt is compared with what is stored.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline.errors import ChunkError
from pipeline.rundir import RunFolder
from pipeline.work import load_plan
from workers.block import BlockRef
from workers.loop import combined_digest
from workers.receipts import Receipts

SERIAL = ("--executor", "serial")  # where starting workers, a second for each of some 20 tasks, is not the point
NEUROTILE = str(Path(sys.executable).with_name("neurotile"))


@dataclass
class Campaign:
    """What a series of kills did."""

    workers_killed: int = 0
    schedulers_killed: int = 0
    violations: list[str] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def kills(self) -> int:
        return self.workers_killed + self.schedulers_killed


def broken_promises(root: Path) -> list[str]:
    """Blocks with a receipt whose stored bytes are not those of the receipt."""
    folder = RunFolder(root)
    receipts = Receipts(folder.journals)
    plan = load_plan(folder, receipts)
    broken = []
    for task in plan.tasks:
        for index, receipt in receipts.held(task.name):
            if receipt.state != "done":
                continue
            try:
                kept = combined_digest(task.stage.reread(task.sweep.name, index)) == receipt.digest
            except ChunkError:
                kept = False
            if not kept:
                broken.append(str(BlockRef(task.name, index)))
    return broken


def kill_again_and_again(
    root: Path,
    argv: list[str],
    *,
    kills: int,
    seed: int,
    environment: dict[str, str] | None = None,
    only_busy: bool = True,
) -> Campaign:
    """Run a command, killing workers and schedulers in mid-block until enough have died or a run ends by itself.

    Without `only_busy`, workers die between blocks as well.
    """
    choose = random.Random(seed)
    campaign = Campaign()
    while campaign.kills < kills and campaign.exit_code is None:
        env = {**os.environ, **(environment or {})}
        scheduler = subprocess.Popen([NEUROTILE, *argv], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while campaign.kills < kills and scheduler.poll() is None:
            time.sleep(choose.uniform(0.02, 0.4))
            victims = _busy_workers(root) if only_busy else _workers(root)
            _kill_one(victims, scheduler, choose, campaign)
        if scheduler.poll() is None:  # enough have died: the last death is a scheduler's
            scheduler.kill()
            campaign.schedulers_killed += 1
        code = scheduler.wait()
        campaign.exit_code = None if code == -signal.SIGKILL else code
        _wait_for_workers(root)
        campaign.violations += broken_promises(root)
    return campaign


def _kill_one(
    busy: list[psutil.Process], scheduler: subprocess.Popen[bytes], choose: random.Random, campaign: Campaign
) -> None:
    """Kill one of these workers or, one time in four, the scheduler while there are any."""
    if not busy or scheduler.poll() is not None:
        return
    if choose.random() < 1 / 4:
        scheduler.send_signal(signal.SIGKILL)
        scheduler.wait()
        campaign.schedulers_killed += 1
        return
    victim = choose.choice(busy)
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
    campaign.workers_killed += 1


def _busy_workers(root: Path) -> list[psutil.Process]:
    folder = RunFolder(root)
    if not folder.journals.exists():
        return []
    busy = []
    for process in _workers(root):
        started = {holder.rpartition(":")[2] for holder in Receipts(folder.journals).started.values()}
        if str(process.pid) in started:
            busy.append(process)
    return busy


def _workers(root: Path) -> list[psutil.Process]:
    """The workers of this run: processes that this test has caused to be started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "worker" in words and str(root.absolute()) in words:
            found.append(process)
    return found


def _wait_for_workers(root: Path) -> None:
    """A dead scheduler's workers leave by themselves."""
    deadline = time.monotonic() + 30
    while _workers(root):
        if time.monotonic() > deadline:
            raise TimeoutError("workers outlived their scheduler by 30 s")
        time.sleep(0.05)
