"""How a worker process is started: argv and environment, as data.

A worker is the command `neurotile worker RUN STAGE`. It is found beside the running interpreter, so that a virtual
environment need not be activated, and never through the current directory (PYTHONSAFEPATH).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PARENT = "NEUROTILE_PARENT"


def worker_argv(run: Path, tasks: Sequence[str]) -> tuple[str, ...]:
    """The command of a worker for one task, for a chain of small ones, or for whatever it will be told to do."""
    return (str(Path(sys.executable).with_name("neurotile")), "worker", str(run), *tasks)


def worker_environment(*, threads: int, epoch: int) -> dict[str, str]:
    """Explicit thread counts, no code from the current directory, and the epoch the worker belongs to."""
    count = str(threads)
    return {
        "PYTHONSAFEPATH": "1",
        "NEUROTILE_EPOCH": str(epoch),
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "NUMBA_NUM_THREADS": count,
        "BLOSC_NTHREADS": "1",
    }


def run_worker(argv: tuple[str, ...], environment: Mapping[str, str], log: Path) -> None:
    """Start a worker and wait for its end; an abnormal end is an error for the caller to count."""
    with open_log(log) as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **environment, **parent()}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        code = process.wait()
    if code != 0:
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        raise RuntimeError(f"a worker ended with {how}; its output: {log}")


def parent() -> dict[str, str]:
    """For a child: who its parent is."""
    return {_PARENT: str(os.getpid())}


def open_log(log: Path) -> IO[bytes]:
    """A worker's log; nowhere if the disk is full, which must not keep a worker from starting."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return open(os.devnull, "ab")


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
        os._exit(EXIT_ORPHAN)  # it ended before it could be watched


EXIT_ORPHAN = 75
