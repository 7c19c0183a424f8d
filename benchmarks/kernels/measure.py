"""One contender on one volume, in a process of its own: CPU time, peak memory, and the result for comparison.

1. The process reads its arrays, warms up on a corner (compiled kernels load, peers import), and only then measures.
2. CPU time is the least of some repeats of `time.process_time`; a repeat is as many calls as fill half a second, as a
   virtual machine books stolen time late. Wall time means nothing on a shared machine.
3. Peak memory is VmHWM in the first measured call above VmRSS before it (the mark is reset before the call). It holds
   the result and every conversion of the input that a contender needs.
4. Some peers do several things in one call and say on their standard output when each begins. Then the clock and the
   memory of the process are read from outside when the lines arrive, and only the phase asked for counts. The listener
   asks for a real-time priority: on a busy machine it would come late.

A peer that crashes, is killed for its memory or takes more than half an hour of CPU loses its line and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels.data import Volume

ROOT = Path(__file__).parents[2]
MARK = "measured:"
LONGEST_S = 1800
LEAST_S = 0.5  # of CPU in one repeat
CPU_CLOCK = 2  # the kind of clock that counts the CPU time of a whole process
Arrays = dict[str, NDArray[np.generic]]


class Contender(NamedTuple):
    """One row of the table."""

    name: str
    prepare: Callable[[Volume], Callable[[], Any]]
    arrays: Callable[[Any], Arrays]  # what the agreement is checked on
    beside: str = ""  # for a peer: the name of our own row it is compared with
    target: float = 0.0  # for a peer: how many times its CPU time ours should go into
    most_bytes: float = 0.0  # for ourselves: bytes per voxel or edge
    repeats: int = 3
    phase: tuple[str, str] | None = None  # how the lines begin that start and end what counts
    most_voxels: int = 1 << 40


class Measured(NamedTuple):
    """What came out: seconds of CPU, bytes above those at the call, arrays; or why nothing did."""

    seconds: float = 0.0
    peak_bytes: float = 0.0
    arrays: Arrays = {}  # noqa: RUF012 - never changed
    failure: str = ""


class Stamp(NamedTuple):
    """A line of the process, and how it stood when the line came."""

    line: str
    seconds: float
    now_bytes: int
    peak_bytes: int


def measure(module: str, contender: Contender, volume: Volume) -> Measured:
    """Start the process and listen to it."""
    argv = [sys.executable, "-m", __name__, module, contender.name, str(volume.folder)]
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "NUMBA", "MKL")}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+") as errors:
        out = Path(folder) / "arrays.npz"
        child = subprocess.Popen(
            [*argv, str(out)], cwd=ROOT, env=os.environ | threads, text=True, stdout=subprocess.PIPE, stderr=errors
        )
        stamps = list(_listen(child))
        if child.wait() or not stamps or not stamps[-1].line.startswith(MARK):
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or ["it said nothing"]
            return Measured(failure=f"ended with {child.returncode}: {last[0]}")
        with np.load(out) as stored:
            arrays = dict(stored)
    told = json.loads(stamps[-1].line.removeprefix(MARK))
    if contender.phase:
        return Measured(*_phase(stamps, contender.phase), arrays)
    return Measured(min(told["seconds"]), told["peak_bytes"], arrays)


def _listen(child: subprocess.Popen[str]) -> Iterator[Stamp]:
    assert child.stdout is not None
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    for line in child.stdout:
        try:
            seconds = time.clock_gettime((~child.pid << 3) | CPU_CLOCK)
            now, peak = memory(child.pid)
        except (OSError, KeyError):  # it has ended; its last line has what counts
            seconds, now, peak = 0.0, 0, 0
        yield Stamp(line, seconds, now, peak)


def _phase(stamps: list[Stamp], phase: tuple[str, str]) -> tuple[float, float]:
    found, start = [], stamps[0]
    for stamp in stamps:
        if stamp.line.startswith(phase[1]):
            found.append((stamp.seconds - start.seconds, float(stamp.peak_bytes - start.now_bytes)))
        if stamp.line.startswith(phase[0]):
            start = stamp
    found = found[1:]  # the first one is the warm-up
    return min(seconds for seconds, _ in found), found[0][1]


def memory(process: int | str = "self") -> tuple[int, int]:
    """Bytes in use now, and the most so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    table = dict(line.split(":", 1) for line in lines)
    now, peak = (1024 * int(table[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now, peak


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _run(contender: Contender, volume: Volume, out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST_S, LONGEST_S))
    call = contender.prepare(volume)
    _reset_peak()
    before, _ = memory()
    spent, result = _timed(call, 1)
    peak_bytes = memory()[1] - before
    calls = max(1, math.ceil(LEAST_S / max(spent, 1e-3)))
    seconds = [spent] if calls == 1 else []
    while len(seconds) < contender.repeats:
        result = None
        spent, result = _timed(call, calls)
        seconds.append(spent)
    np.savez(out, **contender.arrays(result))
    sys.stdout.write(f"{MARK}{json.dumps({'seconds': seconds, 'peak_bytes': peak_bytes})}\n")


def _timed(call: Callable[[], Any], calls: int) -> tuple[float, Any]:
    """Seconds of CPU per call, and the last result."""
    result = None
    begin = time.process_time()
    for _ in range(calls):
        result = None
        result = call()
    return (time.process_time() - begin) / calls, result


if __name__ == "__main__":
    _module, _name, _folder, _out = sys.argv[1:]
    _contenders = import_module(f"benchmarks.kernels.{_module}").CONTENDERS
    _run(next(c for c in _contenders if c.name == _name), Volume(Path(_folder)), Path(_out))
