"""Derived runs: another threshold for a finished agglomeration, in a run folder of its own.

A derived run differs from its origin in `relabel.threshold` alone. Stages that do not depend on it have the same
content and layout hash in both, hence the same bytes: they are not made again.

1. Take the fences of both folders, so that neither changes meanwhile.
2. Every file of a common stage gets a second name (a hard link) in the derived run's data. Files are only ever
   replaced whole, by rename, so whatever either run does later leaves the other's files as they are; the origin may
   even be removed.
3. The receipts of those stages are copied under epoch 0: they came before anything that happens in the new folder.
4. `run.json` is written last. A folder without it, but with `origin.json`, was left by a kill: it is made anew.

From then on it is an ordinary run folder, in which `run` finds the common stages done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, parse
from pipeline.durable import PARTIAL, make_folder
from pipeline.errors import CannotWork, ConfigError
from pipeline.plan import AnyStage, Plan, build
from pipeline.rundir import RunFolder
from pipeline.stages.relabel import Relabel
from pipeline.work import Ledger, Survey, recorded_config
from workers.block import BlockRef
from workers.fence import Fence
from workers.files import sync_folder, write_atomically
from workers.journal import SUFFIX, Record, write_packed
from workers.receipts import Receipts

_UNSHARED = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def default_folder(root: Path, threshold: float) -> Path:
    """Where a derived run stands unless it is told otherwise."""
    short = f"{threshold:.3f}"
    return root / "segments" / f"T{short if float(short) == threshold else threshold}"


def derive(root: Path, threshold: float, out: Path) -> None:
    """Make `out` the folder of a run with that threshold; if it is one already, leave it as it is."""
    folder, origin = RunFolder(out), RunFolder(root)
    if folder.exists():
        _refuse_another(folder, threshold)
        return
    record = origin.load()
    config = with_threshold(parse(record["config"], where=str(origin.record)), threshold)
    if not _origin_file(folder).exists():
        folder.refuse_foreign()
    fences = [Fence(origin.fence), Fence(folder.fence)]
    try:
        for fence in fences:
            fence.acquire()
        _make(origin, folder, record, config)
    finally:
        for fence in fences:
            fence.release()


def with_threshold(config: RunConfig, threshold: float) -> RunConfig:
    """The config with another threshold; refused below the floor, where the merge tree has not been made."""
    floor = config.agglomerate.floor
    if config.agglomerate.score == "none":
        raise ConfigError(
            "this run has no merge tree: its segments are its fragments",
            where="agglomerate.score",
            way_out="run with a score (mean, max, quantile) to choose thresholds afterwards",
        )
    if not floor <= threshold <= 1:
        raise ConfigError(
            f"the threshold {threshold:g} lies outside of {floor:g} to 1: the merge tree begins at its floor {floor:g}",
            where="agglomerate.floor",
            way_out=f"choose a threshold from {floor:g} up, or run with a lower agglomerate.floor",
        )
    data = config.model_dump(mode="json")
    data["relabel"]["threshold"] = threshold
    return parse(data, where="--threshold")


def origin_of(folder: RunFolder) -> str | None:
    """The run that a derived run was made from."""
    try:
        return str(json.loads(_origin_file(folder).read_bytes())["origin"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _origin_file(folder: RunFolder) -> Path:
    return folder.root / "origin.json"


def _refuse_another(folder: RunFolder, threshold: float) -> None:
    found = recorded_config(folder).relabel.threshold
    if found != threshold:
        raise ConfigError(
            f"there is a run with the threshold {found:g} in this folder, not {threshold:g}",
            where=str(folder.root),
            way_out="choose another --out",
        )


def _make(origin: RunFolder, folder: RunFolder, record: dict[str, Any], config: RunConfig) -> None:
    receipts = Receipts(origin.journals)
    plan = build(recorded_config(origin), record["facts"], origin.data, receipts.summary)
    wanted = build(config, record["facts"], folder.data)
    ledger = Ledger(plan, receipts, origin)
    surveys = [ledger.survey(task) for task in plan.tasks]
    common = _common(plan, wanted, surveys)
    _refuse_unfinished(wanted, {stage.name for stage in common}, surveys, origin)
    told = {"origin": str(origin.root.absolute()), "threshold": config.relabel.threshold}
    write_atomically(_origin_file(folder), json.dumps(told, indent=1).encode())
    for left in (folder.data, folder.journals):
        shutil.rmtree(left, ignore_errors=True)
    for stage in common:
        _link_all(stage.folder, folder.data / stage.folder.name)
    tasks = [survey.task.name for survey in surveys if survey.task.stage in common]
    make_folder(folder.journals)
    write_packed(folder.journals / f"{0:06d}-origin{SUFFIX}", _records(receipts, tasks))
    if origin.device.exists():
        folder.settle_device(origin.device.read_text())
    folder.save({**record, "config": config.model_dump(mode="json")})


def _common(plan: Plan, wanted: Plan, surveys: Iterable[Survey]) -> list[AnyStage]:
    """The stages of a plan that another one has as well, and that are done."""
    unfinished = {survey.task.stage.name for survey in surveys if len(survey.current) < survey.total}
    folders = {stage.folder.name for stage in wanted.stages}
    return [s for s in plan.stages if s.folder.name in folders and s.name not in unfinished]


def _refuse_unfinished(wanted: Plan, common: set[str], surveys: list[Survey], origin: RunFolder) -> None:
    """Everything that the labels are made from must be there."""
    here = {survey.task.stage.folder.name for survey in surveys}  # what is not, depends on the threshold as well
    needed = {stage.name for stage in _ancestors(wanted.stage(Relabel)) if stage.folder.name in here}
    missing = sorted(needed - common)
    if missing:
        left = sum(s.total - len(s.current) for s in surveys if s.task.stage.name in missing)
        raise ConfigError(
            f"this run's merge tree is not finished: {left:,} blocks of {', '.join(missing)} are not done",
            where=str(origin.root),
            way_out=f"neurotile run --out {origin.root}",
        )


def _ancestors(stage: AnyStage) -> Iterator[AnyStage]:
    for before in stage.upstream():
        yield before
        yield from _ancestors(before)


def _records(receipts: Receipts, tasks: Iterable[str]) -> Iterator[Record]:
    for task in tasks:
        for index, _ in sorted(receipts.held(task)):
            yield {**receipts.record(BlockRef(task, index)), "epoch": 0}


def _link_all(source: Path, target: Path) -> None:
    """Give every file below a folder a second name, durably; what killed writers left stays behind."""
    for parent, _, names in os.walk(source):
        place = target / Path(parent).relative_to(source)
        make_folder(place)
        for name in names:
            if not PARTIAL.match(name):
                _link(Path(parent, name), place / name)
        sync_folder(place)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _UNSHARED:
            raise
        raise CannotWork(
            f"the data of the run cannot be shared by hard links: {error.strerror}",
            where=str(target),
            way_out="choose an --out on the file system of the run; or run its config with this relabel.threshold",
        ) from error
