"""Every recipe of weights on every held-out volume: VOI and ARAND.

1. Codes of every volume by the engine, once (kept in --cache).
2. The recipes are those that `neurotile train CONFIG --tune` stored with the weights; nothing is tuned here.
3. Every volume is scored twice: at the voxel size of the weights against the truth's first voxels, which is what a run
   says (ops/evaluate.py), and at the stored voxel size with labels that are repeated.
"""

from __future__ import annotations

import numpy as np

from benchmarks.models import applied, held_out
from benchmarks.models.applied import Weights
from benchmarks.models.held_out import CALLED, Volume, fitting
from pipeline.config import RunConfig
from pipeline.geometry import Index
from pipeline.ops.resample import upsample_labels
from pipeline.ops.sweep import Point
from pipeline.training.apply import labels, scored

HEAD = (
    "| weights | recipe | volume | VOI split | VOI merge | VOI | ARAND | segments "
    "| VOI at stored voxels (split + merge) | ARAND |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    options = applied.options_of(__doc__)
    volumes = held_out.volumes_of(options)
    print(HEAD)
    every = applied.weights_of(options)
    for case in applied.cases(every, volumes, options):
        print(row(*case), flush=True)
    print_speed(every, volumes)


def row(weights: Weights, way: tuple[str, RunConfig], volume: Volume, factor: Index) -> str:
    """One line of the table."""
    name, config = way
    labels_ZYX = labels(weights.codes(volume.coarse_image(factor)).said, config)
    found = scored(volume.coarse_truth(factor), labels_ZYX)
    stored = ("", "")
    if factor != (1, 1, 1):
        z, y, x = volume.truth_ZYX.shape
        fine = scored(volume.truth_ZYX, np.ascontiguousarray(upsample_labels(labels_ZYX, factor)[:z, :y, :x]))
        stored = (f"{number(fine.voi)} ({number(fine.voi_split)} + {number(fine.voi_merge)})", number(fine.arand, 4))
    told = [weights.called, name, CALLED[volume.name], *measures(found), str(found.segments), *stored]
    return f"| {' | '.join(told)} |"


def measures(found: Point) -> list[str]:
    """VOI split, merge, sum, and ARAND, as they stand in tables."""
    return [number(found.voi_split), number(found.voi_merge), number(found.voi), number(found.arand, 4)]


def number(value: float | None, digits: int = 3) -> str:
    """A measure; nothing if it cannot be measured."""
    return "" if value is None else f"{value:.{digits}f}"


def print_speed(every: list[Weights], volumes: list[Volume]) -> None:
    """How long the codes took, as they were computed."""
    print("\n| weights | volume | voxels | wall s | k voxels/s |\n|---|---|---|---|---|")
    for weights in every:
        for volume, factor in fitting(weights.spec, volumes):
            answer = weights.codes(volume.coarse_image(factor))
            voxels = answer.said.box.voxels
            rate = voxels / answer.seconds / 1000
            print(f"| {weights.called} | {CALLED[volume.name]} | {voxels:,} | {answer.seconds:.0f} | {rate:.0f} |")


if __name__ == "__main__":
    main()
