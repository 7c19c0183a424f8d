"""What a person sees while a run goes on: a live table on a terminal, plain lines otherwise. All on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.pages import duration
from pipeline.progress import Observer, Status, TaskStatus

PLAIN_EVERY_S = 10.0
BAR_CELLS = 24


def print_json(content: dict[str, Any]) -> None:
    """One object on stdout."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[list[Observer]]:
    """Observers for a run: none if quiet."""
    console = Console(stderr=True)
    if quiet:
        yield []
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            yield [lambda status, _: live.update(progress_table(status))]
    else:
        yield [PlainLines()]


class PlainLines:
    """One line when a task starts to move, every ten seconds, and when it ends."""

    def __init__(self) -> None:
        self._last = 0.0
        self._task = ""

    def __call__(self, status: Status, task: TaskStatus | None) -> None:
        """Print if it is time."""
        if task is None:
            return
        settled = task.done + task.masked + task.failed + task.waiting >= task.total
        if not settled and task.task == self._task and time.monotonic() - self._last < PLAIN_EVERY_S:
            return
        if settled and task.kept == task.total:
            return
        self._last, self._task = time.monotonic(), task.task
        sys.stderr.write(plain_line(task) + "\n")
        sys.stderr.flush()


def plain_line(task: TaskStatus) -> str:
    """A task in one line."""
    parts = [f"{task.task}: {task.done}/{task.total} blocks"]
    for name in ("masked", "failed", "waiting"):
        if getattr(task, name):
            parts.append(f"{getattr(task, name)} {name}")
    if task.blocks_per_s:
        parts.append(f"{task.blocks_per_s:.2f} blocks/s")
    if task.seconds_left:
        parts.append(f"{duration(task.seconds_left)} left")
    parts.append(duration(task.seconds))
    return ", ".join(parts)


def progress_table(status: Status) -> Table:
    """All tasks, a bar each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("task", "left"), ("", "left"), ("blocks", "right"), ("rate", "right"), ("left", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for task in status.tasks:
        rate = f"{task.blocks_per_s:.2f}/s" if task.blocks_per_s else ""
        left = duration(task.seconds_left) if task.seconds_left and task.running else ""
        left = left or (duration(task.seconds) if task.done == task.total and task.seconds else "")
        table.add_row(task.task, _bar(task), f"{task.done + task.masked}/{task.total}", rate, left)
    return table


def _bar(task: TaskStatus) -> str:
    done = (task.done + task.masked) * BAR_CELLS // max(task.total, 1)
    failed = -(-task.failed * BAR_CELLS // max(task.total, 1))
    failed = min(failed, BAR_CELLS - done)
    return f"[green]{'━' * done}[/][red]{'━' * failed}[/][dim]{'━' * (BAR_CELLS - done - failed)}[/]"
