"""Every post-processing recipe on every held-out volume: parameters tuned on one of them, VOI and ARAND on all.

1. Codes of every volume by the engine, once (kept in --cache).
2. On the tuning volume every recipe at every parameter of its grid; the least VOI chooses. (Of several tuning volumes
   the mean of VOI by labelled voxels. Weights that fit none of them are tuned on what they fit, and the table says so.)
3. At these parameters every volume is scored twice: at the voxel size of the weights against the truth's first voxels,
   which is what a run says (ops/evaluate.py), and at the stored voxel size with labels that are repeated.

With --stored nothing is tuned: the recipes that `neurotile train --tune` stored with the weights are scored.

The chosen parameters are written to CACHE/tuned.json, with the sections of a run's config that do the same; the other
scripts look for them there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import applied, held_out
from benchmarks.models.applied import Weights
from benchmarks.models.held_out import CALLED, Volume
from benchmarks.models.recipes import Choice, Recipe, every_score, is_thick, measure, recipes, segment
from models.spec import NEAREST
from pipeline.geometry import Index
from pipeline.ops.resample import upsample_labels
from pipeline.ops.sweep import Point
from pipeline.training.judge import BACKGROUND

TUNED = "tuned.json"
USUAL = {"affinity": ["watershed + mean", "mean"], "embedding": ["mutex", "mutex_watershed"]}
Fitting = list[tuple[Volume, Index]]
HEAD = (
    "| weights | recipe | parameters | volume | tuned on it | VOI split | VOI merge | VOI | ARAND | segments "
    "| VOI at stored voxels (split + merge) | ARAND |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    applied.add_arguments(parser)
    held_out.add_arguments(parser)
    parser.add_argument("--tune", nargs="+", default=["ac3_val"], help="volumes that choose the parameters")
    parser.add_argument("--stored", action="store_true", help="the recipes stored with the weights; nothing is tuned")
    parser.add_argument("--recipes", nargs="+", help="only these, by name")
    parser.add_argument("--quick", action="store_true", help="a single parameter each, for trials")
    options = parser.parse_args()
    volumes = held_out.volumes_of(options)
    print(HEAD)
    every = applied.weights_of(options)
    for weights in every:
        fitting = fitting_volumes(weights, volumes)
        on = [name for name in options.tune if name in [volume.name for volume, _ in fitting]]
        on = on or [volume.name for volume, _ in fitting]
        if options.stored:
            on, chosen = [], stored(weights)
        else:
            chosen = tune(weights, [f for f in fitting if f[0].name in on], wanted_of(weights, options))
        note(options.cache / TUNED, weights.called, chosen, on)
        for name, choice in chosen.items():
            for volume, factor in fitting:
                print(row(weights, name, choice, volume, factor, on), flush=True)
    print_speed(every, volumes)


def stored(weights: Weights) -> dict[str, Choice]:
    """The recipes that stand in the weights' spec."""
    background = (weights.spec.background_threshold or BACKGROUND) if weights.spec.has_background else None
    found = {name: Choice.of_sections(told, background) for name, told in (weights.spec.recipes or {}).items()}
    if not found:
        raise SystemExit(f"{weights.name} has no recipes: neurotile train --tune makes them")
    return found


def wanted_of(weights: Weights, options: Any) -> list[Recipe]:
    """The recipes for the weights' kind, of those that were asked for."""
    known, far = weights.spec.has_background, len(weights.manner.edges(weights.spec)) > len(NEAREST)
    every = recipes(background=known, far=far, thick=is_thick(weights.spec.voxel_size_nm), quick=options.quick)
    return [recipe for recipe in every if not options.recipes or recipe.name in options.recipes]


def fitting_volumes(weights: Weights, volumes: list[Volume]) -> Fitting:
    """The volumes whose voxels make up those of the weights."""
    factors = [(volume, volume.factor(weights.spec.voxel_size_nm)) for volume in volumes]
    fitting = [(volume, factor) for volume, factor in factors if factor is not None]
    if not fitting:
        raise SystemExit(f"no volume has voxels that make up those of {weights.name}: {weights.spec.voxel_size_nm} nm")
    return fitting


