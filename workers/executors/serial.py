"""The executor of debuggers and tests: one block after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workers.block import Index
from workers.executors.job import Job


@dataclass
class _SerialClaim:
    index: Index
    tick: Callable[[], None]

    def settle(self, *, done: bool) -> None:
        self.tick()


class SerialExecutor:
    """Runs a job's callable over its blocks."""

    def run(self, job: Job, tick: Callable[[], None]) -> None:
        """Run a job."""
        blocks = iter(job.ready)

        def claim_next() -> _SerialClaim | None:
            index = next(blocks, None)
            return None if index is None else _SerialClaim(index, tick)

        job.in_process(claim_next)
