"""One worker for a chain of small tasks: no scheduler, no sockets to daisy; the next one takes over if it dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from os import environ

from workers.executors.job import Job
from workers.launch import open_log, parent
from workers.seat import Order, engage

_LOOK_S = 0.05


class SingleExecutor:
    """Gives a job to one worker, without blocks: it finds for itself what its tasks need."""

    def run(self, job: Job, tick: Callable[[], None]) -> None:
        """Run a job; what is undone after the last allowed death stays undone."""
        for _ in range(job.deaths_allowed + 1):
            deadline = time.monotonic() + job.timeout_s
            done = _by_crew(job, tick, deadline)
            if _by_new_worker(job, tick, deadline) if done is None else done:
                return


def _by_crew(job: Job, tick: Callable[[], None], deadline: float) -> bool | None:
    """Whether a worker of the crew has done it; None if there is none."""
    seat = engage(job.crew)
    if seat is None:
        return None
    try:
        seat.send(Order(job.tasks, job.environment, str(job.logs / "single.log")))
        while time.monotonic() < deadline:
            tick()
            done = seat.wait(_LOOK_S)
            if done is not None:
                return done
        return False
    finally:
        seat.leave()


def _by_new_worker(job: Job, tick: Callable[[], None], deadline: float) -> bool:
    with open_log(job.logs / "single.log") as output:
        process = subprocess.Popen(
            job.argv,
            env={**environ, **job.environment, **parent()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while time.monotonic() < deadline:
            tick()
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_LOOK_S) == 0
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
