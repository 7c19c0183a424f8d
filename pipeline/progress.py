"""How a run stands: `status.json` and `status.html`, rewritten whole, and observers in a terminal.

Schema of status.json: `run`, `state` (running | done | failed | stopped), `epoch`, `started`, `updated` (UTC, for
people only), `seconds`, `tasks` (in order; see TaskStatus), `failures` (see
FailureStatus).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pipeline.geometry import Index
from pipeline.rundir import RunFolder
from pipeline.work import Survey, reproduce_command
from workers.block import BlockRef
from workers.files import write_atomically
from workers.receipts import Receipts

MAP_LIMIT = 200_000  # tasks with more blocks are shown by counts alone
LETTERS = {"pending": ".", "running": "r", "done": "d", "masked": "m", "failed": "f", "waiting": "w"}


@dataclass
class TaskStatus:
    """One task; `states` has one letter a block in z, y, x order (see LETTERS)."""

    task: str
    pool: str
    grid: Index
    total: int
    done: int = 0
    masked: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0
    kept: int = 0  # of the done ones: current before this run started
    seconds: float = 0.0
    blocks_per_s: float | None = None
    seconds_left: float | None = None
    states: str = ""


@dataclass
class FailureStatus:
    """One failed block."""

    task: str
    block: str
    error: str
    what: str
    retryable: bool
    bundle: str
    command: str


@dataclass
class Status:
    """A whole run."""

    run: str
    epoch: int
    state: str = "running"
    started: str = ""
    updated: str = ""
    seconds: float = 0.0
    tasks: list[TaskStatus] = field(default_factory=list)
    failures: list[FailureStatus] = field(default_factory=list)


Observer = Callable[[Status, TaskStatus | None], None]
Page = Callable[[Status], str]


def now() -> str:
    """The time, for people: nothing is ever ordered by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Tracker:
    """Keeps the status of a run, writes it, and tells the observers."""

    def __init__(
        self, folder: RunFolder, status: Status, observers: list[Observer], page: Page, *, every_s: float = 1.0
    ) -> None:
        self.folder = folder
        self.status = status
        self._observers = observers
        self._page = page
        self._every_s = every_s
        self._began = time.monotonic()
        self._task_began = self._began
        self._last = 0.0
        self.status.started = now()

    # ---- tasks -------------------------------------------------------------------------------------------------
    def begin(self, found: Survey) -> None:
        """A task starts."""
        task = self._entry(found)
        self._task_began = time.monotonic()
        task.kept = found.done
        self._show(found, task, {})
        self.event("task-start", task=task.task, **found.counts())
        self.publish(task, force=True)

    def beat(self, found: Survey, receipts: Receipts, epoch: int) -> None:
        """A task goes on: count what the journals have gained."""
        if time.monotonic() - self._last < max(self._every_s, len(found.ready) / 20_000):
            return  # counting costs time of its own: large tasks are counted less often
        receipts.refresh()
        task = self._entry(found)
        fresh: dict[Index, str] = {}
        for index in found.ready:
            ref = BlockRef(found.task.name, index)
            receipt, failure = receipts.get(ref), receipts.failure(ref)
            if receipt is not None and receipt.epoch == epoch:
                fresh[index] = "masked" if receipt.state == "masked" else "done"
            elif failure is not None and failure.epoch == epoch:
                fresh[index] = "failed"
            elif ref in receipts.started:
                fresh[index] = "running"
        self._show(found, task, fresh)
        self.publish(task)

    def end(self, found: Survey) -> None:
        """A task is over: exact counts."""
        task = self._entry(found)
        self._show(found, task, {})
        task.seconds = round(time.monotonic() - self._task_began, 3)
        for index, failure in sorted(found.failed.items()):
            ref = BlockRef(found.task.name, index)
            self.status.failures.append(
                FailureStatus(
                    ref.task,
                    ref.label,
                    failure.error,
                    failure.what,
                    failure.retryable,
                    failure.bundle,
                    reproduce_command(self.folder, ref),
                )
            )
        self.event("task-end", task=task.task, seconds=task.seconds, **found.counts())
        self.publish(task, force=True)

    def finish(self, state: str) -> None:
        """The run is over."""
        self.status.state = state
        self.event("run-end", state=state, seconds=round(time.monotonic() - self._began, 3))
        self.publish(None, force=True)

    # ---- out ---------------------------------------------------------------------------------------------------
    def event(self, kind: str, **details: object) -> None:
        """Append one line to events.jsonl."""
        line = json.dumps({"time": now(), "epoch": self.status.epoch, "event": kind, **details})
        with suppress(OSError), self.folder.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def publish(self, task: TaskStatus | None, *, force: bool = False) -> None:
        """Rewrite the status files and tell the observers."""
        if not force and time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        self.status.updated = now()
        self.status.seconds = round(self._last - self._began, 3)
        with suppress(OSError):  # a full disk must not end a run over its own page
            write_atomically(self.folder.status, json.dumps(asdict(self.status)).encode())
            write_atomically(self.folder.root / "status.html", self._page(self.status).encode())
        for observer in self._observers:
            observer(self.status, task)

    # ---- counting ----------------------------------------------------------------------------------------------
    def _entry(self, found: Survey) -> TaskStatus:
        return next(t for t in self.status.tasks if t.task == found.task.name)

    def _show(self, found: Survey, task: TaskStatus, fresh: dict[Index, str]) -> None:
        tally = list(fresh.values())
        counts = found.counts()
        task.done = counts["done"] + tally.count("done")
        task.masked = counts["masked"] + tally.count("masked")
        task.failed = counts["failed"] + tally.count("failed")
        task.waiting = counts["waiting"]
        task.running = tally.count("running")
        task.seconds = round(time.monotonic() - self._task_began, 3)
        finished = task.done - task.kept
        task.blocks_per_s = round(finished / task.seconds, 3) if finished > 0 and task.seconds > 0 else None
        left = task.total - task.done - task.masked - task.failed - task.waiting
        task.seconds_left = round(left / task.blocks_per_s, 1) if task.blocks_per_s else None
        task.states = _letters(found, fresh) if task.total <= MAP_LIMIT else ""


def _letters(found: Survey, fresh: dict[Index, str]) -> str:
    waiting = set(found.waiting)

    def letter(index: Index) -> str:
        if index in fresh:
            return LETTERS[fresh[index]]
        if index in found.current:
            return LETTERS["masked" if index in found.masked else "done"]
        if index in found.failed:
            return LETTERS["failed"]
        return LETTERS["waiting" if index in waiting else "pending"]

    return "".join(letter(index) for index in found.task.sweep.grid)
