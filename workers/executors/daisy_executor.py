"""daisy 2 hands out the blocks; every worker is a command of its own.

What daisy is trusted with: the queue, the workers' lives, timeouts, and handing a dead worker's block out again. What
it is not: its own tracking (it knows only the layout, is not synced and has no lock), so it is switched off and the
blocks that need no work are masked out beforehand. Facts this file is built on: `host` must be given or the server
listens on every interface; the cap on worker starts counts every start, so it must allow for each block's deaths.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from workers.block import Index
from workers.executors.job import Job
from workers.launch import run_worker

LOOPBACK = "127.0.0.1"


class DaisyExecutor:
    """Runs a job's command in as many worker processes as the job asks for."""

    def run(self, job: Job, tick: Callable[[], None]) -> None:
        """Run a job."""
        import daisy.v2 as daisy
        from daisy.logging import set_log_basedir
        from funlib.geometry import Roi

        job.logs.mkdir(parents=True, exist_ok=True)
        set_log_basedir(str(job.logs / "daisy"))
        workers = min(job.workers, len(job.ready))
        unit = Roi((0, 0, 0), (1, 1, 1))
        task = daisy.Task(
            job.task.replace("/", "."),
            Roi((0, 0, 0), job.grid),
            unit,
            unit,
            process_function=_spawner(job),
            read_write_conflict=False,
            fit="overhang",
            max_workers=workers,
            max_retries=job.deaths_allowed,
            timeout=job.timeout_s,
            tracking_path=False,
            max_worker_restarts=20 + (job.deaths_allowed + 1) * len(job.ready),
            skip_mask=_skip_mask(job),
        )
        daisy.run_blockwise(
            task, progress=_Ticker(tick), block_tracking=False, return_states=True, host=LOOPBACK, summary=False
        )


def _skip_mask(job: Job) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.ones(job.grid, np.uint8)
    z, y, x = np.array(list(job.ready)).T
    mask[z, y, x] = 0
    return mask


def _spawner(job: Job) -> Callable[[], None]:
    argv, environment, logs = job.argv, dict(job.environment), job.logs

    def spawn() -> None:
        run_worker(argv, environment, logs / f"{os.getpid()}.log")

    return spawn


class _Ticker:
    """daisy's progress observer, reduced to a pulse."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def on_start(self, *_: object, **__: object) -> None:
        self._tick()

    def on_progress(self, *_: object, **__: object) -> None:
        self._tick()

    def on_finish(self, *_: object, **__: object) -> None:
        self._tick()


class DaisyClaim:
    """A block in the hands of a worker, from daisy's side."""

    def __init__(self, block: Any, stack: ExitStack) -> None:
        self._stack = stack
        z, y, x = block.write_roi.offset
        self.index: Index = (int(z), int(y), int(x))

    def settle(self, *, done: bool) -> None:
        """Hand the block back, as finished either way: the loop has tried again already, daisy must not."""
        self._stack.close()


def claims_from_daisy() -> Callable[[], DaisyClaim | None]:
    """Connect to the scheduler that started this worker; returns what hands out its blocks."""
    import daisy.v2 as daisy

    client = daisy.Client()

    def claim_next() -> DaisyClaim | None:
        stack = ExitStack()
        block = stack.enter_context(client.acquire_block())
        if block is None:
            stack.close()
            return None
        return DaisyClaim(block, stack)

    return claim_next
