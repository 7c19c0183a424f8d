"""Agglomeration at scale: edges per second and memory of the hierarchy, and what reaches the root.

`edges` makes a region graph chunk by chunk (nodes on a lattice, three edges a node, likely clusters of 7 x 7 x 7
nodes, hashed scores that no chunking changes) and walks it up the hierarchy, parts in files, as the stage does.
`residual` cuts generated volumes (Voronoi cells, noisy affinities) into fragments and prints, for floors of 0.1 to
0.9, how many nodes and edges every level hands up. Times are CPU times, of all workers together.

    python benchmarks/region_graph_scale.py edges [--side 216] [--chunk 72] [--workers 2] [--folder DIR]
    python benchmarks/region_graph_scale.py residual
"""

from __future__ import annotations

import argparse
import pickle
import resource
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import ndimage, spatial

from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.agglomerate import Agglomerated, Part, agglomerate
from pipeline.ops.edges import Edges
from pipeline.ops.fragments import watershed
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments

CLUSTER = 7  # nodes along the edge of a likely cluster
FLOOR = 0.5
FULL_SCALE = 65535
SHAPES: tuple[Index, ...] = ((32, 128, 128), (64, 256, 256), (96, 384, 384))
BLOCK: Index = (32, 96, 96)


# ---- a large graph --------------------------------------------------------------------------------------------------
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


# ---- what reaches the root ------------------------------------------------------------------------------------------
def cells(shape: Index, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fragments and codes of a generated volume: Voronoi cells five voxels flatter in z, noise in two grains."""
    scale = np.array([5, 1, 1])
    seeds = rng.random((max(int(np.prod(shape)) // 20000, 4), 3)) * np.array(shape) * scale
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3) * scale
    truth = spatial.cKDTree(seeds).query(grid)[1].reshape(shape)
    codes = np.zeros((3, *shape), np.uint8)
    for axis in range(3):
        same = truth == np.roll(truth, 1, axis)
        coarse = ndimage.gaussian_filter(rng.standard_normal(shape), (1, 4, 4))
        noise = 1.5 * coarse / coarse.std() + 0.7 * rng.standard_normal(shape)
        affinity = 1 / (1 + np.exp(-(np.where(same, 2.5, -2.5) + noise)))
        codes[axis] = np.round(affinity * 255)
        np.moveaxis(codes[axis], axis, 0)[0] = 0
    box = Box.of_shape(shape)
    return watershed(codes, box, box, codes=(5, 255), internal=0).labels_ZYX, codes


def parts_of(labels: np.ndarray, codes: np.ndarray, grid: Grid) -> Iterable[tuple[Index, Part]]:
    """The graphs of all blocks."""
    for index in grid:
        box = grid.block_box(index)
        inside = box.slices(grid.box.begin)
        before = {}
        for axis, side in enumerate(faces.LOW):
            if index[axis]:
                where: list[slice | int] = list(inside)
                where[axis] = box.begin[axis] - 1
                before[side] = labels[tuple(where)]
        own = np.ascontiguousarray(labels[inside])
        place = Place(box.begin, grid.box.shape)
        block_CZYX = np.ascontiguousarray(codes[(slice(None), *inside)])
        found = contacts(own, block_CZYX, before, code_table=np.arange(256) * 257, place=place)
        mine = nodes(own, grid.internal_faces(index))
        low = (found["low_z"], found["low_y"], found["low_x"])
        yield index, Part(box, mine.name, mine.mask, found["inner"], low)


def climb(parts: dict[Index, Part], grids: tuple[Grid, ...], floor: float) -> tuple[list[list[Agglomerated]], int]:
    """All levels; and how many edges the root had to look at."""
    done = {i: agglomerate([part], part.box, floor=floor) for i, part in parts.items()}
    levels = [list(done.values())]
    root = sum(part.edges.size for part in parts.values())
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        below = {index: [done[child].part for child in finer.children(index)] for index in grid}
        root = max(sum(p.edges.size + sum(c.size for c in p.low) for p in children) for children in below.values())
        done = {i: agglomerate(c, grid.block_box(i), floor=floor, level=level) for i, c in below.items()}
        levels.append(list(done.values()))
    return levels, root


def run_residual() -> None:
    print("| volume | fragments | edges | floor | nodes up, by level | edges up, by level | at root | largest % |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        labels, codes = cells(shape, np.random.default_rng(0))
        grids = Grid(Box.of_shape(shape), BLOCK).levels
        parts = dict(parts_of(labels, codes, grids[0]))
        fragments = np.unique(labels).size - 1
        count = sum(p.edges.size + sum(c.size for c in p.low) for p in parts.values())
        for tenth in range(1, 10):
            floor = tenth / 10 * FULL_SCALE
            levels, root = climb(parts, grids, floor)
            trees = [found.tree for level in levels for found in level]
            a, b, score = (np.concatenate([getattr(t, column) for t in trees]) for column in ("a", "b", "score"))
            segmented = rename(labels, *segments(a, b, score, floor))
            largest = np.unique(segmented[segmented > 0], return_counts=True)[1].max() / segmented.size
            up = [sum(f.part.name.size for f in level) for level in levels[:-1]]
            over = [sum(f.part.edges.size for f in level) for level in levels[:-1]]
            rows = f"{' '.join(f'{n:,}' for n in up)} | {' '.join(f'{n:,}' for n in over)} | {root:,}"
            size = "x".join(map(str, shape))
            print(f"| {size} | {fragments:,} | {count:,} | {tenth / 10} | {rows} | {100 * largest:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["edges", "residual"])
    parser.add_argument("--side", type=int, default=216, help="nodes along each axis")
    parser.add_argument("--chunk", type=int, default=72, help="nodes along each axis of a chunk at level 0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.what == "residual":
        run_residual()
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run_edges(options.side, options.chunk, options.workers, Path(folder))


if __name__ == "__main__":
    main()