def tune(weights: Weights, volumes: Fitting, wanted: list[Recipe]) -> dict[str, Choice]:
    """Of every recipe the parameters with the least VOI."""
    sums: dict[tuple[str, Choice], float] = {}
    for volume, factor in volumes:
        said, truth_ZYX = weights.codes(volume.coarse_image(factor)), volume.coarse_truth(factor)
        labelled = int(np.count_nonzero(truth_ZYX))
        for name, choice, point in every_score(said, truth_ZYX, wanted, weights.spec.voxel_size_nm):
            voi = float("inf") if point.voi is None else point.voi
            sums[name, choice] = sums.get((name, choice), 0.0) + labelled * voi
    return {recipe.name: _least(sums, recipe.name) for recipe in wanted}


def _least(sums: dict[tuple[str, Choice], float], name: str) -> Choice:
    own = {choice: total for (recipe, choice), total in sums.items() if recipe == name}
    return min(own, key=lambda choice: own[choice])  # of equals the first of the grid


def note(path: Path, weights: str, chosen: dict[str, Choice], on: list[str]) -> None:
    """Add the chosen parameters to the file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, choice in chosen.items():
        known.setdefault(weights, {})[name] = {"tuned_on": on, "choice": asdict(choice), "config": choice.sections}
    path.write_text(json.dumps(known, indent=1) + "\n")


def tuned(path: Path, weights: Weights, asked: str | None) -> tuple[str, Choice]:
    """The chosen parameters of a recipe, by default that of the weights' kind; and its name."""
    known = json.loads(path.read_text()) if path.exists() else {}
    own = known.get(weights.called, {})
    names = [asked] if asked else USUAL["embedding" if weights.embeds else "affinity"]
    for name in names:
        if name in own:
            return name, Choice(**own[name]["choice"])
    told = f"{path} has no parameters of {' or '.join(names)} for {weights.called}"
    raise SystemExit(f"{told}: run benchmarks.models.scores first, with the same --cache")


def row(weights: Weights, name: str, choice: Choice, volume: Volume, factor: Index, on: list[str]) -> str:
    """One line of the table."""
    said = weights.codes(volume.coarse_image(factor))
    labels_ZYX = segment(said, choice, weights.spec.voxel_size_nm)
    found = measure(volume.coarse_truth(factor), labels_ZYX)
    stored = ("", "")
    if factor != (1, 1, 1):
        z, y, x = volume.truth_ZYX.shape
        fine = measure(volume.truth_ZYX, np.ascontiguousarray(upsample_labels(labels_ZYX, factor)[:z, :y, :x]))
        stored = (
            f"{_number(fine.voi)} ({_number(fine.voi_split)} + {_number(fine.voi_merge)})",
            _number(fine.arand, 4),
        )
    told = [weights.called, name, choice.told, CALLED[volume.name], "yes" if volume.name in on else ""]
    return f"| {' | '.join([*told, *measures(found), str(found.segments), *stored])} |"


def measures(found: Point) -> list[str]:
    """VOI split, merge, sum, and ARAND, as they stand in tables."""
    return [_number(found.voi_split), _number(found.voi_merge), _number(found.voi), _number(found.arand, 4)]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def print_speed(every: list[Weights], volumes: list[Volume]) -> None:
    """How long the codes took, as they were computed."""
    print("\n| weights | volume | voxels | wall s | k voxels/s |\n|---|---|---|---|---|")
    for weights in every:
        for volume, factor in fitting_volumes(weights, volumes):
            said = weights.codes(volume.coarse_image(factor))
            voxels = said.values_CZYX[0].size
            rate = voxels / said.seconds / 1000
            print(f"| {weights.called} | {CALLED[volume.name]} | {voxels:,} | {said.seconds:.0f} | {rate:.0f} |")


if __name__ == "__main__":
    main()
