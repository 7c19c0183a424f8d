"""A thread beside the loop that ends the worker when it must not go on.

It leaves at once, without ceremony, because any moment is safe: what has no receipt is not done.

* The scheduler is gone: nobody holds the run any more.
* Memory: the process has grown beyond its limit; the blocks in hand are recorded as failed, with the number.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

EXIT_SCHEDULER_GONE = 75
EXIT_OUT_OF_MEMORY = 137


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def reset_peak() -> None:
    """Forget the highest memory so far: a worker does several tasks, and each has a peak of its own."""
    with suppress(OSError):  # not allowed in some containers: then peaks are the process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The highest memory of this process since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def watch(
    *,
    scheduler_alive: Callable[[], bool],
    limit_bytes: int,
    on_memory: Callable[[int], None],
    every_s: float = 0.5,
) -> None:
    """Start watching, as a daemon thread."""

    def look() -> None:
        while True:
            time.sleep(every_s)
            if not scheduler_alive():
                os._exit(EXIT_SCHEDULER_GONE)
            used = resident_bytes()
            if used > limit_bytes:
                on_memory(used)
                os._exit(EXIT_OUT_OF_MEMORY)

    threading.Thread(target=look, name="watchdog", daemon=True).start()
