"""A large run of generated affinities on one machine: time and peak memory of every task's workers, bytes and files.

    python benchmarks/scale_run.py --shape 512,2048,2048 --folder scale     # 2.1 gigavoxels

Memory must be flat: a worker's peak depends on its block and level, not on the volume. So the same script on a smaller
shape shows the same peaks at the same levels.
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

from workers.block import BlockRef
from workers.receipts import Receipts

NEUROTILE = str(Path(sys.executable).with_name("neurotile"))
CONFIG = """
[input.synthetic]
size = {shape}
voxel_size_nm = [30.0, 6.0, 6.0]
[affinities]
offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
[affinities.from_labels]
noise = 0.3
[fragments]
low = 0.2
high = 0.98
size_vx = {size_vx}
[relabel]
threshold = 0.5
[pyramid]
levels = 1
[sweep]
thresholds = []
[blocks]
shape = {block}
chunk = [32, 64, 64]
[workers]
executor = "daisy"
[workers.cpu]
count = {workers}
memory_gb = 8.0
"""


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
    parser.add_argument("--shape", default="512,2048,2048")
    parser.add_argument("--block", default="64,256,256")
    parser.add_argument("--size-vx", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("scale"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    shape, block = ([int(n) for n in text.split(",")] for text in (args.shape, args.block))
    config, out = args.folder / "scale.toml", args.folder / "run"
    config.write_text(CONFIG.format(shape=shape, block=block, size_vx=args.size_vx, workers=args.workers))
    begin = time.perf_counter()
    command = [NEUROTILE, "run", str(config.absolute()), "--out", str(out.absolute()), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - begin
    told = json.loads(done.stdout)
    voxels = shape[0] * shape[1] * shape[2]
    total, files = stored(out)
    print(f"{voxels / 1e9:.2f} gigavoxels, blocks {block}, {args.workers} workers, exit code {done.returncode}")
    print(f"{seconds:.0f} s wall, {voxels / seconds / 1e6:.2f} Mvoxel/s")
    print(f"{total / voxels:.2f} bytes a voxel, {files:,} files")
    print(f"scores: {told.get('scores')}")
    status = json.loads((out / "status.json").read_text())
    receipts = Receipts(out / "journals")
    print("| task | blocks | s | worker s | peak MB of a worker |\n|---|---|---|---|---|")
    for task in status["tasks"]:
        seconds, peak_mb = cost(receipts, task["task"])
        print(f"| {task['task']} | {task['total']} | {task['seconds']:.1f} | {seconds:.0f} | {peak_mb} |")


if __name__ == "__main__":
    main()
