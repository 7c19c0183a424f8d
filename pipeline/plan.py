"""From a config to ordered tasks, with what they will cost, and the refusals.

Every stage knows from the config whether it is active; one of several that make the same kind of thing is.

To add a stage, add one line to STAGES.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.config import RunConfig
from pipeline.errors import CannotWork, ConfigError
from pipeline.facts import Facts, layer_of
from pipeline.geometry import Layer
from pipeline.sections import Pool
from pipeline.stages.affinities import Affinities
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.classes import ClassVotes
from pipeline.stages.contacts import Contacts
from pipeline.stages.cut import Cut
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.fragments import Fragments
from pipeline.stages.merge_effect import MergeEffect
from pipeline.stages.mutex_watershed import MutexWatershed
from pipeline.stages.predict import Predict
from pipeline.stages.pyramid import Pyramid
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.stage import Pass, Site, Stage
from pipeline.stages.sweep import Sweep
from pipeline.stages.synthesize import Synthesize
from pipeline.stages.tiled_fragments import Seeded, Waterz
from pipeline.stages.upsample import Upsample
from workers.block import BlockRef

AnyStage = Stage[Any, Any]
S = TypeVar("S", bound=AnyStage)

STAGES: tuple[type[AnyStage], ...] = (
    Synthesize,
    Resample,
    Predict,
    Affinities,
    Fragments,
    MutexWatershed,
    Seeded,
    Waterz,
    RegionGraph,
    Contacts,
    ClassVotes,
    Agglomerate,
    Cut,
    SelfTouch,
    Relabel,
    Upsample,
    Pyramid,
    Evaluate,
    Sweep,
    MergeEffect,
)

BLOCKS_IN_HAND = 3  # one being read, one computed, one written
INTERPRETER_BYTES = {"cpu": 350 << 20, "gpu": 700 << 20}  # libraries before the first block (torch on the gpu pool)


@dataclass(frozen=True)
class Task:
    """One pass of one stage."""

    stage: AnyStage
    sweep: Pass

    @cached_property
    def name(self) -> str:
        """`stage/pass`."""
        return self.stage.task(self.sweep.name)

    @property
    def pool(self) -> Literal["cpu", "gpu"]:
        """Which workers do it."""
        return self.stage.pool_of(self.sweep.name)

    @property
    def memory_bytes(self) -> int:
        """The bound for a worker."""
        in_hand = min(BLOCKS_IN_HAND, self.sweep.grid.count)
        return INTERPRETER_BYTES[self.pool] + in_hand * self.stage.memory_bytes(self.sweep.name)


@dataclass(frozen=True)
class Plan:
    """Ordered stages bound to a site, and their tasks."""

    config: RunConfig
    facts: Facts
    layer: Layer
    stages: tuple[AnyStage, ...]

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Every pass of every stage, in order of execution."""
        return tuple(Task(stage, sweep) for stage in self.stages for sweep in stage.passes())

    def task(self, name: str) -> Task:
        """A task by its name; the stage's name alone will do when it has one pass."""
        for task in self.tasks:
            if task.name == name or (task.stage.name == name and len(task.stage.passes()) == 1):
                return task
        known = ", ".join(t.name for t in self.tasks)
        raise ConfigError(f"there is no task {name!r}", way_out=f"tasks of this run: {known}")

    def pool(self, task: Task) -> Pool:
        """The workers that do a task."""
        return self.config.workers.gpu if task.pool == "gpu" else self.config.workers.cpu

    def stage(self, kind: type[S]) -> S:
        """The active stage of a kind."""
        found = self.find(kind)
        if found is None:
            raise LookupError(f"this run has no {kind.__name__} stage")
        return found

    def find(self, kind: type[S]) -> S | None:
        """The active stage of a kind, if there is one."""
        return next((s for s in self.stages if isinstance(s, kind)), None)

    @property
    def blocks(self) -> int:
        """Blocks of all tasks."""
        return sum(t.sweep.grid.count for t in self.tasks)

    @property
    def stored_bytes(self) -> int:
        """A bound on what is stored, before compression."""
        return sum(s.stored_bytes() for s in self.stages)

    @property
    def inodes(self) -> int:
        """Files and folders."""
        return sum(s.inodes() for s in self.stages)


def build(
    config: RunConfig, facts: Facts, data: Path, summary: Callable[[BlockRef], Mapping[str, Any]] = lambda _: {}
) -> Plan:
    """Bind every stage to the run's site, in order."""
    layer = layer_of(config, facts)
    stages: list[AnyStage] = []
    for kind in STAGES:
        stages.append(kind(Site(config, layer, facts, data, tuple(stages), summary)))
    return Plan(config, facts, layer, tuple(stage for stage in stages if stage.active))


def refuse_what_cannot_work(plan: Plan, target: Path) -> None:
    """Raise before anything is written if the run would not fit."""
    for task in plan.tasks:
        pool = plan.pool(task)
        limit = int(pool.memory_gb * 1e9)
        if task.memory_bytes > limit:
            raise CannotWork(
                f"{task.name} needs up to {task.memory_bytes / 1e9:.2f} GB in a worker, "
                f"the limit is {limit / 1e9:.2f} GB",
                where=f"workers.{task.pool}.memory_gb",
                way_out="raise the limit, or make blocks.shape (predict.block) smaller: the answer stays the same",
            )
    if plan.inodes > plan.config.limits.inodes:
        raise CannotWork(
            f"the run would make {plan.inodes:,} files and folders, the limit is {plan.config.limits.inodes:,}",
            where="limits.inodes",
            way_out="make blocks.shape larger (fewer, larger shards), or raise the limit",
        )
    available = _available_bytes(plan.config, target)
    if plan.stored_bytes > available:
        raise CannotWork(
            f"the run may store {plan.stored_bytes / 1e9:.2f} GB before compression, "
            f"there are {available / 1e9:.2f} GB",
            where=str(target),
            way_out="free some space, choose another place, restrict the run with [roi], or set limits.disk_gb",
        )


def _available_bytes(config: RunConfig, target: Path) -> int:
    if config.limits.disk_gb is not None:
        return int(config.limits.disk_gb * 1e9)
    folder = target.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
