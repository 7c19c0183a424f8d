"""`neurotile plan CONFIG`: what a run would do and cost; writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands.given import GivenAffinities, GivenTruth, with_volumes
from pipeline.commands.terminal import print_json
from pipeline.config import RunConfig, load
from pipeline.errors import ConfigError
from pipeline.facts import resolve
from pipeline.outcome import Outcome
from pipeline.pages import duration
from pipeline.plan import Plan, Task, build, refuse_what_cannot_work
from pipeline.run import dry_survey
from pipeline.rundir import RunFolder
from pipeline.stages.predict import Predict
from pipeline.work import recorded_config
from workers.receipts import Receipts


def plan(
    config: Annotated[Path | None, Parameter(help="TOML file; left out: the config of the run in --out")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="run directory that the plan is for")] = None,
    affinities: GivenAffinities = None,
    truth: GivenTruth = None,
    update: Annotated[bool, Parameter(help="count the blocks that `run --update` would execute in --out")] = False,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Print stages, blocks, bytes, files, memory and redundancy; refuse what cannot work. Nothing is written."""
    root = out or Path("runs") / (config.stem if config else "run")
    folder = RunFolder(root)
    parsed = with_volumes(_config(config, folder), affinities=affinities, truth=truth)
    facts = resolve(parsed)
    built = build(parsed, facts, folder.data)
    refuse_what_cannot_work(built, root)
    survey = dry_survey(folder, parsed, facts) if update and folder.exists() else None
    if json:
        print_json(as_json(built, folder, survey))
    else:
        show(built, folder, survey)
    return 0


def _config(config: Path | None, folder: RunFolder) -> RunConfig:
    if config is not None:
        return load(config)
    if not folder.exists():
        raise ConfigError("there is nothing to plan", way_out="give a config file, or --out with the folder of a run")
    return recorded_config(folder)


def as_json(plan: Plan, folder: RunFolder, survey: Outcome | None) -> dict[str, Any]:
    """The plan for programs."""
    rates = recorded_rates(folder, plan)
    tasks = [
        {
            "task": task.name,
            "pool": task.pool,
            "blocks": task.sweep.grid.count,
            "grid": task.sweep.grid.shape,
            "memory_bytes": task.memory_bytes,
            "seconds": rates.get(task.name),
            "to_run": to_run(survey, task.name),
        }
        for task in plan.tasks
    ]
    return {
        "layer": plan.layer.shape,
        "roi": [plan.layer.roi.begin, plan.layer.roi.end],
        "voxel_size_nm": plan.layer.voxel_size.nm,
        "tasks": tasks,
        "blocks": plan.blocks,
        "stored_bytes": plan.stored_bytes,
        "inodes": plan.inodes,
        "redundancy": _redundancy(plan),
    }


def show(plan: Plan, folder: RunFolder, survey: Outcome | None) -> None:
    """The plan for people."""
    console = Console()
    layer = plan.layer
    console.print(f"layer {_size(layer.shape)} voxels of {layer.voxel_size}, writing {layer.roi}", highlight=False)
    rates = recorded_rates(folder, plan)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "pool", "blocks", "block", "memory/worker", "time") + (("to run",) if survey else ()):
        table.add_column(name, justify="left" if name in ("task", "pool") else "right")
    for task in plan.tasks:
        seconds = rates.get(task.name)
        row = [
            task.name,
            task.pool,
            f"{task.sweep.grid.count:,}",
            _size(task.sweep.grid.block),
            f"{task.memory_bytes / 1e9:.2f} GB",
            "unknown" if seconds is None else duration(seconds),
        ]
        table.add_row(*row, *([f"{to_run(survey, task.name):,}"] if survey else []))
    console.print(table)
    console.print(
        f"{plan.blocks:,} blocks; at most {plan.stored_bytes / 1e9:.2f} GB before compression in {plan.inodes:,} files "
        f"and folders{_said_of_prediction(plan)}",
        highlight=False,
    )


def recorded_rates(folder: RunFolder, plan: Plan) -> dict[str, float]:
    """Seconds per task from receipts of an earlier run here, scaled to the blocks of this plan; never a guess."""
    if not folder.journals.exists():
        return {}
    receipts = Receipts(folder.journals)
    rates = {}
    for task in plan.tasks:
        seconds = [
            r.seconds for _, r in receipts.held(task.name) if r.state == "done" and r.layout == task.stage.layout
        ]
        if seconds:
            rates[task.name] = sum(seconds) / len(seconds) * task.sweep.grid.count / _workers(plan, task)
    return rates


def _workers(plan: Plan, task: Task) -> int:
    pool = plan.pool(task)
    return min(pool.count, task.sweep.grid.count)


def to_run(survey: Outcome | None, task: str) -> int:
    """How many blocks of a task a run would execute now: the ready ones and those that wait for them."""
    if survey is None:
        return 0
    found = survey.surveys[task]
    return len(found.ready) + len(found.waiting)


def _redundancy(plan: Plan) -> float | None:
    """How often a voxel is predicted; nothing if no network is run."""
    predict = plan.find(Predict)
    return predict.redundancy() if predict else None


def _said_of_prediction(plan: Plan) -> str:
    redundancy = _redundancy(plan)
    if redundancy is None:
        return "; affinities are given, no network is run"
    return f"; every voxel is predicted {redundancy:.2f} times over (block borders)"


def _size(extent: tuple[int, ...]) -> str:
    return " x ".join(str(e) for e in extent)
