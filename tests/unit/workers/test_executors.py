"""Serial, single and daisy hand out exactly the ready blocks; deaths and failures of workers are survived."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from workers.block import Index
from workers.errors import Poison
from workers.executors.daisy_executor import DaisyExecutor
from workers.executors.job import Job
from workers.executors.serial import SerialExecutor
from workers.executors.single import SingleExecutor

WORKER = """
    import os, signal, sys
    from pathlib import Path
    from workers.executors.daisy_executor import claims_from_daisy

    out = Path(sys.argv[1])
    claim_next = claims_from_daisy(int(sys.argv[2]))
    while (claim := claim_next()) is not None:
        name = ".".join(map(str, claim.index))
        with (out / name).open("a") as file:
            file.write("x")
        tries = len((out / name).read_text())
        if name == "0.0.1" and tries == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "1.0.0":
            os._exit(9)
        claim.settle(done=name != "0.1.0")
"""


def job(tmp_path: Path, argv: tuple[str, ...], ready: list[Index], *, workers: int = 2) -> Job:
    return Job(
        task="a/b",
        grid=(2, 2, 3),
        ready=ready,
        in_process=lambda claims: None,
        argv=argv,
        environment={"PYTHONSAFEPATH": "1"},
        logs=tmp_path / "logs",
        workers=workers,
        timeout_s=60,
        deaths_allowed=2,
    )


@pytest.mark.parametrize("depth", ["1", "3"])
def test_daisy_hands_out_the_ready_blocks_and_survives_deaths(tmp_path: Path, depth: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    out = tmp_path / "out"
    out.mkdir()
    ready: list[Index] = [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 1, 2)]
    beats: list[int] = []
    DaisyExecutor().run(job(tmp_path, (sys.executable, str(script), str(out), depth), ready), lambda: beats.append(1))
    tries = {p.name: len(p.read_text()) for p in out.iterdir()}
    if depth == "1":
        assert tries["1.0.0"] == 3  # took every worker with it
        assert tries["0.0.1"] == 2  # died once
        assert tries["0.1.1"] == tries["1.1.2"] == 1
        assert tries["0.1.0"] == 1  # failed, and handed back: no second try
    names = {".".join(map(str, index)) for index in ready}
    assert set(tries) == names if depth == "1" else set(tries) <= names  # a death costs all blocks in hand
    assert beats


def test_a_single_worker_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"p = {str(mark)!r}; open(p, 'a').write('x'); raise SystemExit(0 if open(p).read() == 'xx' else 9)"
    SingleExecutor().run(job(tmp_path, (sys.executable, "-c", code), [(0, 0, 0)]), lambda: None)
    assert mark.read_text() == "xx"


def test_a_single_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import os, time; open({str(mark)!r}, 'a').write(str(os.getpid()) + ' '); time.sleep(60)"
    base = job(tmp_path, (sys.executable, "-c", code), [(0, 0, 0)])
    SingleExecutor().run(Job(**{**base.__dict__, "timeout_s": 1, "deaths_allowed": 0}), lambda: None)
    (pid,) = mark.read_text().split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_serial_keeps_the_order(tmp_path: Path) -> None:
    seen: list[Index] = []
    base = job(tmp_path, (), [(0, 0, 2), (0, 0, 1)])

    def in_process(claim_next: object) -> None:
        while (claim := claim_next()) is not None:  # type: ignore[operator]
            seen.append(claim.index)
            claim.settle(done=True)

    SerialExecutor().run(Job(**{**base.__dict__, "in_process": in_process}), lambda: None)
    assert seen == [(0, 0, 2), (0, 0, 1)]


def test_workers_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    broken = job(tmp_path, (sys.executable, "-c", "raise SystemExit('no such module')"), [(0, 0, n) for n in range(3)])
    broken = Job(**{**broken.__dict__, "deaths_allowed": 1000})  # without the guard: thousands of starts
    with pytest.raises(Poison, match="no such module"):
        DaisyExecutor().run(broken, lambda: None)
