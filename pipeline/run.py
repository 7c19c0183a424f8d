"""Walks the plan over an executor: start, resume, update, retry.

1. Take the fence. 2. Compare with what the directory holds; differences that matter need `update`. 3. For every task
in order: sort its blocks by state, hand the ready ones to the executor, and count what became of them. A block whose
inputs failed waits; every other block gets done, whatever fails elsewhere. 4. Publish the products and remove outputs
of earlier configs, once all is done.

Between tasks there is a barrier: whether a block is stale depends on digests that exist only when what it reads is
done. Consecutive tasks with no more blocks than workers share one process (the tops of the hierarchies).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, parse
from pipeline.durable import sweep_partial
from pipeline.facts import Facts, resolve
from pipeline.identity import changes, insist
from pipeline.plan import Plan, Task, build, refuse_what_cannot_work
from pipeline.progress import Observer, Page, Status, TaskStatus, Tracker
from pipeline.rundir import RunFolder
from pipeline.stages.pyramid import Pyramid
from pipeline.stages.relabel import Relabel
from pipeline.work import Ledger, Survey, TaskWork
from workers.block import Index
from workers.executors.daisy_executor import DaisyExecutor
from workers.executors.job import Executor, Job
from workers.executors.serial import SerialExecutor
from workers.executors.single import SingleExecutor
from workers.fence import Fence
from workers.files import link_atomically
from workers.journal import SUFFIX, Journal
from workers.launch import worker_argv, worker_environment
from workers.loop import BlockLoop, Claim
from workers.receipts import Failure, Receipts, failed_record, pack

_STAGE_FOLDER = re.compile(r"[a-z_]+-[0-9a-f]{12}-[0-9a-f]{8}")
READ_AHEAD = "NEUROTILE_READ_AHEAD"
READ_AHEAD_FROM = 8  # blocks per worker from which reading ahead pays and hoards nothing


@dataclass
class Outcome:
    """How a run ended: exact counts by task."""

    folder: RunFolder
    plan: Plan
    surveys: dict[str, Survey] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)
    status: Status | None = None

    @property
    def complete(self) -> bool:
        """Whether every block is done or masked."""
        return all(len(s.current) == s.total for s in self.surveys.values())

    @property
    def tasks(self) -> dict[str, dict[str, int]]:
        """Counts by task and state."""
        return {
            name: {**survey.counts(), "executed": self.executed.get(name, 0)} for name, survey in self.surveys.items()
        }

    @property
    def blocks(self) -> dict[str, dict[str, int]]:
        """Counts by stage and state: the sum over the stage's passes."""
        sums: dict[str, dict[str, int]] = {}
        for name, counts in self.tasks.items():
            stage = sums.setdefault(name.partition("/")[0], dict.fromkeys(counts, 0))
            for state, count in counts.items():
                stage[state] += count
        return sums


def dry_survey(folder: RunFolder, config: RunConfig, facts: Facts) -> Outcome:
    """What a run with this config would find, writing nothing: for `plan --update` and `status`."""
    receipts = Receipts(folder.journals)
    plan = build(config, facts, folder.data, receipts.summary)
    outcome = Outcome(folder, plan)
    ledger = Ledger(plan, receipts, folder)
    for task in plan.tasks:
        outcome.surveys[task.name] = ledger.survey(task)
    return outcome


