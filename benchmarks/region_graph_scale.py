"""Agglomeration at scale: edges per second and memory of the hierarchy.

A region graph is made chunk by chunk (nodes on a lattice, three edges a node, likely clusters of 7 x 7 x 7 nodes,
hashed scores that no chunking changes) and walked up the hierarchy, parts in files, as the stage does. Times are CPU
times, of all workers together.

    python benchmarks/region_graph_scale.py [--side 216] [--chunk 72] [--workers 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import pickle
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from pipeline.geometry import Box, Grid, Index
from pipeline.ops.agglomerate import Part, agglomerate
from pipeline.ops.edges import Edges

CLUSTER = 7  # nodes along the edge of a likely cluster
FLOOR = 0.5
FULL_SCALE = 65535


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Random bits of numbers."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ numbers >> np.uint64(31)) * np.uint64(0x7FB5D329728EA185)
        numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x81DADEF4BC2DD44D)
    return numbers ^ numbers >> np.uint64(33)


def lattice_edges(axis: int, box: Box, shape: Index) -> Edges:
    """The edges of one axis that are stored at the nodes of a box."""
    where = [np.arange(b, e).astype(np.uint64) for b, e in zip(box.begin, box.end, strict=True)]
    z, y, x = where[0][:, None, None], where[1][:, None], where[2]
    upper = (1 + (z * np.uint64(shape[1]) + y) * np.uint64(shape[2]) + x).reshape(-1)
    lower = upper - np.uint64((shape[1] * shape[2], shape[2], 1)[axis])
    inside = (where[axis] % np.uint64(CLUSTER) > 0).reshape([-1 if a == axis else 1 for a in range(3)])
    inside = np.broadcast_to(inside, box.shape).reshape(-1)
    bits = mixed(upper * np.uint64(3) + np.uint64(axis))
    noise = sum((bits >> np.uint64(s) & np.uint64(0xFFF)).astype(np.float64) for s in (0, 12, 24)) / 4096 - 1.5
    score = np.clip(np.where(inside, 0.75, 0.3) + 0.36 * noise, 0, 1)
    count = (1 + (bits >> np.uint64(40)) % np.uint64(200)).astype(np.int64)
    tie = np.uint64(axis) << np.uint64(58) | upper
    return Edges(lower, upper, (score * FULL_SCALE).astype(np.int64) * count, count, tie)


def lattice_part(grid: Grid, index: Index) -> Part:
    """The graph of one chunk at level 0."""
    box, shape = grid.block_box(index), grid.box.shape
    inner, low = [], []
    for axis in range(3):
        begin = tuple(b + (a == axis) for a, b in enumerate(box.begin))
        inner.append(lattice_edges(axis, Box(begin, box.end), shape))
        end = tuple(b + 1 if a == axis else e for a, (b, e) in enumerate(zip(box.begin, box.end, strict=True)))
        crossing = lattice_edges(axis, Box(box.begin, end), shape)
        low.append(crossing if index[axis] else crossing.take(np.arange(0)))
    z, y, x = np.meshgrid(*(np.arange(b, e) for b, e in zip(box.begin, box.end, strict=True)), indexing="ij")
    name = 1 + (z * shape[1] + y) * shape[2] + x
    mask = np.zeros(name.shape, np.uint8)
    for axis in range(3):
        sides = np.moveaxis(mask, axis, 0)
        sides[0] |= 1 << 2 * axis
        sides[-1] |= 2 << 2 * axis
    mask &= grid.internal_faces(index)
    columns = [np.concatenate([getattr(e, c) for e in inner]) for c in ("a", "b", "total", "count", "tie")]
    return Part(box, name.reshape(-1).astype(np.uint64), mask.reshape(-1), Edges(*columns), (low[0], low[1], low[2]))


def step(task: tuple[Path, tuple[Grid, ...], int, Index]) -> dict[str, float]:
    """One chunk: from its children's files to its own."""
    folder, grids, level, index = task
    started = time.process_time()
    if level:
        children = [folder / f"{level - 1}-{child}" for child in grids[level - 1].children(index)]
        parts = [pickle.loads(path.read_bytes()) for path in children]  # noqa: S301 - own files of this run
    else:
        parts = [lattice_part(grids[0], index)]
    read = time.process_time()
    found = agglomerate(parts, grids[level].block_box(index), floor=FLOOR * FULL_SCALE, level=level)
    done = time.process_time()
    (folder / f"{level}-{index}").write_bytes(pickle.dumps(found.part, protocol=5))
    return {
        "edges in": sum(p.edges.size + sum(c.size for c in p.low) for p in parts),
        "nodes up": found.part.name.size,
        "edges up": found.part.edges.size + sum(c.size for c in found.part.low),
        "merges": found.tree.a.size,
        "in/out s": read - started + time.process_time() - done,
        "agglomerate s": done - read,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def run_edges(side: int, chunk: int, workers: int, folder: Path) -> None:
    grids = Grid(Box.of_shape((side, side, side)), (chunk, chunk, chunk)).levels
    total = 3 * side**2 * (side - 1)
    started = time.perf_counter()
    spent = 0.0
    print(f"{total:,} edges, {side**3:,} nodes, {grids[0].count} chunks of {3 * chunk**3:,} edges, {workers} workers")
    print("| level | chunks | edges in | nodes up | edges up | merges | in/out CPU s | agglomerate CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(step, [(folder, Grid(Box.of_shape((8, 8, 8)), (8, 8, 8)).levels, 0, (0, 0, 0))] * workers))
        for level, grid in enumerate(grids):
            rows = list(pool.map(step, [(folder, grids, level, index) for index in grid]))
            cells = {key: sum(row[key] for row in rows) for key in rows[0]}
            spent += cells["agglomerate s"]
            counts = " | ".join(f"{cells[key]:,}" for key in ("edges in", "nodes up", "edges up", "merges"))
            times = f"{cells['in/out s']:.1f} | {cells['agglomerate s']:.1f}"
            peak = max(row["peak MB"] for row in rows)
            print(f"| {level} | {len(rows)} | {counts} | {times} | {peak:,.0f} |", flush=True)
            for path in folder.glob(f"{level - 1}-*"):
                path.unlink()
    wall = time.perf_counter() - started
    print(f"{spent:.0f} CPU s in agglomerate: {total / spent / 1e6:.2f} Medges a CPU second; wall {wall:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=216, help="nodes along each axis")
    parser.add_argument("--chunk", type=int, default=72, help="nodes along each axis of a chunk at level 0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run_edges(options.side, options.chunk, options.workers, Path(folder))


if __name__ == "__main__":
    main()
