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

from benchmarks.kernels.data import ANISOTROPY, HIGH, LOW, NEAREST, OFFSETS, REACH_NM, SIZE_VX, affinities_of
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import agglomerate as tree
from pipeline.ops import faces, pieces
from pipeline.ops.fragments import HALO, watershed
from pipeline.ops.mutex_graph import Final, Joined, closed_here, finish, join
from pipeline.ops.mutex_scan import Edges, Place, Strengths
from pipeline.ops.mutex_tiles import Tiling, cut_tiles, fragment_chunk
from pipeline.ops.pieces import Rules
from pipeline.ops.region_graph import Place as GraphPlace
from pipeline.ops.region_graph import contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.synthesize import generate

Codes = NDArray[np.uint8]
U64 = NDArray[np.uint64]
DEFAULT, FULL = (64, 512, 512), (128, 1024, 1024)
BLOCK = (32, 256, 256)
TABLE = np.arange(256) * 257
FLOOR = 0.5 * 65535
AIM = 1.5
TILE, TILE_HALO = (32, 128, 128), (4, 16, 16)
EDGES = Edges(OFFSETS, len(NEAREST))


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
        place = GraphPlace(box.begin, roi.shape)
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


def on_tiles(codes_CZYX: Codes, block: Index) -> U64:
    """Mutex watershed of tiles, then of the graph of their fragments, level by level and down again."""
    roi = Box.of_shape(codes_CZYX.shape[1:])
    grids = Grid(roi, block).levels
    tiling = Tiling(Grid(roi, TILE), TILE_HALO)
    cut_ZYX = np.empty(roi.shape, np.uint64)
    for index in grids[0]:
        box = grids[0].block_box(index)
        seen = np.ascontiguousarray(codes_CZYX[(slice(None), *tiling.seen(box).slices())])
        cut_ZYX[box.slices()] = cut_tiles(seen, box, tiling, EDGES, code_table=TABLE, low=0).labels_ZYX
    levels: list[dict[Index, Joined]] = [{}]
    for index in grids[0]:
        box = grids[0].block_box(index)
        around = box.grow(EDGES.reach).clip(roi)
        strengths = Strengths.of_codes(codes_CZYX[(slice(None), *around.slices())], TABLE, 0)
        labels_ZYX = np.ascontiguousarray(cut_ZYX[around.slices()])
        levels[0][index] = fragment_chunk(labels_ZYX, strengths, EDGES, Place(box, around, roi.shape))
    for finer, grid in pairwise(grids):
        children = {index: [levels[-1][child].part for child in finer.children(index)] for index in grid}
        levels.append({index: join(parts, grid.block_box(index)) for index, parts in children.items()})
    none = np.empty(0, np.uint64)
    above: dict[Index, Final] = {(0, 0, 0): Final(none, none, np.empty(0, np.uint8))}
    for number, level in reversed(list(enumerate(levels))):
        names = {}
        for (z, y, x), joined in level.items():
            parent = above[(0, 0, 0) if number == len(levels) - 1 else (z // 2, y // 2, x // 2)]
            names[z, y, x] = finish(joined.old, joined.new, closed_here(joined.closed, roi, block), parent=parent)
        above = names
    for index, found in above.items():
        inside = grids[0].block_box(index).slices()
        cut_ZYX[inside] = rename(cut_ZYX[inside], found.old, found.new)
    return cut_ZYX


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
    """Watershed and mean affinity."""
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


def measure_tiles(codes_CZYX: Codes, block: Index, repeats: int) -> None:
    """Mutex watershed on tiles, the same ones for both."""
    shape: Index = codes_CZYX.shape[1:]  # type: ignore[assignment]
    what = f"mutex watershed, tiles of {'x'.join(map(str, TILE))}"
    found = compare(what, lambda cut: on_tiles(codes_CZYX, cut), shape, block, repeats)
    check_equal(*found, what)
    print(f"\nEqual labels: {np.unique(found[0]).size:,} fragments.")


def generated_codes(shape: Index, channels: int) -> Codes:
    """Neurites with noisy affinities."""
    _, truth_ZYX = generate(Box.of_shape(shape), seed=7, shape=shape, voxel_size_nm=ANISOTROPY)
    dense = np.unique(truth_ZYX, return_inverse=True)[1].reshape(shape).astype(np.int32)
    affinities_CZYX = affinities_of(expand_labels(dense, REACH_NM, ANISOTROPY), channels)
    affinities_CZYX *= 255
    return affinities_CZYX.astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL} voxels instead of {DEFAULT}")
    parser.add_argument("--shape", type=int, nargs=3, help="any other shape")
    parser.add_argument("--block", type=int, nargs=3, default=BLOCK)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tiles", action="store_true", help="the mutex watershed on tiles instead of the watershed")
    options = parser.parse_args()
    shape = tuple(options.shape or (FULL if options.full else DEFAULT))
    codes_CZYX = generated_codes(shape, len(OFFSETS) if options.tiles else len(NEAREST))
    corner = np.ascontiguousarray(codes_CZYX[:, :32, :256, :256])
    for block in (corner.shape[1:], TILE if options.tiles else (8, 32, 32)):  # compile
        if options.tiles:
            on_tiles(corner, block)
            continue
        labels = fragments(corner, block)
        agglomerated(labels, region_graphs(labels, corner, block), block)
    print(f"{'x'.join(map(str, shape))} voxels, blocks of {'x'.join(map(str, options.block))}\n")
    print("| | one block, CPU s | all blocks and levels, CPU s | ratio | |\n|---|---|---|---|---|")
    (measure_tiles if options.tiles else measure)(codes_CZYX, tuple(options.block), options.repeats)


if __name__ == "__main__":
    main()
