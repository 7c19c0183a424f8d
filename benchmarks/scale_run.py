"""A large run from generated affinities on one machine: time and peak memory of every task's workers, bytes and files.

    python -m benchmarks.scale_run --tiles 4 4 4 --folder scale     # 2.1 gigavoxels

Neurites of 128 x 512 x 512 voxels with noisy affinities are generated once and repeated along every axis (links to the
same chunks), since generating takes longer than segmenting. At a seam, edges lead where the next voxels of the
generated volume were, so things meet there by chance; blocks are cut across seams and inside alike.

Memory must be flat: a worker's peak depends on its block and level, not on the volume. So the same script with fewer
tiles shows the same peaks at the same levels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from pipeline.geometry import Box, Index
from pipeline.ops.noisy_affinities import Recipe, noisy_affinities
from pipeline.ops.synthesize import generate
from workers.block import BlockRef
from workers.receipts import Receipts

NEUROTILE = str(Path(sys.executable).with_name("neurotile"))
BASE: Index = (128, 512, 512)
CHUNK: Index = (32, 128, 128)
NEAREST: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
VOXEL_NM = (30.0, 6.0, 6.0)
CONFIG = """
[affinities]
path = "affinities.zarr"
offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
voxel_size_nm = [30.0, 6.0, 6.0]
[fragments]
low = 0.2
high = 0.98
size_vx = {size_vx}
[relabel]
threshold = 0.2
[pyramid]
levels = 1
[blocks]
shape = {block}
chunk = [32, 64, 64]
[workers]
executor = "daisy"
[workers.cpu]
count = {workers}
memory_gb = 8.0
[limits]
disk_gb = 1000.0  # the plan's bound is of what is stored before compression
"""


def make_affinities(folder: Path, tiles: Index) -> Index:
    """A zarr array of uint8 affinities; its shape in voxels."""
    box = Box.of_shape(BASE).shift((1, 1, 1))  # not at the generated volume's border, where there are no edges
    whole: Index = (BASE[0] + 1, BASE[1] + 1, BASE[2] + 1)
    recipe = Recipe(NEAREST, 0, 0.3, (1, 3, 3), (5, 1, 1))
    around = box.grow(*recipe.halo).clip(Box.of_shape(whole))
    _, labels = generate(around, seed=0, shape=whole, voxel_size_nm=VOXEL_NM, self_touching=False)
    codes_CZYX = (noisy_affinities(labels, around, box, recipe) >> 8).astype(np.uint8)
    z, y, x = (n * t for n, t in zip(BASE, tiles, strict=True))
    path = folder / "affinities.zarr"
    array = zarr.create_array(path, shape=(3, z, y, x), dtype="u1", chunks=(3, *CHUNK), overwrite=True)
    array.attrs.update(voxel_size=[30, 6, 6], offset=[0, 0, 0], axis_names=["c^", "z", "y", "x"], units=["nm"] * 3)
    array[:, : BASE[0], : BASE[1], : BASE[2]] = codes_CZYX
    chunks = [b // c for b, c in zip(BASE, CHUNK, strict=True)]
    for tile in list(np.ndindex(tiles))[1:]:
        for first in np.ndindex(*chunks):
            to = path.joinpath("c", "0", *(str(i + t * n) for i, t, n in zip(first, tile, chunks, strict=True)))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.hardlink_to(path.joinpath("c", "0", *map(str, first)))
    return z, y, x


class Cost(NamedTuple):
    """What the blocks of a task took."""

    seconds: float  # of workers: with one thread each, about core seconds
    peak_mb: int  # of the worker that needed most


def cost(receipts: Receipts, task: str) -> Cost:
    """From the receipts of a task; a worker's peak is reset when it begins a task."""
    records = [receipts.record(BlockRef(task, index)) for index, _ in receipts.held(task)]
    return Cost(sum(r["seconds"] for r in records), max((r["peak_mb"] for r in records), default=0))


def stored(folder: Path) -> tuple[int, int]:
    """Bytes and files below a folder."""
    sizes = [os.lstat(Path(place) / name).st_size for place, _, names in os.walk(folder) for name in names]
    return sum(sizes), len(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs=3, default=(4, 4, 4))
    parser.add_argument("--block", default="64,256,256")
    parser.add_argument("--size-vx", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("scale"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    block = [int(n) for n in args.block.split(",")]
    shape = make_affinities(args.folder, tuple(args.tiles))
    config, out = args.folder / "scale.toml", args.folder / "run"
    config.write_text(CONFIG.format(block=block, size_vx=args.size_vx, workers=args.workers))
    begin = time.perf_counter()
    command = [NEUROTILE, "run", str(config.absolute()), "--out", str(out.absolute()), "--json"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"the run ended with exit code {done.returncode}")
    voxels = shape[0] * shape[1] * shape[2]
    total, files = stored(out)
    print(f"{voxels / 1e9:.2f} gigavoxels, blocks {block}, {args.workers} workers")
    print(f"{seconds:.0f} s wall, {voxels / seconds / 1e6:.2f} Mvoxel/s")
    print(f"{total / voxels:.2f} bytes a voxel, {files:,} files")
    status = json.loads((out / "status.json").read_text())
    receipts = Receipts(out / "journals")
    print("| task | blocks | s | worker s | peak MB of a worker |\n|---|---|---|---|---|")
    for task in status["tasks"]:
        seconds, peak_mb = cost(receipts, task["task"])
        print(f"| {task['task']} | {task['total']} | {task['seconds']:.1f} | {seconds:.0f} | {peak_mb} |")


if __name__ == "__main__":
    main()
