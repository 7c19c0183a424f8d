"""Random volumes with many ties, a slow reference of the watershed, and a walk over the hierarchy in memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.geometry import Box, Grid
from pipeline.ops import fragments, pieces
from pipeline.ops.fragments import watershed
from pipeline.ops.pieces import Rules
from pipeline.ops.relabel import rename


@dataclass(frozen=True)
class Case:
    codes: np.ndarray
    roi: Box
    thresholds: tuple[float, float]
    rules: Rules
    hidden: np.ndarray  # voxels that a mask leaves out


def random_case(rng: np.random.Generator, kind: Any = np.uint8, largest: int = 9) -> Case:
    """Few or many levels of affinity, smooth or white, partly masked."""
    shape = tuple(int(n) for n in rng.integers(2, largest, 3))
    values = rng.random((3, *shape))
    if rng.random() < 0.5:  # smooth
        for axis in range(1, 4):
            values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / 3
        values = (values - values.min()) / np.ptp(values)
    levels = int(rng.choice([2, 3, 5, 10, 200, 10**6]))
    values = np.minimum(np.floor(values * levels), levels - 1) / max(levels - 1, 1)
    full = 1.0 if kind == np.float32 else np.iinfo(kind).max
    codes = (values * full).astype(kind)
    hidden = np.zeros(shape, bool)
    if rng.random() < 0.4:
        begin = [int(rng.integers(0, n)) for n in shape]
        hidden[tuple(slice(b, b + int(rng.integers(1, 7))) for b in begin)] = True
        hidden |= rng.random(shape) < 0.1
    hide_edges(codes, hidden)
    low, high = float(rng.choice([0, 0, 0.1, 0.3])) * full, float(rng.choice([0.7, 0.9, 0.99, 1.001])) * full
    if kind != np.float32:
        low, high = int(low), int(high) + 1
    rules = Rules(int(rng.choice([0, 1, 2, 3, 5, 10, 20, 60])), int(rng.choice([0, 0, 2, 3, 8, 40])))
    origin = tuple(int(n) for n in rng.integers(0, 50, 3))
    return Case(codes, Box.of_shape(shape).shift(origin), (low, high), rules, hidden)


def hide_edges(codes: np.ndarray, hidden: np.ndarray) -> None:
    for axis in range(3):
        end = np.moveaxis(hidden, axis, 0)
        edges = np.moveaxis(codes[axis], axis, 0)
        edges[end] = 0
        edges[1:][end[:-1]] = 0


class Sets:
    """The plainest union-find."""

    def __init__(self, items: Any) -> None:
        self.parent = {item: item for item in items}

    def find(self, item: Any) -> Any:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: Any, b: Any) -> tuple[Any, Any]:
        """The roots, the one that stays first: the smaller."""
        keep, gone = sorted((self.find(a), self.find(b)))
        self.parent[gone] = keep
        return keep, gone


def usable_edges(case: Case) -> list[tuple[Any, ...]]:
    """(-affinity, channel, voxel, voxel before it), in the order of edges."""
    edges = []
    for channel in range(3):
        for position, value in np.ndenumerate(case.codes[channel]):
            before = tuple(v - (axis == channel) for axis, v in enumerate(position))
            if min(before) >= 0 and value > case.thresholds[0]:
                edges.append((-value.item(), channel, position, before))
    return sorted(edges)


def reference(case: Case) -> np.ndarray:
    """Sort all edges, let every voxel take its first, join, link, name: plain Python."""
    edges = usable_edges(case)
    best: dict[tuple[int, ...], int] = {}
    for number, (_, _, p, q) in enumerate(edges):
        best.setdefault(p, number)
        best.setdefault(q, number)
    sets = Sets(best)
    identity = set(best.values()) | {n for n, edge in enumerate(edges) if -edge[0] >= case.thresholds[1]}
    for number in identity:
        sets.join(*edges[number][2:])
    size: dict[Any, int] = {}
    height: dict[Any, float] = {}
    for p, number in best.items():
        root = sets.find(p)
        size[root] = size.get(root, 0) + 1
        height[root] = max(height.get(root, 0), -edges[number][0])
    for minus, _, p, q in edges if case.rules.size_vx else []:
        two = {sets.find(p), sets.find(q)}
        if len(two) == 2 and any(size[r] < case.rules.size_vx or height[r] <= -minus for r in two):
            keep, gone = sets.join(p, q)
            size[keep] += size[gone]
            height[keep] = max(height[keep], height[gone])
    labels = np.zeros(case.roi.shape, np.uint64)
    for voxel in best:
        root = sets.find(voxel)
        if size[root] >= case.rules.dust_vx:
            z, y, x = (v + o for v, o in zip(root, case.roi.begin, strict=True))
            labels[voxel] = 1 + (z << 42 | y << 21 | x)
    return labels


def hierarchical(case: Case, block: tuple[int, int, int], *, forget_faces: bool = False) -> np.ndarray:
    """Walk up and down the levels as the stage does. Blocks that the mask hides are not there."""
    grids = Grid(case.roi, block).levels
    cut, up = {}, [{}]
    for index in grids[0]:
        box = grids[0].block_box(index)
        if case.hidden[box.slices(case.roi.begin)].all():
            continue
        read = box.grow(fragments.HALO).clip(case.roi)
        codes = np.ascontiguousarray(case.codes[(slice(None), *read.slices(case.roi.begin))])
        internal = grids[0].internal_faces(index)
        found = watershed(codes, box, case.roi, codes=case.thresholds, internal=internal, size_vx=case.rules.size_vx)
        if forget_faces:
            found.part.nodes.mask[:] = 0
        cut[index] = found
        up[0][index] = pieces.close(found.part, case.rules)
    for finer, grid in pairwise(grids):
        level = {}
        for index in grid:
            parts = [up[-1][child].part for child in finer.children(index) if child in up[-1]]
            if parts:
                box, internal = grid.block_box(index), grid.internal_faces(index)
                level[index] = pieces.join(parts, box, internal=internal, roi=case.roi, rules=case.rules)
        up.append(level)
    top = up[-1].get((0, 0, 0))
    assert top is None or forget_faces or top.part.nodes.name.size == 0
    return _named(case, grids[0], cut, up)


def _named(case: Case, grid: Grid, cut: dict[Any, Any], up: list[dict[Any, Any]]) -> np.ndarray:
    final = {index: (top.old, top.new) for index, top in up[-1].items()}
    for level in reversed(up[:-1]):
        final = {
            index: pieces.compose(
                joined.old, joined.new, joined.part.nodes.name, parent=final[tuple(i // 2 for i in index)]
            )
            for index, joined in level.items()
        }
    labels = np.zeros(case.roi.shape, np.uint64)
    for index, piece in cut.items():
        labels[grid.block_box(index).slices(case.roi.begin)] = rename(piece.labels_ZYX, *final[index])
    return labels
