"""daisy 2 hands out the blocks; every worker is a process that outlives the task, or a command of its own.

What daisy is trusted with: the queue, the workers' lives, timeouts, and handing a dead worker's block out again. What
it is not: its own tracking (it knows only the layout, is not synced and has no lock), so it is switched off and the
blocks that need no work are masked out beforehand. Facts this file is built on: `host` must be given or the server
listens on every interface; the cap on worker starts counts every start, so it must allow for each block's deaths.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from workers.block import Index
from workers.errors import Poison
from workers.executors.job import Job
from workers.executors.spawner import FIRST_CLAIM, Spawner, false_starts, hopeless

LOOPBACK = "127.0.0.1"
BLOCKS_IN_HAND = 3  # with reading ahead: one is read, one computed, one written
PULSE_S = 0.5


class DaisyExecutor:
    """Runs a job in as many worker processes as it asks for."""

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
            process_function=Spawner(tuple(job.tasks), job.argv, dict(job.environment), job.logs, job.crew),
            read_write_conflict=False,
            fit="overhang",
            max_workers=workers,
            max_retries=job.deaths_allowed,
            timeout=BLOCKS_IN_HAND * job.timeout_s,  # a block's clock runs while it waits for those before it
            tracking_path=False,
            max_worker_restarts=20 + (job.deaths_allowed + 1) * len(job.ready),
            skip_mask=_skip_mask(job),
        )
        try:
            with _Pulse(tick, job.logs):
                daisy.run_blockwise(
                    task, progress=False, block_tracking=False, return_states=True, host=LOOPBACK, summary=False
                )
        except (KeyboardInterrupt, RuntimeError) as ended:
            if hopeless(job.logs):
                raise _cannot_start(job) from None
            if isinstance(ended, KeyboardInterrupt):
                raise
            # daisy gave the task up because too many workers died: the journals say which blocks are left


def _skip_mask(job: Job) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.ones(job.grid, np.uint8)
    z, y, x = np.array(list(job.ready)).T
    mask[z, y, x] = 0
    return mask


class _Pulse:
    """Calls `tick` twice a second from a thread, and stops daisy when its workers cannot even start.

    daisy's own observer is called only when a block moves, which a stuck task never does.
    """

    def __init__(self, tick: Callable[[], None], logs: Path) -> None:
        self._tick = tick
        self._logs = logs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(PULSE_S):
            if hopeless(self._logs):
                os.kill(os.getpid(), signal.SIGINT)
                return
            self._tick()


def _cannot_start(job: Job) -> Poison:
    log = false_starts(job.logs)[0]
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
    return Poison(
        f"the workers of {job.task} end before they take a block: {last[0]}",
        where=str(log),
        way_out=f"mend what it says, then run again; to try by hand: {' '.join(job.argv)}",
    )


class DaisyClaim:
    """A block in the hands of a worker."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._settled = threading.Event()

    def settle(self, *, done: bool) -> None:
        """Hand the block back, as finished either way: the loop has tried again already, daisy must not."""
        self._settled.set()

    def wait(self) -> None:
        """Until the block is settled."""
        self._settled.wait()


def claims_from_daisy(depth: int) -> Callable[[], DaisyClaim | None]:
    """Connect to the scheduler that started this worker; returns what hands out its blocks, `depth` at a time.

    A daisy client must stay in its thread and can wait for a block as long as others hold theirs: so every block in
    hand has a thread with a client of its own, which takes it, waits until it is settled, and gives it back.
    """
    claims: SimpleQueue[DaisyClaim | BaseException | None] = SimpleQueue()
    ended = 0
    for number in range(depth):
        threading.Thread(target=_claim_until_none, args=(claims,), name=f"claim-{number}", daemon=True).start()

    def claim_next() -> DaisyClaim | None:
        nonlocal ended
        while ended < depth:
            claim = claims.get()
            if isinstance(claim, BaseException):
                raise claim
            if claim is not None:
                _mark_first_claim()
                return claim
            ended += 1
        return None

    return claim_next


def _claim_until_none(claims: SimpleQueue[DaisyClaim | BaseException | None]) -> None:
    import daisy.v2 as daisy

    try:
        client = daisy.Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                z, y, x = block.write_roi.offset
                claim = DaisyClaim((int(z), int(y), int(x)))
                claims.put(claim)
                claim.wait()
        claims.put(None)
    except BaseException as error:
        claims.put(error)


def _mark_first_claim() -> None:
    mark = os.environ.pop(FIRST_CLAIM, None)
    if mark is not None:
        Path(mark).touch()
