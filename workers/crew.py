"""The workers of a pool that outlive a task: started when first needed, replaced when they have died.

They are children of the scheduler and end with it. An executor that finds none of them free starts a worker of its own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from workers.launch import open_log, parent
from workers.seat import SEAT, listen


class Crew:
    """Worker processes that differ in nothing but their name."""

    def __init__(self, argv: tuple[str, ...], environment: Mapping[str, str], logs: Path) -> None:
        self._argv = argv
        self._environment = dict(environment)
        self._logs = logs
        self._seats: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def fill(self, seats: int) -> tuple[str, ...]:
        """At least this many living workers; their names. They may still be starting.

        Must be called from a thread that lives as long as the crew: its end would be theirs (prctl).
        """
        for name in [name for name, process in self._seats.items() if process.poll() is not None]:
            del self._seats[name]
        while len(self._seats) < seats:
            name = f"neurotile-{secrets.token_hex(16)}"
            self._seats[name] = self._start(name)
        return tuple(self._seats)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        place = listen(name)  # here, so that customers can wait for a worker that is still importing
        handle = place.fileno()
        self._started += 1
        with place, open_log(self._logs / f"{self._started}.log") as output:
            environment = {**os.environ, **self._environment, **parent(), SEAT: str(handle)}
            return subprocess.Popen(
                self._argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(handle,),
            )

    def dismiss(self) -> None:
        """End them all, at whatever moment: any is safe."""
        for process in self._seats.values():
            process.kill()
        for process in self._seats.values():
            process.wait()
        self._seats.clear()
