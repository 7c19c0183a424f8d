"""Walks the plan over an executor: start, resume, update, retry.

1. Take the fence. 2. Compare with what the directory holds; differences that matter need `update`. 3. For every task
in order: sort its blocks by state, hand the ready ones to the executor, and count what became of them. A block whose
inputs failed waits; every other block gets done, whatever fails elsewhere. 4. Publish the products and remove outputs
of earlier configs, once all is done. The third step is in `walk`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, parse
from pipeline.durable import sweep_partial
from pipeline.facts import Facts, resolve
from pipeline.identity import changes, insist
from pipeline.outcome import FINE_LABELS, LABELS, Outcome
from pipeline.plan import Plan, Task, build, refuse_what_cannot_work
from pipeline.progress import Observer, Page, Status, TaskStatus, Tracker
from pipeline.rundir import RunFolder
from pipeline.stages.predict import Predict
from pipeline.stages.pyramid import Pyramid
from pipeline.stages.relabel import Relabel
from pipeline.stages.upsample import Upsample
from pipeline.walk import Walk
from pipeline.work import Ledger
from workers.fence import Fence
from workers.files import link_atomically
from workers.journal import SUFFIX, Journal
from workers.receipts import Receipts, pack

_STAGE_FOLDER = re.compile(r"[a-z_]+-[0-9a-f]{12}-[0-9a-f]{8}")


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
                Walk(plan, ledger, receipts, journal, tracker, epoch, self._retry, outcome).run()
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
    return TaskStatus(task.name, task.pool, grid.shape, grid.count)


def _versions() -> dict[str, str]:
    names = ("neurotile", "numpy", "numba", "torch", "daisy", "tensorstore", "zarr", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


# ---- products --------------------------------------------------------------------------------------------------
def publish(folder: RunFolder, plan: Plan) -> None:
    """Point `segmentation.zarr`, `image.zarr` and the rest at the data of this run: each by one rename."""
    pyramid, relabel = plan.stage(Pyramid), plan.stage(Relabel)
    links = {**pyramid.products(), LABELS: relabel.folder / "labels"}
    predict, upsample = plan.find(Predict), plan.find(Upsample)
    if upsample is not None:
        links[FINE_LABELS] = upsample.folder / "labels"
    if predict is not None and predict.vector_channels:
        links["embeddings.zarr"] = predict.folder / "embeddings"
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
