"""What reaches the root of the hierarchy, by volume and by the floor of agglomeration.

Generated neurites with noisy affinities are cut into fragments (watershed with linking); their region graph climbs the
hierarchy once for every floor from 0.1 to 0.9. The last columns are what the one block at the top has to look at. On
paper (docs/design/scale.md) the last two volumes say how that grows.

    python -m benchmarks.root_size
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np

from benchmarks.exactness_cost import fragments, generated_codes, region_graphs
from benchmarks.kernels.data import NEAREST
from pipeline.geometry import Box, Grid, Index
from pipeline.ops.agglomerate import Agglomerated, Part, agglomerate
from pipeline.ops.relabel import segments

SHAPES: tuple[Index, ...] = ((128, 512, 512), (128, 1024, 1024), (256, 1024, 1024))
BLOCK: Index = (64, 256, 256)
FULL_SCALE = 65535


def climb(parts: dict[Index, Part], grids: tuple[Grid, ...], floor: float) -> tuple[list[list[Agglomerated]], Index]:
    """All levels; nodes, edges and bytes that the block at the top is given."""
    done = {i: agglomerate([part], part.box, floor=floor) for i, part in parts.items()}
    levels = [list(done.values())]
    given = list(parts.values())
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        below = {index: [done[child].part for child in finer.children(index)] for index in grid}
        given = [part for children in below.values() for part in children]
        done = {i: agglomerate(c, grid.block_box(i), floor=floor, level=level) for i, c in below.items()}
        levels.append(list(done.values()))
    edges = sum(e.size for part in given for e in (part.edges, *part.low))
    stored = sum(c.nbytes for part in given for e in (part.edges, *part.low) for c in e.columns().values())
    return levels, (sum(part.name.size for part in given), edges, stored)


def report(shape: Index) -> None:
    codes_CZYX = generated_codes(shape, len(NEAREST))
    labels_ZYX = fragments(codes_CZYX, BLOCK)
    parts = region_graphs(labels_ZYX, codes_CZYX, BLOCK)
    names = np.unique(labels_ZYX[labels_ZYX > 0])
    grids = Grid(Box.of_shape(shape), BLOCK).levels
    edges = sum(e.size for part in parts.values() for e in (part.edges, *part.low))
    what = f"{'x'.join(map(str, shape))} | {names.size:,} | {edges:,}"
    for tenth in range(1, 10):
        begin = time.process_time()
        levels, (root_nodes, root_edges, stored) = climb(parts, grids, tenth / 10 * FULL_SCALE)
        seconds = time.process_time() - begin
        trees = [found.tree for level in levels for found in level]
        a, b, score = (np.concatenate([getattr(t, column) for t in trees]) for column in ("a", "b", "score"))
        left = names.size - np.unique(segments(a, b, score, tenth / 10 * FULL_SCALE)[0]).size
        root = f"{root_nodes:,} | {root_edges:,} | {stored / 1e6:.1f}"
        print(f"| {what} | {tenth / 10} | {left:,} | {root} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", help="instead of the three volumes")
    options = parser.parse_args()
    print("| voxels | fragments | edges | floor | segments | root nodes | root edges | root MB | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape in options.shape or SHAPES:
        report(tuple(shape))


if __name__ == "__main__":
    main()