class Run:
    """One run over one directory, from taking the fence to letting it go."""

    def __init__(self, root: Path, *, observers: Iterable[Observer] = (), page: Page = lambda _: "") -> None:
        self.folder = RunFolder(root)
        self._observers = list(observers)
        self._page = page
        self._fence = Fence(self.folder.fence)
        self._retry = False

    # ---- the whole ---------------------------------------------------------------------------------------------
    def execute(
        self, config: RunConfig | None, *, update: bool = False, retry: bool = False, accept_holes: bool = False
    ) -> Outcome:
        """Start a run, or go on with the one in the directory; without a config, exactly as it was started.

        `accept_holes` allows the config to differ in its holes, and in nothing else.
        """
        self._retry = retry
        if config is None:
            self.folder.load()  # an error if there is no run to go on with
        elif not self.folder.exists():  # refuse before anything is written, the fence included
            self.folder.refuse_foreign()
            refuse_what_cannot_work(build(config, resolve(config), self.folder.data), self.folder.root)
        epoch = self._fence.acquire()
        terminated: list[int] = []

        def terminate(number: int, _: object) -> None:
            terminated.append(number)
            raise Terminated

        before = signal.signal(signal.SIGTERM, terminate)
        try:
            config, facts = self._agree(config, update=update, accept_holes=accept_holes)
            return self._walk(config, facts, epoch)
        except KeyboardInterrupt:
            if terminated:  # whatever became of it on its way through the executor
                raise Terminated from None
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            self._fence.release()

    def _agree(self, config: RunConfig | None, *, update: bool, accept_holes: bool) -> tuple[RunConfig, Facts]:
        record: dict[str, Any] = {}
        if config is None or self.folder.exists():
            record = self.folder.load()
            known = parse(record["config"], where=str(self.folder.record))
            config = known if config is None else config
            facts = resolve(config)
            found = changes(known, config, record["facts"], facts)
            if not update:
                insist([c for c in found if not (accept_holes and c.key == "holes")], str(self.folder.root))
            if any(change.affects == "answer" for change in found):
                unpublish(self.folder)
        else:
            facts = resolve(config)
        refuse_what_cannot_work(build(config, facts, self.folder.data), self.folder.root)
        self.folder.save({**record, "config": config.model_dump(mode="json"), "facts": facts, "versions": _versions()})
        return config, facts

    def _walk(self, config: RunConfig, facts: Facts, epoch: int) -> Outcome:
        self.folder.journals.mkdir(exist_ok=True)
        for place in (self.folder.data, self.folder.journals, self.folder.fence):
            sweep_partial(place)
        pack(self.folder.journals, epoch=epoch)
        receipts = Receipts(self.folder.journals)
        plan = build(config, facts, self.folder.data, receipts.summary)
        outcome = Outcome(self.folder, plan)
        ledger = Ledger(plan, receipts, self.folder)
        outcome.status = status = Status(str(self.folder.root), epoch, tasks=[_status_of(t) for t in plan.tasks])
        tracker = Tracker(self.folder, status, self._observers, self._page)
        tracker.event("run-start", tasks=len(plan.tasks), blocks=plan.blocks, pid=os.getpid())
        state = "stopped"
        try:
            with Journal(self.folder.journals / f"{epoch:06d}-scheduler{SUFFIX}") as journal:
                walk = _Walk(plan, ledger, receipts, journal, tracker, epoch, self._retry, outcome)
                for tasks in _chains(plan):
                    walk.run(tasks)
            state = "done" if outcome.complete else "failed"
            if outcome.complete:
                publish(self.folder, plan)
                remove_obsolete(self.folder, plan)
        finally:
            tracker.finish(state)
        return outcome


class Terminated(KeyboardInterrupt):
    """SIGTERM: the same way out as an interrupt, with another exit code."""


def _status_of(task: Task) -> TaskStatus:
    grid = task.sweep.grid
    return TaskStatus(task.name, task.stage.pool, grid.shape, grid.count)


