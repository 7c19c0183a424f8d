"""The held-out volumes, at their stored voxel size and at that of weights.

A volume is a region of a file, cut out: its border is mirrored as that of any volume is, so that nothing is seen of
what a network was trained on. Images and labels get coarser as in a run (ops/resample.py).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import WeightsSpec
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops.resample import first_labels, mean_image
from pipeline.sources import open_source

IMAGE, LABELS = "volumes/raw", "volumes/labels/neuron_ids"


@dataclass(frozen=True)
class Region:
    """Where a volume lies."""

    file: str
    voxel_size_nm: tuple[float, float, float]
    sections: tuple[int, int]


REGIONS = {
    "ac4": Region("ac4.h5", (29, 6, 6), (80, 100)),
    "ac3_val": Region("ac3_val.h5", (29, 6, 6), (0, 40)),
    "fib25": Region("fib25.h5", (8, 8, 8), (140, 170)),
}
CALLED = {"ac4": "AC4 z 80-99", "ac3_val": "AC3 z 110-149", "fib25": "FIB-25 z 140-169"}


@dataclass(frozen=True)
class Volume:
    """Image and labels as they are stored; label 0 is left out of every score."""

    name: str
    voxel_size_nm: tuple[float, float, float]
    image_ZYX: NDArray[np.uint8]
    truth_ZYX: NDArray[np.uint64]

    def factor(self, voxel_size_nm: tuple[float, float, float]) -> Index | None:
        """How many stored voxels make up one of this size; None if it is no whole multiple."""
        return VoxelSize.from_nm(voxel_size_nm).ratio(VoxelSize.from_nm(self.voxel_size_nm))

    def coarse_image(self, factor: Index) -> NDArray[np.uint8]:
        """What a network sees."""
        return mean_image(self.image_ZYX, factor)

    def coarse_truth(self, factor: Index) -> NDArray[np.uint64]:
        """What a run compares its labels with."""
        return first_labels(self.truth_ZYX, factor)


def open_volume(name: str, folder: Path, crop: Index | None = None) -> Volume:
    """A volume in memory; `crop` takes a part from its first voxel on, for trials."""
    region = REGIONS[name]
    image, labels = (open_source(f"{folder / region.file}:{part}") for part in (IMAGE, LABELS))
    (z, z_end), (_, y, x) = region.sections, image.shape
    if crop is not None:
        z_end, y, x = min(z_end, z + crop[0]), min(y, crop[1]), min(x, crop[2])
    box = Box((z, 0, 0), (z_end, y, x))
    return Volume(name, region.voxel_size_nm, image.read(box), labels.read(box).astype(np.uint64))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which volumes."""
    parser.add_argument("--data", type=Path, default=os.environ.get("NEUROTILE_DATA"), help="folder of the volumes")
    parser.add_argument("--volumes", nargs="+", choices=list(REGIONS), default=list(REGIONS))
    parser.add_argument("--crop", type=int, nargs=3, metavar=("Z", "Y", "X"), help="a part only, in stored voxels")


def volumes_of(options: Any) -> list[Volume]:
    """The volumes that were asked for."""
    if options.data is None:
        raise SystemExit("name the folder of the volumes: --data FOLDER, or $NEUROTILE_DATA")
    crop = tuple(options.crop) if options.crop else None
    return [open_volume(name, options.data, crop) for name in options.volumes]


def fitting(spec: WeightsSpec, volumes: list[Volume]) -> list[tuple[Volume, Index]]:
    """The volumes whose voxels make up those of weights, and how many do."""
    factors = [(volume, volume.factor(spec.voxel_size_nm)) for volume in volumes]
    found = [(volume, factor) for volume, factor in factors if factor is not None]
    if not found:
        raise SystemExit(f"no volume has voxels that make up {spec.voxel_size_nm} nm")
    return found
