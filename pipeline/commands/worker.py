"""`neurotile worker RUN STAGE`: do blocks of one task; the command that schedulers start and people reproduce with.

Three ways to get blocks: from daisy (its address in the environment), all that are ready of one or more tasks (for
chains of small tasks), or the ones named with --block, in the foreground, as a run of its own. Without a task it is a
member of a crew: it takes orders, each for one of the first two ways, until it is ended (see `workers.seat`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.commands.exit_codes import EXIT_DONE, EXIT_FAILED_BLOCKS
from pipeline.errors import ConfigError, OutOfMemory
from pipeline.plan import Plan, Task
from pipeline.rundir import RunFolder
from pipeline.walk import READ_AHEAD, RETRY
from pipeline.work import Ledger, TaskWork, load_plan
from workers.block import Index, parse_index
from workers.executors.daisy_executor import BLOCKS_IN_HAND, claims_from_daisy
from workers.executors.spawner import FROM_DAISY
from workers.fence import Fence
from workers.journal import SUFFIX, Journal
from workers.launch import die_with_parent
from workers.loop import BlockLoop, Claim
from workers.receipts import Failure, Receipts, failed_record
from workers.seat import SEAT, serve
from workers.watchdog import reset_peak, watch

EXIT_TERMINATED = 143


def worker(
    run: Annotated[Path, Parameter(help="run directory")],
    stage: Annotated[str, Parameter(help="task, `stage/pass`; the stage alone if it has one pass")] = "",
    /,
    *then: Annotated[str, Parameter(help="further tasks, one after the other")],
    block: Annotated[list[str], Parameter(help="do these blocks, in the foreground: `--block 1.0.2`")] = [],  # noqa: B006
) -> int:
    """Do blocks of a task. Schedulers start this; by hand it reproduces one block."""
    folder = RunFolder(run)
    if block:
        return _by_hand(folder, stage, [_index(label) for label in block])
    die_with_parent()
    epoch = os.environ.get("NEUROTILE_EPOCH")
    if epoch is None or not (stage or SEAT in os.environ):
        raise ConfigError(
            "this command is started by a run", way_out="by hand, name blocks: neurotile worker RUN STAGE --block 0.0.0"
        )
    member = _Member(folder, int(epoch))
    signal.signal(signal.SIGTERM, member.on_terminate)
    if SEAT in os.environ:
        serve(int(os.environ[SEAT]), lambda order: member.work_on(order.tasks))
    member.work_on([stage, *then])
    os._exit(EXIT_DONE)  # daisy's threads cannot be joined


class _Member:
    """A worker process that belongs to a run."""

    def __init__(self, folder: RunFolder, epoch: int) -> None:
        self.folder = folder
        self.epoch = epoch
        self.fence = Fence(folder.fence)
        self.fence.join(epoch)
        self.receipts = Receipts(folder.journals)
        name = f"{epoch:06d}-{socket.gethostname()}-{os.getpid()}{SUFFIX}"
        self.journal = Journal(folder.journals / name)
        self.terminated = False
        self.loop: BlockLoop | None = None
        self._watched = False

    def work_on(self, names: Sequence[str]) -> None:
        """Do what the environment says: blocks that daisy hands out, or all that are ready."""
        self.receipts.refresh()
        plan = load_plan(self.folder, self.receipts)  # anew for every order: stages keep what they have loaded
        if FROM_DAISY in os.environ:
            depth = BLOCKS_IN_HAND if _read_ahead() else 1
            self._do(plan, plan.task(names[0]), lambda: claims_from_daisy(depth))
        else:
            self._do_chain(plan, names)
        self.loop = None
        if self.terminated:
            os._exit(EXIT_TERMINATED)

    def _do(self, plan: Plan, task: Task, connect: Callable[[], Callable[[], Claim | None]]) -> None:
        """Work through the blocks that are handed out; connects only when it could compute them."""
        reset_peak()
        pool = plan.pool(task)
        work = TaskWork(task, self.receipts, self.folder)
        work.check_device(mixed=plan.config.predict.mixed_devices)
        self.loop = BlockLoop(
            work,
            self.journal,
            epoch=self.epoch,
            retries=pool.retries,
            before_commit=lambda: self.fence.check(self.epoch),
        )
        self.loop.stopping = self.terminated  # it may have been told between two tasks
        if not self._watched:
            self._watched = True
            watch(
                scheduler_alive=self.fence.scheduler_alive,
                limit_bytes=int(pool.memory_gb * 1e9),
                on_memory=self._on_memory,
            )
        self.loop.run(connect(), read_ahead=_read_ahead())

    def _do_chain(self, plan: Plan, names: Iterable[str]) -> None:
        """All ready blocks of some tasks, in order."""
        again = os.environ.get(RETRY) == "1"
        ledger = Ledger(plan, self.receipts, self.folder)
        wanted = {plan.task(name).name for name in names}
        for task in plan.tasks:
            self.receipts.refresh()
            found = ledger.survey(task, again=again)
            if task.name in wanted and found.ready:
                self._do(plan, task, partial(_claims, found.ready))
                ledger.settle(task, self.epoch)

    def on_terminate(self, *_: object) -> None:
        """SIGTERM: finish the block in hand, take no other. A second one drops it."""
        if self.terminated or self.loop is None:
            os._exit(EXIT_TERMINATED)
        self.terminated = True
        self.loop.stopping = True

    def _on_memory(self, used: int) -> None:
        """Record why the blocks in hand are about to die."""
        loop = self.loop
        if loop is None:
            return
        work: Any = loop.work
        for index in sorted(loop.in_hand):
            limit = "workers.cpu.memory_gb or workers.gpu.memory_gb"
            error = OutOfMemory(
                f"the worker grew to {used / 1e9:.2f} GB, beyond its limit", where=limit, way_out="raise the limit"
            )
            key = work.identity(index).key
            failure = Failure(self.epoch, "OutOfMemory", str(error), True, "", key)
            self.journal.append(failed_record(work.ref(index), failure))


def _read_ahead() -> bool:
    return os.environ.get(READ_AHEAD) == "1"


@dataclass
class _Named:
    index: Index
    done: bool = False

    def settle(self, *, done: bool) -> None:
        self.done = done


def _claims(indices: Iterable[Index]) -> Callable[[], Claim | None]:
    left = iter([_Named(index) for index in indices])
    return lambda: next(left, None)


def _index(label: str) -> Index:
    try:
        return parse_index(label)
    except ValueError:
        raise ConfigError(f"{label!r} is no block", way_out="blocks are written Z.Y.X, such as 1.0.2") from None


def _check_blocks(task: Task, indices: list[Index]) -> None:
    shape = task.sweep.grid.shape
    for index in indices:
        if not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            raise ConfigError(f"{task.name} has no block {index}", way_out=f"its grid has {shape} blocks, from 0.0.0")


def _by_hand(folder: RunFolder, stage: str, indices: list[Index]) -> int:
    """The named blocks as a run of their own: fenced, with receipts; a failure is shown, not only recorded."""
    folder.load()
    fence = Fence(folder.fence)
    epoch = fence.acquire()
    try:
        receipts = Receipts(folder.journals)
        plan = load_plan(folder, receipts)
        task = plan.task(stage)
        _check_blocks(task, indices)
        task.stage.prepare()
        work = TaskWork(task, receipts, folder)
        work.check_device(mixed=plan.config.predict.mixed_devices)
        claims = [_Named(index) for index in indices]
        left = iter(claims)
        with Journal(folder.journals / f"{epoch:06d}-by-hand{SUFFIX}") as journal:
            BlockLoop(work, journal, epoch=epoch, retries=0).run(lambda: next(left, None), read_ahead=False)
        receipts.refresh()
        for claim in claims:
            failure = receipts.failure(work.ref(claim.index))
            told = "done" if claim.done else f"failed: {failure.error}: {failure.what}" if failure else "failed"
            sys.stderr.write(f"{work.ref(claim.index)}: {told}\n")
            if failure and failure.bundle:
                sys.stderr.write((folder.root / failure.bundle / "error.json").read_text() + "\n")
        return EXIT_DONE if all(claim.done for claim in claims) else EXIT_FAILED_BLOCKS
    finally:
        fence.release()
