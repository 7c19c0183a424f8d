"""The scores of a run at any thresholds: from the pairs that its sweep has stored, or counted against another truth.

Nothing is written. A truth that the run does not know is compared block by block in this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.facts import resolve
from pipeline.ops.evaluate import Pairs
from pipeline.ops.sweep import Point
from pipeline.plan import Plan, build
from pipeline.rundir import RunFolder
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.evaluate import BLOCKS, COLUMNS
from pipeline.stages.sweep import Sweep
from pipeline.work import Ledger, recorded_config
from workers.receipts import Receipts


@dataclass(frozen=True)
class Sweepable:
    """A run whose merge tree is finished, with a truth; and whether the pairs are stored."""

    plan: Plan
    stage: Sweep
    counted: bool


def sweepable(folder: RunFolder, truth: str | None) -> Sweepable:
    """What a run's thresholds can be evaluated from; refused with the reason if they cannot."""
    record, config = folder.load(), recorded_config(folder)
    facts = record["facts"]
    if truth is not None:
        source = config.input.model_copy(update={"truth": truth, "synthetic": None})
        if config.input.synthetic is not None:
            raise ConfigError("a generated volume brings its own truth", way_out="leave --truth out")
        config = config.model_copy(update={"input": source})
        facts = {**facts, "truth": resolve(config)["truth"]}
    if not config.sweep.thresholds:
        config = config.model_copy(update={"sweep": type(config.sweep)()})
    receipts = Receipts(folder.journals)
    plan = build(config, facts, folder.data, receipts.summary)
    stage = _stage(plan, folder)
    ledger = Ledger(plan, receipts, folder)
    unfinished = {task.name for task in plan.tasks if len(ledger.survey(task).current) < task.sweep.grid.count}
    tree = next(s for s in plan.stages if isinstance(s, Agglomerate))
    if any(name.startswith(f"{tree.name}/") for name in unfinished):
        raise _not_done("the merge tree is not finished", folder)
    counted = stage.task(BLOCKS) not in unfinished
    if truth is None and not counted and record["config"].get("sweep", {}).get("thresholds"):
        raise _not_done("the sweep has not counted all blocks yet", folder)
    return Sweepable(plan, stage, counted)


def scores_at(found: Sweepable, thresholds: Sequence[float] | None) -> list[Point]:
    """The measures at some thresholds, ascending; by default those of the config and the run's own."""
    config, stage = found.plan.config, found.stage
    floor = config.agglomerate.floor
    wanted = sorted({*(stage.thresholds if thresholds is None else thresholds)})
    if thresholds is None:
        wanted = sorted({*wanted, config.relabel.threshold})
    for threshold in wanted:
        if not floor <= threshold <= 1:
            raise ConfigError(
                f"the threshold {threshold:g} lies outside of {floor:g} to 1: the merge tree begins at its floor",
                where="agglomerate.floor",
                way_out=f"choose thresholds from {floor:g} up, or run with a lower agglomerate.floor",
            )
    return stage.cuts(_pairs(stage, counted=found.counted), wanted).points()


def _stage(plan: Plan, folder: RunFolder) -> Sweep:
    stage = plan.find(Sweep)
    if stage is not None:
        return stage
    if plan.find(Agglomerate) is None:
        raise ConfigError("this run has no merge tree: there are no thresholds to compare", where=str(folder.root))
    raise ConfigError(
        "this run knows no truth to compare with",
        where=str(folder.root),
        way_out="give one with --truth FILE, or set input.truth in the config and run with --update",
    )


def _pairs(stage: Sweep, *, counted: bool) -> Iterable[Pairs]:
    """The pairs of every block: stored ones, or counted now."""
    for index in stage.sweep(BLOCKS).grid:
        if counted:
            table = stage.tables(BLOCKS, index, "pairs")["pairs"]
            yield Pairs(*(table[column] for column in COLUMNS))
        else:
            yield stage.read_block(index).pairs()


def _not_done(what: str, folder: RunFolder) -> ConfigError:
    return ConfigError(what, where=str(folder.root), way_out=f"neurotile run --out {folder.root}")
