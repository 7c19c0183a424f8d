"""`neurotile status RUN`: how a run stands."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from pipeline.commands.terminal import print_json, progress_table
from pipeline.errors import ConfigError
from pipeline.progress import Status, TaskStatus
from pipeline.rundir import RunFolder
from workers.fence import Fence


def status(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    watch: Annotated[bool, Parameter(help="stay, and follow it until it ends")] = False,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Show blocks by state, rate, time left and failures. Never disturbs the run."""
    folder = RunFolder(run)
    folder.load()
    if json:
        print_json(read(folder))
        return 0
    console = Console()
    if watch:
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                found = read(folder)
                live.update(progress_table(as_status(found)))
                if found["state"] != "running":
                    break
                time.sleep(0.5)
    found = read(folder)
    if not watch:
        console.print(progress_table(as_status(found)))
    for failure in found["failures"]:
        sys.stdout.write(f"failed: {failure['task']} {failure['block']}: {failure['error']}: {failure['what']}\n")
        sys.stdout.write(f"  reproduce: {failure['command']}\n")
    sys.stdout.write(f"{found['state']}, last written {found['updated']}; {folder.root / 'status.html'}\n")
    return 0


def read(folder: RunFolder) -> dict[str, Any]:
    """status.json; a run that says it is running but holds no lock was killed."""
    try:
        found: dict[str, Any] = jsonlib.loads(folder.status.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            "this run has not started its first task", where=str(folder.root), way_out="wait, or run it"
        ) from None
    if found["state"] == "running" and not Fence(folder.fence).held():
        found["state"] = "stopped"
    return found


def as_status(found: dict[str, Any]) -> Status:
    """The parsed status."""
    tasks = [TaskStatus(**task) for task in found["tasks"]]
    return Status(**{**found, "tasks": tasks})
