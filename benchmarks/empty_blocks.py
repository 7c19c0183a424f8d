"""Blocks per second for blocks that do nothing, with receipts on: the fixed cost of a block.

Runs the real daisy executor, block loop, journal and receipts over an empty task: 10^4 and 10^5 blocks, one and two
workers. For scale, the same loop with one process and no scheduler, and a bare append + fdatasync on the same disk.
Prints wall time, CPU time of scheduler and workers, the scheduler's peak memory and the inodes per block.

    python benchmarks/empty_blocks.py [--blocks 10000 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.block import Index
from workers.executors.daisy_executor import DaisyExecutor, claims_from_daisy
from workers.executors.job import Job
from workers.executors.serial import SerialExecutor
from workers.journal import SUFFIX, Journal
from workers.loop import BlockLoop, Identity
from workers.receipts import Receipts

TASK = "empty/blocks"


class Nothing:
    """A task whose blocks are empty."""

    task = TASK

    def identity(self, index: Index) -> Identity:
        return Identity("c" * 64, "l" * 64, "r" * 64)

    def overwrites(self, index: Index) -> bool:
        return False

    def read(self, index: Index) -> Any:
        return 0

    def compute(self, inputs: Any) -> Any:
        return inputs

    def write(self, index: Index, outputs: Any) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        return {"out": "d" * 64}, {}

    def bundle(self, index: Index, error: BaseException, inputs: Any) -> str:
        return ""


def work(folder: Path) -> None:
    """A worker process."""
    with Journal(folder / f"000001-{os.getpid()}{SUFFIX}") as journal:
        BlockLoop(Nothing(), journal, epoch=1).run(claims_from_daisy(3), read_ahead=True)


def measure(executor: Any, blocks: int, workers: int, folder: Path) -> dict[str, float]:
    """One run: executor over `blocks` empty blocks."""
    side = round(blocks ** (1 / 3))
    grid = (blocks // (side * side) + 1, side, side)
    ready = [(z, y, x) for z in range(grid[0]) for y in range(side) for x in range(side)][:blocks]
    with Journal(folder / f"000001-serial{SUFFIX}") as journal:
        job = Job(
            task=TASK,
            grid=grid,
            ready=ready,
            in_process=lambda c: BlockLoop(Nothing(), journal, epoch=1).run(c, read_ahead=False),
            argv=(sys.executable, __file__, "--worker", str(folder)),
            environment={},
            logs=folder / "logs",
            workers=workers,
            timeout_s=3600,
            deaths_allowed=0,
        )
        before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        began = time.perf_counter()
        executor.run(job, lambda: None)
        wall = time.perf_counter() - began
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = [a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True)]
    began = time.perf_counter()
    receipts = Receipts(folder)
    loading = time.perf_counter() - began
    assert sum(1 for _ in receipts.held(TASK)) == blocks
    inodes = sum(len(files) + 1 for _, _, files in os.walk(folder))
    return {
        "wall": wall,
        "scheduler_cpu": cpu[0],
        "worker_cpu": cpu[1],
        "peak_mb": after[0].ru_maxrss / 1024,
        "loading": loading,
        "inodes": inodes / blocks,
    }


def bare_syncs(folder: Path, count: int = 2000) -> float:
    """Appends with fdatasync per second, with nothing around them."""
    with Journal(folder / f"bare{SUFFIX}") as journal:
        began = time.perf_counter()
        for number in range(count):
            journal.append({"n": number})
        return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--worker", type=Path, default=None)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.worker)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(f"bare append + fdatasync: {bare_syncs(Path(folder)):,.0f} per second")
    print("| blocks | executor | wall s | blocks/s | scheduler CPU s | workers CPU s | us CPU/block | "
          "scheduler peak MB | receipts read in s | inodes/block |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for blocks in options.blocks:
        for name, executor, workers in (
            ("serial", SerialExecutor(), 1),
            ("daisy, 1 worker", DaisyExecutor(), 1),
            ("daisy, 2 workers", DaisyExecutor(), 2),
        ):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                m = measure(executor, blocks, workers, Path(folder))
            cpu = (m["scheduler_cpu"] + m["worker_cpu"]) / blocks * 1e6
            print(
                f"| {blocks:,} | {name} | {m['wall']:.1f} | {blocks / m['wall']:,.0f} | {m['scheduler_cpu']:.1f} | "
                f"{m['worker_cpu']:.1f} | {cpu:.0f} | {m['peak_mb']:.0f} | {m['loading']:.2f} | {m['inodes']:.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
