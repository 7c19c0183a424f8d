"""A large run of generated affinities on one machine: time and peak memory of every task's workers, bytes and files.

    python benchmarks/scale_run.py --shape 512,2048,2048 --folder scale     # 2.1 gigavoxels

Memory must be flat: a worker's peak depends on its block and level, not on the volume. So the same script on a smaller
shape shows the same peaks at the same levels. Samples of resident memory are taken every quarter of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

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


class Watch(threading.Thread):
    """Peak resident memory of workers, by task."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.over = str(root.absolute()), threading.Event()
        self.peaks: dict[str, int] = defaultdict(int)

    def run(self) -> None:
        while not self.over.wait(0.25):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                words = process.info["cmdline"] or []
                if "worker" in words and self.root in words and process.info["memory_info"]:
                    task = words[words.index(self.root) + 1]
                    self.peaks[task] = max(self.peaks[task], process.info["memory_info"].rss)


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
    watch = Watch(out)
    watch.start()
    begin = time.perf_counter()
    command = [NEUROTILE, "run", str(config.absolute()), "--out", str(out.absolute()), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - begin
    watch.over.set()
    told = json.loads(done.stdout)
    voxels = shape[0] * shape[1] * shape[2]
    total, files = stored(out)
    print(f"{voxels / 1e9:.2f} gigavoxels, blocks {block}, {args.workers} workers, exit code {done.returncode}")
    print(f"{seconds:.0f} s wall, {voxels / seconds / 1e6:.2f} Mvoxel/s")
    print(f"{total / voxels:.2f} bytes a voxel, {files:,} files")
    print(f"scores: {told.get('scores')}")
    status = json.loads((out / "status.json").read_text())
    print("| task | blocks | s | peak MB of a worker |\n|---|---|---|---|")
    for task in status["tasks"]:
        peak = watch.peaks.get(task["task"], 0) / 1e6
        print(f"| {task['task']} | {task['total']} | {task['seconds']:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
