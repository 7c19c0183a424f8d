"""Runs that correct self-touches: started as a user does, and what the decisions were worth by the truth.

A run folder is used again (`run --update`), so that another setting of the correction reuses all that it can. Scores
before and after, and at other thresholds of the distance, are those of the stage merge_effect: a threshold of 0 merges
nothing. A candidate is right to merge if VOI falls when it alone is merged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import load_spec
from pipeline.geometry import Index
from pipeline.ops.merge_effect import Point, best
from pipeline.ops.relabel import rename
from pipeline.ops.self_touch import ABSTAINED, APART, MERGE
from pipeline.plan import Plan
from pipeline.rundir import RunFolder
from pipeline.stages.cut import Cut
from pipeline.stages.merge_effect import MergeEffect
from pipeline.stages.relabel import Relabel
from pipeline.stages.self_touch import SelfTouch
from pipeline.toml import dump
from pipeline.work import load_plan
from workers.receipts import Receipts

U64 = NDArray[np.uint64]
Config = dict[str, Any]
Size = tuple[float, float, float]
NEUROTILE = str(Path(sys.executable).with_name("neurotile"))
MOST_MERGE_BITS = 0.01  # the aim: half of the splits at most are left, for this much more VOI merge
MUTEX: Config = {  # fragments are segments
    "fragments": {"method": "mutex_watershed"},
    "mutex_watershed": {"mode": "exact"},
    "agglomerate": {"score": "none"},
}
COLUMNS = (
    *("VOI split", "VOI merge", "VOI", "ARAND", "candidates", "merged", "apart", "abstained"),
    *("right", "wrong", "missed", "precision", "recall"),
)


def usual(**sections: Mapping[str, Any]) -> Config:
    """A config with sections, and what all runs have in common."""
    room = {"memory_gb": 20}
    workers = {"executor": "serial", "cpu": room, "gpu": room}
    blocks = {"shape": [64, 512, 512], "chunk": [32, 64, 64]}  # few: the exact mutex watershed hands much up
    return {"blocks": blocks, "pyramid": {"levels": 0}, "sweep": {"thresholds": []}, "workers": workers, **sections}


def embedding_recipe(weights: str) -> Config:
    """Sections that make segments of an embedding net: its best recipe, or the usual ones where it was not tuned."""
    best_first = list((load_spec(weights).recipes or {}).values())
    return {name: part for name, part in (best_first or [MUTEX])[0].items() if name != "tuned"}


def segment(folder: Path, config: Config) -> Healed:
    """A run in a folder, begun or brought up to date."""
    path = folder.with_suffix(".toml")
    path.write_text(dump(json.loads(json.dumps(config))))  # tuples become lists
    known = ["--update"] if RunFolder(folder).exists() else []
    command = [NEUROTILE, "run", str(path), "--out", str(folder), "--quiet", *known]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with exit code {done.returncode}:\n{done.stderr}")
    run = RunFolder(folder)
    return Healed.of(load_plan(run, Receipts(run.journals)))


@dataclass(frozen=True)
class Decisions:
    """Candidates and how they were decided; right and wrong by the sign of what a merge does to VOI."""

    candidates: int
    merged: int
    apart: int
    abstained: int
    right: int  # merged, and VOI falls
    wrong: int  # merged, and VOI rises
    missed: int  # not merged, and VOI would fall

    def told(self) -> list[str]:
        """As they stand in tables, with precision and recall."""
        shares = (share(self.right, self.right + self.wrong), share(self.right, self.right + self.missed))
        return [*(f"{count:,}" for count in vars(self).values()), *shares]


@dataclass(frozen=True)
class Healed:
    """A finished run, and what is read of it at once: another run in its folder takes the place of its tables."""

    plan: Plan
    points: list[Point]  # the scores at every threshold of the distance
    decisions: Decisions

    @classmethod
    def of(cls, plan: Plan) -> Healed:
        """What a run has stored."""
        effect, kinds = plan.stage(MergeEffect), plan.stage(SelfTouch).decisions().get("decision", np.empty(0))
        change, merged = effect.effect().sum, kinds == MERGE
        sums = [merged, kinds == APART, kinds == ABSTAINED]
        sums += [merged & (change < 0), merged & (change > 0), ~merged & (change < 0)]
        return cls(plan, effect.points(), Decisions(kinds.size, *(int(chosen.sum()) for chosen in sums)))

    @property
    def before(self) -> Point:
        """The scores without the correction."""
        return next(point for point in self.points if point.threshold == 0)

    @property
    def after(self) -> Point:
        """The scores with it."""
        return next(point for point in self.points if point.threshold == self.plan.config.self_touch.theta_d)

    def labels(self) -> tuple[U64, U64]:
        """Segments before the correction, and after it."""
        cut, relabel = self.plan.find(Cut), self.plan.stage(Relabel)
        before_ZYX = np.zeros(self.plan.layer.roi.shape, np.uint64)
        for index in relabel.grids[0]:
            box = relabel.grids[0].block_box(index)
            found_ZYX = relabel.fragments.read_labels(box)
            before_ZYX[box.slices(self.plan.layer.roi.begin)] = (
                rename(found_ZYX, *cut.names(index)) if cut is not None else found_ZYX
            )
        return before_ZYX, relabel.read_segmentation(self.plan.layer.roi)

    def row(self) -> list[str]:
        """The entries of COLUMNS."""
        pairs = ((getattr(self.before, name), getattr(self.after, name)) for name in ("voi_split", "voi_merge", "voi"))
        told = [f"{number(old)} → {number(new)}" for old, new in pairs]
        told.append(f"{number(self.before.arand, 4)} → {number(self.after.arand, 4)}")
        return [*told, *self.decisions.told()]

    @property
    def aim(self) -> str:
        """Whether half of VOI split is gone, for next to no VOI merge."""
        values = (self.before.voi_split, self.after.voi_split, self.before.voi_merge, self.after.voi_merge)
        split, left, merge, now = (value or 0.0 for value in values)
        met = left <= split / 2 and now - merge <= MOST_MERGE_BITS
        return "PASS" if met else f"short: {left / split if split else 1:.0%} left, merge {now - merge:+.3f}"


def share(part: int, whole: int) -> str:
    """A share as it stands in tables; nothing of nothing."""
    return f"{part / whole:.2f}" if whole else ""


def number(value: float | None, digits: int = 3) -> str:
    """A measure; nothing if it cannot be measured."""
    return "" if value is None else f"{value:.{digits}f}"


def print_row(entries: Iterable[str]) -> None:
    """One line of a table."""
    print(f"| {' | '.join(entries)} |", flush=True)


def print_head(columns: Iterable[str]) -> None:
    """The first two lines of a table."""
    names = list(columns)
    print_row(names)
    print(f"|{'---|' * len(names)}", flush=True)


def print_thresholds(every: Mapping[str, Healed]) -> None:
    """VOI at other thresholds of the distance, of runs by name; from the distances that are stored."""
    if not every:
        return
    thresholds = [point.threshold for point in next(iter(every.values())).points]
    print("\nVOI (pairs merged) at thresholds of the distance:\n")
    print_head(["run", *(f"{threshold:g}" for threshold in thresholds), "best"])
    for name, run in every.items():
        least = best(run.points)
        told = [f"{number(point.voi)} ({point.accepted})" for point in run.points]
        print_row([name, *told, "" if least is None else f"{least.threshold:g}"])


def weights_at(name: str) -> str:
    """Weights for a config in another folder: shipped ones by name, others by an absolute path."""
    return str(Path(name).resolve()) if "/" in name or name.endswith(".safetensors") else name


def triple(text: str) -> Index:
    """Z,Y,X."""
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x
