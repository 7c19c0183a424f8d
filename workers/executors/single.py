"""One worker process for a chain of small tasks: no scheduler, no sockets, restarted if it dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from os import environ

from workers.executors.job import Job
from workers.launch import parent


class SingleExecutor:
    """Starts a job's command without blocks: the worker finds for itself what its tasks need."""

    def run(self, job: Job, tick: Callable[[], None]) -> None:
        """Run a job; what is undone after the last allowed death stays undone."""
        job.logs.mkdir(parents=True, exist_ok=True)
        for _ in range(job.deaths_allowed + 1):
            with (job.logs / "single.log").open("ab") as output:
                process = subprocess.Popen(
                    job.argv,
                    env={**environ, **job.environment, **parent()},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            try:
                if self._wait(process, tick, job.timeout_s) == 0:
                    return
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _wait(self, process: subprocess.Popen[bytes], tick: Callable[[], None], timeout_s: int) -> int:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            tick()
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.05)
        return -1
