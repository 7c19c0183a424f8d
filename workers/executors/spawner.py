"""What daisy starts for every worker: a process that finds a worker of the crew, or starts one, and waits for its end.

It runs in a process of daisy's own, once per worker and task, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.launch import run_worker
from workers.seat import Order, engage

FROM_DAISY = "NEUROTILE_BLOCKS_FROM_DAISY"
FIRST_CLAIM = "NEUROTILE_FIRST_CLAIM"  # the worker touches this file when it gets its first block
DAISY_CONTEXT = "DAISY_CONTEXT"  # where daisy tells a worker its address
ENOUGH_FALSE_STARTS = 4
_HOLD_S = 3.0
_FALSE_STARTS = "false-starts"


@dataclass(frozen=True)
class Spawner:
    """Everything a worker of one job needs to be told."""

    tasks: tuple[str, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    logs: Path
    crew: tuple[str, ...]

    def __call__(self) -> None:
        """Work until nothing is left to hand out; an error for daisy to count if the worker died."""
        if hopeless(self.logs):
            time.sleep(_HOLD_S)  # daisy restarts workers so eagerly that it would not notice being stopped
        claimed = self.logs / f"{os.getpid()}.claimed"
        environment = {**self.environment, FROM_DAISY: "1", FIRST_CLAIM: str(claimed)}
        log = self.logs / f"{os.getpid()}.log"
        try:
            if not self._by_crew(environment, log):
                run_worker(self.argv, environment, log)
        except RuntimeError:
            if not claimed.exists():
                with (self.logs / _FALSE_STARTS).open("a") as file:
                    file.write(f"{log.name}\n")
            raise
        finally:
            if claimed.exists():
                (self.logs / _FALSE_STARTS).unlink(missing_ok=True)

    def _by_crew(self, environment: Mapping[str, str], log: Path) -> bool:
        """Whether a worker of the crew was there to do it."""
        seat = engage(self.crew)
        if seat is None:
            return False
        try:
            seat.send(Order(self.tasks, {**environment, DAISY_CONTEXT: os.environ[DAISY_CONTEXT]}, str(log)))
            if not seat.wait():
                raise RuntimeError(f"a worker has ended; its output: {log}")
        finally:
            seat.leave()
        return True


def hopeless(logs: Path) -> bool:
    """Whether so many workers have ended badly before they took a block that no further one will do better."""
    return len(false_starts(logs)) >= ENOUGH_FALSE_STARTS


def false_starts(logs: Path) -> list[Path]:
    """The logs of the workers that ended badly before they took a block, since one has taken one."""
    try:
        return [logs / name for name in (logs / _FALSE_STARTS).read_text().split()]
    except FileNotFoundError:
        return []
