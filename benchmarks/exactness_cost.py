"""What exactness over the hierarchy of blocks costs: CPU of all blocks and levels together against one block.

Both run the same ops in memory, from uint8 codes to final labels, without files: once with the whole volume as a single
block, once with a grid of blocks. The labels must be equal, or the script ends with an error. Aim: at most 1.5 times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import expand_labels

from benchmarks.kernels.data import ANISOTROPY, HIGH, LOW, REACH_NM, SIZE_VX, affinities_of
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import agglomerate as tree
from pipeline.ops import faces, pieces
from pipeline.ops.fragments import HALO, watershed
from pipeline.ops.pieces import Rules
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.synthesize import generate

Codes = NDArray[np.uint8]
U64 = NDArray[np.uint64]
DEFAULT, FULL = (64, 512, 512), (128, 1024, 1024)
BLOCK = (32, 256, 256)
TABLE = np.arange(256) * 257
FLOOR = 0.5 * 65535
AIM = 1.5


def fragments(codes_CZYX: Codes, block: Index) -> U64:
    """Watershed with linking, level by level and down again."""
    roi = Box.of_shape(codes_CZYX.shape[1:])
    grids = Grid(roi, block).levels
    rules = Rules(SIZE_VX, 0)
    cut = {}
    for index in grids[0]:
        box = grids[0].block_box(index)
        codes = np.ascontiguousarray(codes_CZYX[(slice(None), *box.grow(HALO).clip(roi).slices())])
        thresholds = (int(256 * LOW), int(256 * HIGH))
        internal = grids[0].internal_faces(index)
        cut[index] = watershed(codes, box, roi, codes=thresholds, internal=internal, size_vx=SIZE_VX)
    up = [{index: pieces.close(found.part, rules) for index, found in cut.items()}]
    for finer, grid in pairwise(grids):
        level = {}
        for index in grid:
            parts = [up[-1][child].part for child in finer.children(index)]
            internal = grid.internal_faces(index)
            level[index] = pieces.join(parts, grid.block_box(index), internal=internal, roi=roi, rules=rules)
        up.append(level)
    final = {index: (top.old, top.new) for index, top in up[-1].items()}
    for level in reversed(up[:-1]):
        above, final = final, {}
        for (z, y, x), joined in level.items():
            parent = above[z // 2, y // 2, x // 2]
            final[z, y, x] = pieces.compose(joined.old, joined.new, joined.part.nodes.name, parent=parent)
    labels_ZYX = np.empty(roi.shape, np.uint64)
    for index, found in cut.items():
        labels_ZYX[grids[0].block_box(index).slices()] = rename(found.labels_ZYX, *final[index])
    return labels_ZYX


def region_graphs(labels_ZYX: U64, codes_CZYX: Codes, block: Index) -> dict[Index, tree.Part]:
    """The graph of every block."""
    roi = Box.of_shape(labels_ZYX.shape)
    grid = Grid(roi, block)
    parts = {}
    for index in grid:
        box = grid.block_box(index)
        inside = box.slices()
        before = {}
        for axis, side in enumerate(faces.LOW):
            if index[axis]:
                where: list[slice | int] = list(inside)
                where[axis] = inside[axis].start - 1
                before[side] = np.ascontiguousarray(labels_ZYX[tuple(where)])
        labels, codes = (np.ascontiguousarray(a) for a in (labels_ZYX[inside], codes_CZYX[(slice(None), *inside)]))
        place = Place(box.begin, roi.shape)
        found = contacts(labels, codes, before, code_table=TABLE, place=place)
        own = nodes(labels, grid.internal_faces(index))
        low = (found["low_z"], found["low_y"], found["low_x"])
        parts[index] = tree.Part(box, own.name, own.mask, found["inner"], low)
    return parts


def agglomerated(labels_ZYX: U64, parts: dict[Index, tree.Part], block: Index) -> U64:
    """Mean affinity, level by level; the labels at the floor."""
    grids = Grid(Box.of_shape(labels_ZYX.shape), block).levels
    done = {index: tree.agglomerate([part], part.box, floor=FLOOR) for index, part in parts.items()}
    trees = [found.tree for found in done.values()]
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        above = {}
        for index in grid:
            children = [done[child].part for child in finer.children(index)]
            above[index] = tree.agglomerate(children, grid.block_box(index), floor=FLOOR, level=level)
        trees += [found.tree for found in above.values()]
        done = above
    a, b, score = (np.concatenate([getattr(t, name) for t in trees]) for name in ("a", "b", "score"))
    return rename(labels_ZYX, *segments(a, b, score, FLOOR))


def compare(what: str, run: Callable[[Index], Any], shape: Index, block: Index, repeats: int) -> tuple[Any, Any]:
    """Least CPU of both ways, taken in turn; prints a row and gives both results."""
    spent: dict[Index, list[float]] = {shape: [], block: []}
    results = {}
    for _ in range(repeats):
        for cut, seconds in spent.items():
            begin = time.process_time()
            results[cut] = run(cut)
            seconds.append(time.process_time() - begin)
    whole, blocks = min(spent[shape]), min(spent[block])
    verdict = "PASS" if blocks <= AIM * whole else "short"
    print(f"| {what} | {whole:.2f} | {blocks:.2f} | {blocks / whole:.2f} | {verdict} |", flush=True)
    return results[shape], results[block]


def check_equal(one: U64, other: U64, what: str) -> None:
    if not np.array_equal(one, other):
        raise SystemExit(f"{what}: the labels differ in {np.count_nonzero(one != other):,} voxels")


def measure(codes_CZYX: Codes, block: Index, repeats: int) -> None:
    shape: Index = codes_CZYX.shape[1:]  # type: ignore[assignment]
    whole, blocks = compare("watershed", lambda cut: fragments(codes_CZYX, cut), shape, block, repeats)
    check_equal(whole, blocks, "watershed")
    del blocks
    graphs = compare("region graph", lambda cut: region_graphs(whole, codes_CZYX, cut), shape, block, repeats)
    graph_of = dict(zip((shape, block), graphs, strict=True))
    merged = compare("agglomeration", lambda cut: agglomerated(whole, graph_of[cut], cut), shape, block, repeats)
    check_equal(*merged, "agglomeration")
    found = [np.unique(labels).size for labels in (whole, merged[0])]
    print(f"\nEqual labels: {found[0]:,} fragments, {found[1]:,} segments.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL} voxels instead of {DEFAULT}")
    parser.add_argument("--shape", type=int, nargs=3, help="any other shape")
    parser.add_argument("--block", type=int, nargs=3, default=BLOCK)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    shape = tuple(options.shape or (FULL if options.full else DEFAULT))
    _, truth_ZYX = generate(Box.of_shape(shape), seed=7, shape=shape, voxel_size_nm=ANISOTROPY)
    dense = np.unique(truth_ZYX, return_inverse=True)[1].reshape(shape).astype(np.int32)
    codes_CZYX = (affinities_of(expand_labels(dense, REACH_NM, ANISOTROPY), 3) * 255).astype(np.uint8)
    corner = np.ascontiguousarray(codes_CZYX[:, :16, :64, :64])
    for block in (corner.shape[1:], (8, 32, 32)):  # compile
        labels = fragments(corner, block)
        agglomerated(labels, region_graphs(labels, corner, block), block)
    print(f"{'x'.join(map(str, shape))} voxels, blocks of {'x'.join(map(str, options.block))}\n")
    print("| | one block, CPU s | all blocks and levels, CPU s | ratio | |\n|---|---|---|---|---|")
    measure(codes_CZYX, tuple(options.block), options.repeats)


if __name__ == "__main__":
    main()
