"""Generated volumes with loops: how many of those that greedy clustering splits does the correction make whole?

Routes, all through `neurotile run`, scored against the truth of the generator:

seen        affinities as a limited view gives them (ops/local_view.py), in a file beside the image; mutex watershed
embedding   the embedding net's own edges; mutex watershed
affinity    edges of the shipped `tiny`; watershed and mean affinity, as in the demo

Self-touches are judged by the embedding net in all of them. A loop counts if its middle, its bend and both sides lie in
the volume; it is split if the most frequent segments beside its middle differ.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.self_touch.healed import (
    COLUMNS,
    MUTEX,
    U64,
    Config,
    Healed,
    Size,
    embedding_recipe,
    print_head,
    print_row,
    print_thresholds,
    segment,
    triple,
    usual,
    weights_at,
)
from models.offsets import METRIC
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops.local_view import seen_affinities
from pipeline.ops.noisy_affinities import recipe
from pipeline.ops.self_contacts import SelfContact, self_contacts
from pipeline.ops.synthesize import generate

VOXEL_NM: Size = (30.0, 12.0, 12.0)
KINDS = "both"
NOISE, SMOOTH_VX = 0.1, 3.0
LOW = 0.3  # lower, and membranes are crumbs instead of background: nothing grows over them, and arms do not meet
BESIDE: Index = (1, 3, 3)  # around a voxel in an arm: still that arm


@dataclass(frozen=True)
class Generated:
    """A volume, as files in a folder."""

    seed: int
    box: Box
    folder: Path
    truth_ZYX: U64

    @classmethod
    def make(cls, seed: int, size: Index, folder: Path) -> Generated:
        """Image, truth, and affinities as they are seen in a limited view."""
        folder.mkdir(parents=True, exist_ok=True)
        box = Box.of_shape(size)
        image_ZYX, truth_ZYX = generate(box, seed=seed, shape=size, voxel_size_nm=VOXEL_NM, loop_kinds=KINDS)
        how = recipe(METRIC, seed=1, noise=NOISE, smooth_vx=SMOOTH_VX, voxel_pm=VoxelSize.from_nm(VOXEL_NM).pm)
        for name, array in (("image", image_ZYX), ("truth", truth_ZYX), ("seen", seen_affinities(truth_ZYX, how))):
            np.save(folder / f"{name}.npy", array)
        return cls(seed, box, folder, truth_ZYX)

    @property
    def input(self) -> Config:
        """The section of a config."""
        return {"image": "image.npy", "truth": "truth.npy", "voxel_size_nm": VOXEL_NM}

    @property
    def loops(self) -> list[SelfContact]:
        """The known answers that can be judged."""
        found = self_contacts(self.box, seed=self.seed, voxel_size_nm=VOXEL_NM, loop_kinds=KINDS)
        return [one for one in found if all(self.box.contains(_voxel(at)) for at in (one.bend, *one.sides))]

    def whole(self, labels_ZYX: U64) -> list[bool]:
        """Which loops are one segment at their middle."""
        return [len({self._segment(labels_ZYX, one.label, side) for side in one.sides}) == 1 for one in self.loops]

    def _segment(self, labels_ZYX: U64, label: int, side: Index) -> int:
        near = _voxel(side).grow(BESIDE).clip(self.box).slices()
        found = labels_ZYX[near][(self.truth_ZYX[near] == label) & (labels_ZYX[near] > 0)]
        names, counts = np.unique(found, return_counts=True)
        return int(names[counts.argmax()]) if names.size else -int(side[1])  # nothing there: no segment in common


def _voxel(at: Index) -> Box:
    z, y, x = at
    return Box(at, (z + 1, y + 1, x + 1))


def seen(weights: str, low: float) -> Config:
    """Affinities of a limited view."""
    given = {"path": "seen.npy", "offsets": METRIC, "voxel_size_nm": VOXEL_NM}
    return {**MUTEX, "affinities": given, "mutex_watershed": {"mode": "exact", "low": low}}


def embedding(weights: str, low: float) -> Config:
    """The embedding net's own edges."""
    return {"predict": {"weights": weights}, **embedding_recipe(weights)}


def affinity(weights: str, low: float) -> Config:
    """The demo's network and settings."""
    return {"predict": {"weights": "tiny"}}


ROUTES: dict[str, Callable[[str, float], Config]] = {"seen": seen, "embedding": embedding, "affinity": affinity}


def main() -> None:
    options = options_of()
    print(f"{options.weights}, {options.size} voxels, edges above {options.low} are foreground in the route seen,")
    print(f"theta_d {options.theta_d}, theta_self_contact {options.theta_self_contact}\n")
    head = ["seed", "route", "expand_xy", *COLUMNS, "loops", "split", "of these whole", "whole, now split", "aim"]
    print_head(head)
    with tempfile.TemporaryDirectory() as scratch:
        folder, every = (options.folder or Path(scratch)).resolve(), {}
        for seed in options.seeds:
            volume = Generated.make(seed, options.size, folder / f"seed{seed}")
            for route in options.routes:
                for expand in options.expand:
                    run = segment(volume.folder / route, config(volume, route, expand, options))
                    print_row([str(seed), route, str(expand), *run.row(), *loops(volume, run), run.aim])
                    every[f"{seed}, {route}, {expand}"] = run
        print_thresholds(every)


def config(volume: Generated, route: str, expand: int, options: Any) -> Config:
    """What a run is asked to do."""
    healed = {"enabled": True, "weights": options.weights, "theta_d": options.theta_d}
    healed["theta_self_contact"] = options.theta_self_contact
    sections = ROUTES[route](options.weights, options.low)
    return usual(input=volume.input, **sections, contacts={"expand_xy": expand}, self_touch=healed)


def loops(volume: Generated, run: Healed) -> list[str]:
    """How many there are, are split, are healed, and are broken."""
    before, after = (np.array(volume.whole(labels), np.bool_) for labels in run.labels())
    return [str(n) for n in (before.size, (~before).sum(), (~before & after).sum(), (before & ~after).sum())]


def options_of() -> Any:
    """Which volumes, routes and settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny_embedding", help="of an embedding net; a shipped name or a path")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2])
    parser.add_argument("--size", type=triple, default=(60, 380, 380), metavar="Z,Y,X")
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=list(ROUTES))
    parser.add_argument("--expand", type=int, nargs="+", default=[0, 1, 2, 3], help="contacts.expand_xy")
    parser.add_argument("--theta-d", type=float, default=1.5)
    parser.add_argument("--theta-self-contact", type=float, default=0.25)
    parser.add_argument("--low", type=float, default=LOW, help="mutex_watershed.low of the route seen")
    parser.add_argument("--folder", type=Path, help="where runs are kept and gone on with; default: nowhere")
    options = parser.parse_args()
    options.weights = weights_at(options.weights)
    return options


if __name__ == "__main__":
    main()
