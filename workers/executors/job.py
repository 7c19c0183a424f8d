"""What an executor is given: blocks of one task, and two ways to get them done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workers.block import Index
from workers.loop import Claim


@dataclass(frozen=True)
class Job:
    """The ready blocks of one task."""

    task: str
    grid: Index  # number of blocks along z, y, x
    ready: Sequence[Index]
    in_process: Callable[[Callable[[], Claim | None]], None]  # for executors that stay in this process
    argv: tuple[str, ...]  # for executors that start workers
    environment: Mapping[str, str]
    logs: Path
    workers: int
    timeout_s: int
    deaths_allowed: int  # how often a block may take its worker with it
    crew: tuple[str, ...] = ()  # workers that are there already (see `workers.crew`); a dead one is not replaced here
    tasks: Sequence[str] = ()  # what they are told to do: this task, and for a chain those after it


class Executor(Protocol):
    """Hands out the blocks of a job and returns when nothing is left to hand out."""

    def run(self, job: Job, tick: Callable[[], None]) -> None:
        """Run a job, calling `tick` now and then; what became of the blocks stands in the journals."""