def _versions() -> dict[str, str]:
    names = ("neurotile", "numpy", "numba", "torch", "daisy", "tensorstore", "zarr", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _chains(plan: Plan) -> Iterable[list[Task]]:
    """Tasks one by one; consecutive small ones of the cpu pool together."""
    chain: list[Task] = []
    for task in plan.tasks:
        if task.stage.pool == "cpu" and task.sweep.grid.count <= plan.config.workers.cpu.count:
            chain.append(task)
            continue
        if chain:
            yield chain
            chain = []
        yield [task]
    if chain:
        yield chain


@dataclass
class _Walk:
    """The state of one walk over the tasks."""

    plan: Plan
    ledger: Ledger
    receipts: Receipts
    journal: Journal
    tracker: Tracker
    epoch: int
    retry: bool
    outcome: Outcome

    def run(self, tasks: list[Task]) -> None:
        """One task, or a chain of small ones that share one process."""
        for number, task in enumerate(tasks):
            task.stage.prepare()
            self.receipts.refresh()
            found = self.ledger.survey(task, again=self.retry)
            self.tracker.begin(found)
            if self._untried(found):
                for later in tasks[number + 1 :]:
                    later.stage.prepare()
                executor = self._executor(chained=len(tasks) > 1)
                job = self._job(found, tasks[number:])
                beat = partial(self.tracker.beat, found, self.receipts, self.epoch)
                executor.run(job, beat)
                if READ_AHEAD in job.environment and (lost := self.ledger.settle(task, self.epoch).ready):
                    # They died with a worker that held another block as well: each gets a worker to itself.
                    alone = {name: value for name, value in job.environment.items() if name != READ_AHEAD}
                    executor.run(replace(job, ready=lost, environment=alone, logs=job.logs / "alone"), beat)
            self._end(task)

    def _untried(self, found: Survey) -> bool:
        """Whether a ready block has not failed in this run already (a chain may have come by before)."""
        failures = dict(self.receipts.failures(found.task.name))
        return any(i not in failures or failures[i].epoch != self.epoch for i in found.ready)

    def _end(self, task: Task) -> None:
        for index in self.ledger.settle(task, self.epoch).ready:
            self._record_lost(task, index)
        settled = self.ledger.settle(task, self.epoch)
        self.outcome.surveys[task.name] = settled
        self.outcome.executed[task.name] = sum(r.epoch == self.epoch for _, r in self.receipts.held(task.name))
        self.tracker.end(settled)

    def _record_lost(self, task: Task, index: Index) -> None:
        """A block that was handed out and left neither receipt nor failure: it took its workers with it."""
        work = TaskWork(task, self.receipts, self.tracker.folder)
        what = "the worker died in this block, every time it was tried; its output stands in logs/"
        failure = Failure(self.epoch, "WorkerDied", what, True, "", work.identity(index).key)
        self.journal.append(failed_record(work.ref(index), failure))

    # ---- execution ---------------------------------------------------------------------------------------------
    def _executor(self, *, chained: bool) -> Executor:
        if self.plan.config.workers.executor == "serial":
            return SerialExecutor()
        return SingleExecutor() if chained else DaisyExecutor()

    def _job(self, found: Survey, tasks: list[Task]) -> Job:
        task = tasks[0]
        pool = self.plan.pool(task)
        threads = self.plan.config.predict.threads if task.stage.pool == "gpu" else 1
        argv = worker_argv(self.tracker.folder.root.absolute(), [t.name for t in tasks])
        environment = worker_environment(threads=threads, epoch=self.epoch)
        if len(found.ready) >= READ_AHEAD_FROM * pool.count:
            environment[READ_AHEAD] = "1"
        if self.retry:
            environment["NEUROTILE_RETRY"] = "1"
        return Job(
            task=task.name,
            grid=task.sweep.grid.shape,
            ready=found.ready,
            in_process=lambda claims: self._in_process(task, claims),
            argv=argv,
            environment=environment,
            logs=self.tracker.folder.logs / f"{self.epoch:06d}" / task.name,
            workers=pool.count,
            timeout_s=pool.timeout_s,
            deaths_allowed=pool.retries,
        )

    def _in_process(self, task: Task, claims: Callable[[], Claim | None]) -> None:
        work = TaskWork(task, self.receipts, self.tracker.folder)
        work.check_device(mixed=self.plan.config.predict.mixed_devices)
        retries = self.plan.config.workers.cpu.retries
        BlockLoop(work, self.journal, epoch=self.epoch, retries=retries).run(claims, read_ahead=False)


# ---- products --------------------------------------------------------------------------------------------------
def publish(folder: RunFolder, plan: Plan) -> None:
    """Point `segmentation.zarr`, `image.zarr` and the rest at the data of this run: each by one rename."""
    pyramid, relabel = plan.stage(Pyramid), plan.stage(Relabel)
    links = {**pyramid.products(), "labels.zarr": relabel.folder / "labels"}
    for name, target in links.items():
        link_atomically(folder.root / name, target)


def unpublish(folder: RunFolder) -> None:
    """Take the links to an earlier answer away: what they would show is not what the config says."""
    for link in folder.root.glob("*.zarr"):
        if link.is_symlink():
            link.unlink()


def remove_obsolete(folder: RunFolder, plan: Plan) -> None:
    """Remove outputs that belong to earlier configs of this run."""
    current = {stage.folder for stage in plan.stages}
    for place in folder.data.iterdir():
        if place not in current and _STAGE_FOLDER.fullmatch(place.name):
            shutil.rmtree(place)
