"""The tasks of a run, one after the other: survey, hand the ready blocks to the executor, count what became of them.

Between tasks there is a barrier: whether a block is stale depends on digests that exist only when what it reads is
done. The workers stay over the barrier. Consecutive tasks of one block (the tops of the hierarchies) go to one worker
as a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pipeline.outcome import Outcome
from pipeline.plan import Plan, Task
from pipeline.progress import Tracker
from pipeline.rundir import RunFolder
from pipeline.work import Ledger, Survey, TaskWork
from workers.block import Index
from workers.crew import Crew
from workers.executors.daisy_executor import DaisyExecutor
from workers.executors.job import Executor, Job
from workers.executors.serial import SerialExecutor
from workers.executors.single import SingleExecutor
from workers.journal import Journal
from workers.launch import worker_argv, worker_environment
from workers.loop import BlockLoop, Claim
from workers.receipts import Failure, Receipts, failed_record

READ_AHEAD = "NEUROTILE_READ_AHEAD"
RETRY = "NEUROTILE_RETRY"
READ_AHEAD_FROM = 8  # blocks per worker from which reading ahead pays and hoards nothing


def _chains(plan: Plan) -> Iterable[list[Task]]:
    """Tasks one by one; consecutive ones of a single block of the cpu pool together."""
    chain: list[Task] = []
    for task in plan.tasks:
        if task.pool == "cpu" and task.sweep.grid.count == 1:
            chain.append(task)
            continue
        if chain:
            yield chain
            chain = []
        yield [task]
    if chain:
        yield chain


@dataclass
class Walk:
    """The state of one walk over the tasks."""

    plan: Plan
    ledger: Ledger
    receipts: Receipts
    journal: Journal
    tracker: Tracker
    epoch: int
    retry: bool
    outcome: Outcome

    def __post_init__(self) -> None:
        self._crews = _Crews(self.tracker.folder, self.epoch)

    def run(self) -> None:
        """All tasks."""
        try:
            for tasks in _chains(self.plan):
                self._run(tasks)
        finally:
            self._crews.dismiss()

    def _run(self, tasks: list[Task]) -> None:
        """One task, or a chain of small ones."""
        for number, task in enumerate(tasks):
            task.stage.prepare()
            self.receipts.refresh()
            found = self.ledger.survey(task, again=self.retry)
            self.tracker.begin(found)
            if self._untried(found):
                for later in tasks[number + 1 :]:
                    later.stage.prepare()
                executor = self._executor(single=task.sweep.grid.count == 1)
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
    def _executor(self, *, single: bool) -> Executor:
        if self.plan.config.workers.executor == "serial":
            return SerialExecutor()
        return SingleExecutor() if single else DaisyExecutor()

    def _job(self, found: Survey, tasks: list[Task]) -> Job:
        task = tasks[0]
        pool = self.plan.pool(task)
        environment = _environment(self.plan, task, self.epoch)
        workers = min(pool.count, len(found.ready))
        serial = self.plan.config.workers.executor == "serial"
        crew = () if serial else self._crews.fill(task.pool, environment, workers)
        alone = pool.count == 1 < len(found.ready)  # nobody to take blocks away from: a GPU never waits for a disk
        if alone or len(found.ready) >= READ_AHEAD_FROM * pool.count:
            environment[READ_AHEAD] = "1"
        if self.retry:
            environment[RETRY] = "1"
        return Job(
            task=task.name,
            grid=task.sweep.grid.shape,
            ready=found.ready,
            in_process=lambda claims: self._in_process(task, claims),
            tasks=[t.name for t in tasks],
            argv=worker_argv(self.tracker.folder.root.absolute(), [t.name for t in tasks]),
            environment=environment,
            logs=self.tracker.folder.logs / f"{self.epoch:06d}" / task.name,
            workers=pool.count,
            timeout_s=pool.timeout_s * len(tasks),
            deaths_allowed=pool.retries,
            crew=crew,
        )

    def _in_process(self, task: Task, claims: Callable[[], Claim | None]) -> None:
        work = TaskWork(task, self.receipts, self.tracker.folder)
        work.check_device(mixed=self.plan.config.predict.mixed_devices)
        retries = self.plan.config.workers.cpu.retries
        BlockLoop(work, self.journal, epoch=self.epoch, retries=retries).run(claims, read_ahead=False)


def _environment(plan: Plan, task: Task, epoch: int) -> dict[str, str]:
    threads = plan.config.predict.threads if task.pool == "gpu" else 1
    return worker_environment(threads=threads, epoch=epoch)


class _Crews:
    """The workers that stay, of one pool at a time: those of another would hold memory that nobody uses."""

    def __init__(self, folder: RunFolder, epoch: int) -> None:
        self._argv = worker_argv(folder.root.absolute(), ())
        self._logs = folder.logs / f"{epoch:06d}" / "crew"
        self._pool = ""
        self._crew: Crew | None = None

    def fill(self, pool: str, environment: Mapping[str, str], workers: int) -> tuple[str, ...]:
        """At least so many living workers of a pool."""
        if self._crew is None or pool != self._pool:
            self.dismiss()
            self._pool, self._crew = pool, Crew(self._argv, environment, self._logs / pool)
        return self._crew.fill(workers)

    def dismiss(self) -> None:
        """End those that are there."""
        if self._crew is not None:
            self._crew.dismiss()
            self._crew = None
