"""A seat takes one order after the other; whoever dies, the other end learns of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from workers.crew import Crew
from workers.seat import Order, engage

WORKER = """
import os, signal, sys, time
from workers.seat import SEAT, serve

def do(order):
    print("told", *order.tasks, os.environ.get("WORD", "-"), flush=True)
    if order.tasks[0] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order.tasks[0] == "fail":
        raise ValueError("this cannot be done")
    if order.tasks[0] == "sleep":
        time.sleep(600)

serve(int(os.environ[SEAT]), do)
"""


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew((sys.executable, "-c", WORKER), {}, tmp_path / "crew")
    yield crew
    crew.dismiss()


def ask(names: tuple[str, ...], log: Path, task: str, **environment: str) -> bool | None:
    seat = engage(names)
    assert seat is not None
    try:
        seat.send(Order([task], environment, str(log)))
        return seat.wait(30)
    finally:
        seat.leave()


def pids(names: tuple[str, ...], crew: Crew) -> list[int]:
    return [crew._seats[name].pid for name in names]


def test_one_process_takes_one_order_after_the_other(crew: Crew, tmp_path: Path) -> None:
    names = crew.fill(1)
    (before,) = pids(names, crew)
    assert ask(names, tmp_path / "a" / "1.log", "one", WORD="first")
    assert ask(names, tmp_path / "a" / "2.log", "two")
    assert (tmp_path / "a" / "1.log").read_text() == "told one first\n"
    assert (tmp_path / "a" / "2.log").read_text() == "told two -\n"  # the first order's environment is gone
    assert crew.fill(1) == names
    assert pids(names, crew) == [before]


def test_a_busy_seat_is_left_alone(crew: Crew, tmp_path: Path) -> None:
    names = crew.fill(2)
    busy, other = engage(names), engage(names)
    assert busy is not None
    assert other is not None
    assert engage(names) is None
    busy.leave()
    again = engage(names)  # it gave its customer up, without an order, and listens again
    assert again is not None
    again.leave()
    other.leave()


@pytest.mark.parametrize("task", ["die", "fail"])
def test_a_customer_learns_of_its_seats_death_and_the_crew_fills_up(crew: Crew, tmp_path: Path, task: str) -> None:
    names = crew.fill(1)
    assert ask(names, tmp_path / "log", task) is False
    crew._seats[names[0]].wait(timeout=30)
    assert engage(names) is None
    assert task == "die" or "ValueError: this cannot be done" in (tmp_path / "log").read_text()
    fresh = crew.fill(1)
    assert not set(fresh) & set(names)
    assert ask(fresh, tmp_path / "log", "one")


def test_a_stuck_seat_is_not_waited_for(crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = crew.fill(2)
    assert ask(names, tmp_path / "log", "one")
    os.kill(pids(names, crew)[0], signal.SIGSTOP)
    monkeypatch.setattr("workers.seat.START_S", 0.3)
    assert ask(names[1:], tmp_path / "log", "two")
    assert engage(names[:1]) is None


def test_a_seat_that_dies_before_its_order_counts_as_dead(crew: Crew, tmp_path: Path) -> None:
    names = crew.fill(1)
    seat = engage(names)
    assert seat is not None
    crew._seats[names[0]].kill()
    crew._seats[names[0]].wait()
    seat.send(Order(["one"], {}, str(tmp_path / "log")))
    assert seat.wait(30) is False
    seat.leave()


def test_a_seat_ends_with_its_customer(crew: Crew, tmp_path: Path) -> None:
    names = crew.fill(1)
    customer = f"""
from workers.seat import Order, engage
seat = engage({names!r})
seat.send(Order(["sleep"], {{}}, {str(tmp_path / "log")!r}))
seat.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", customer])
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert crew._seats[names[0]].wait(timeout=30) == 75


def test_waiting_can_be_given_up(crew: Crew, tmp_path: Path) -> None:
    names = crew.fill(1)
    seat = engage(names)
    assert seat is not None
    seat.send(Order(["sleep"], {}, str(tmp_path / "log")))
    assert seat.wait(0.2) is None
    seat.leave()
    assert crew._seats[names[0]].wait(timeout=30) == 75


def test_dismissed_workers_are_gone(crew: Crew) -> None:
    names = crew.fill(3)
    found = pids(names, crew)
    crew.dismiss()
    assert not any(psutil.pid_exists(pid) for pid in found)
    assert engage(names) is None


def test_nothing_of_a_seat_stands_in_a_folder(crew: Crew, tmp_path: Path) -> None:
    crew.fill(1)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["1.log"]
    assert os.listdir(tmp_path) == ["crew"]
