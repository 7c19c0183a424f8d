"""From affinities to a segmentation, end to end, beside volara: the same file, the same number of workers, one run.

Needs an environment of volara's own (its scheduler is an older daisy than ours):
    python -m venv volara-env && volara-env/bin/pip install volara
    python benchmarks/volara/compare.py --volara volara-env/bin/python
Affinities are generated from generated labels plus noise (seeded); both results are scored against those labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.geometry import Box, Grid
from pipeline.ops.evaluate import pairs, scores
from pipeline.ops.noisy_affinities import Recipe, noisy_affinities
from pipeline.ops.synthesize import generate

VOXEL_NM = (30, 6, 6)
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FAR = ((-2, 0, 0), (0, -5, 0), (0, 0, -5), (0, -9, 0), (0, 0, -9), (-1, -5, 0))
OFFSETS = NEAREST + FAR
BLOCK = (64, 256, 256)
NEUROTILE = str(Path(sys.executable).with_name("neurotile"))

WATERSHED = """
[affinities]
channels = [0, 1, 2]
offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
{source}
[fragments]
low = 0.2
high = 0.98
size_vx = 100
[relabel]
threshold = 0.2
"""
MUTEX = """
[affinities]
offsets = {offsets}
{source}
[fragments]
method = "mutex_watershed"
[mutex_watershed]
mode = "tiles"
tile = [32, 128, 128]
halo = [4, 16, 16]
strides = [1, 3, 3]
[agglomerate]
floor = 0.1
[relabel]
threshold = 0.2
"""
SOURCE = """path = "affinities.zarr"
voxel_size_nm = [30.0, 6.0, 6.0]
"""
CONFIG = """
[blocks]
shape = [32, 256, 256]
chunk = [32, 64, 64]
[pyramid]
levels = 0
"""


def make_volume(folder: Path, shape: tuple[int, int, int], noise: float) -> None:
    """Affinities (uint8, zarr v3, one chunk a block) and the labels behind them."""
    box = Box.of_shape(shape)
    recipe = Recipe(OFFSETS, 0, noise, (1, 3, 3), (5, 1, 1))
    store: dict[str, Any] = {
        "chunks": (1, *(min(b, s) for b, s in zip((32, 64, 64), shape, strict=True))),
        "overwrite": True,
    }
    affinities = zarr.create_array(folder / "affinities.zarr", shape=(len(OFFSETS), *shape), dtype="u1", **store)
    truth = zarr.create_array(
        folder / "truth.zarr", shape=shape, dtype="u8", chunks=store["chunks"][1:], overwrite=True
    )
    for array in (affinities, truth):
        axes = ["c^", "z", "y", "x"][-array.ndim :]
        array.attrs.update(voxel_size=list(VOXEL_NM), offset=[0, 0, 0], axis_names=axes, units=["nm"] * 3)
    for index in Grid(box, (32, 128, 128)):
        block = Grid(box, (32, 128, 128)).block_box(index)
        around = block.grow(*recipe.halo).clip(box)
        _, labels = generate(around, seed=0, shape=shape, voxel_size_nm=VOXEL_NM, self_touching=False)
        made = noisy_affinities(labels, around, block, recipe)
        affinities[(slice(None), *block.slices())] = (made >> 8).astype(np.uint8)
        truth[block.slices()] = labels[block.slices(around.begin)]


def run_neurotile(folder: Path, name: str, method: str, workers: int) -> dict[str, Any]:
    config = folder / f"{name}.toml"
    config.write_text(method.format(offsets=[list(o) for o in OFFSETS], source=SOURCE) + CONFIG)
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    told = subprocess.run(
        [NEUROTILE, "run", str(config), "--out", str(out), "--workers", str(workers), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {"seconds": time.perf_counter() - begin, "labels": json.loads(told.stdout)["segmentation"]}


def run_volara(folder: Path, python: str, workers: int) -> dict[str, Any]:
    place = folder / "volara"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    settings = {
        "folder": str(place),
        "affinities": str(folder / "affinities.zarr"),
        "offsets": OFFSETS,
        "block": BLOCK,
        "context": (2, 16, 16),
        "strides": (1, 3, 3),
        "near_bias": -0.3,
        "far_bias": -0.7,
        "workers": workers,
    }
    begin = time.perf_counter()
    script = str(Path(__file__).with_name("volara_side.py"))
    told = subprocess.run(
        [python, script, json.dumps(settings)], check=True, stdout=subprocess.PIPE, text=True, cwd=place
    )
    found = json.loads(told.stdout.strip().splitlines()[-1])
    return {"seconds": time.perf_counter() - begin, "labels": found["segments"], "steps": found["seconds"]}


def voi(folder: Path, labels: str) -> dict[str, Any]:
    truth = zarr.open_array(folder / "truth.zarr", mode="r")[:]
    group = zarr.open(labels, mode="r")
    found = group if isinstance(group, zarr.Array) else group["s0"]
    return dict(scores(pairs(truth, np.asarray(found[:], np.uint64))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volara", required=True, help="python of volara's environment")
    parser.add_argument("--shape", default="128,512,512")
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("volara-comparison"))
    parser.add_argument("--no-tiles", action="store_true", help="leave the mutex watershed on tiles out")
    args = parser.parse_args()
    z, y, x = (int(n) for n in args.shape.split(","))
    args.folder.mkdir(parents=True, exist_ok=True)
    make_volume(args.folder, (z, y, x), args.noise)
    methods = {"watershed and mean affinity": ("watershed", WATERSHED), "mutex watershed on tiles": ("tiles", MUTEX)}
    if args.no_tiles:
        del methods["mutex watershed on tiles"]
    results = {f"neurotile, {told}": run_neurotile(args.folder, *m, args.workers) for told, m in methods.items()}
    results["volara"] = run_volara(args.folder, args.volara, args.workers)
    print(f"{z}x{y}x{x} voxels, {len(OFFSETS)} channels of uint8, {args.workers} workers")
    for name, result in results.items():
        found = voi(args.folder, result["labels"])
        ratio = results["volara"]["seconds"] / result["seconds"]
        print(
            f"{name}: {result['seconds']:.1f} s ({ratio:.1f}x), VOI {found['voi']:.3f} bits "
            f"(split {found['voi_split']:.3f}, merge {found['voi_merge']:.3f})"
        )
    print("volara by step: " + ", ".join(f"{k} {v:.1f} s" for k, v in results["volara"]["steps"].items()))


if __name__ == "__main__":
    main()
