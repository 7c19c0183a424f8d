"""What `run`, `retry` and `demo` share: apply the flags, run under observers, write the report, tell the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.commands import outcome as ending
from pipeline.commands.terminal import print_json, watching
from pipeline.config import RunConfig, parse
from pipeline.digests import hashes
from pipeline.errors import ConfigError
from pipeline.outcome import Outcome
from pipeline.pages import status_page
from pipeline.report import write_report
from pipeline.run import Run
from pipeline.rundir import RunFolder
from pipeline.sections import Region
from pipeline.stages.code_source import CodeSource
from pipeline.work import load_plan, recorded_config
from workers.block import BlockRef
from workers.receipts import Receipts

Flags = dict[str, Any]

HASHED_VOXELS = 1 << 26  # a larger volume is not read again for its hashes


def with_flags(config: RunConfig, flags: Flags) -> RunConfig:
    """The config with the command line's `workers` and `executor`: neither is part of the answer."""
    data = config.model_dump()
    if flags.get("workers") is not None:
        data["workers"]["cpu"]["count"] = flags["workers"]
        if config.predict.device == "cpu":
            data["workers"]["gpu"]["count"] = flags["workers"]
    if flags.get("executor") is not None:
        data["workers"]["executor"] = flags["executor"]
    return parse(data, where="the command line")


def with_holes(root: Path, config: RunConfig | None) -> RunConfig:
    """The config with the voxels of every failed block of affinities masked."""
    folder = RunFolder(root)
    config = config or recorded_config(folder)
    receipts = Receipts(folder.journals)
    plan = load_plan(folder, receipts)
    holes = dict.fromkeys(config.holes)
    for task in plan.tasks:
        for index, _ in sorted(receipts.failures(task.name)):
            if not isinstance(task.stage, CodeSource):
                raise ConfigError(
                    f"{BlockRef(task.name, index)} failed, and only blocks of predict or affinities can be left out",
                    where=str(root),
                    way_out="use `neurotile retry`, or mask the region with [[mask]]",
                )
            box = task.sweep.grid.block_box(index)
            holes[Region(begin=box.begin, end=box.end)] = None
    if len(holes) == len(config.holes):
        raise ConfigError("no block of predict or affinities has failed: there is nothing to accept", where=str(root))
    return config.model_copy(update={"holes": tuple(holes)})


def resolve_flags(root: Path, config: RunConfig | None, flags: Flags, *, accept_holes: bool) -> RunConfig | None:
    """The config to run with; None: exactly as the directory says."""
    if accept_holes:
        config = with_holes(root, config)
    if any(value is not None for value in flags.values()):
        folder = RunFolder(root)
        config = config or recorded_config(folder)
        config = with_flags(config, flags)
    return config


def carry_out(
    root: Path, config: RunConfig | None, *, update: bool, retry: bool, quiet: bool, accept_holes: bool = False
) -> Outcome:
    """Run, and write the report, whether all is done or not."""
    with watching(quiet=quiet) as observers:
        run = Run(root, observers=observers, page=status_page)
        outcome = run.execute(config, update=update, retry=retry, accept_holes=accept_holes)
    try:
        write_report(outcome)
    except OSError as error:
        sys.stderr.write(f"the report could not be written: {error}\n  way out: neurotile report {root}\n")
    return outcome


def execute(
    root: Path,
    config: RunConfig | None,
    flags: Flags,
    *,
    update: bool,
    retry: bool,
    accept_holes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run and tell; returns the exit code."""
    config = resolve_flags(root, config, flags, accept_holes=accept_holes)
    outcome = carry_out(root, config, update=update, retry=retry, quiet=quiet or as_json, accept_holes=accept_holes)
    if as_json:
        print_json({**ending.as_json(outcome), **hashes(outcome, most_voxels=HASHED_VOXELS)})
    else:
        ending.tell(outcome)
    return ending.exit_code(outcome)
