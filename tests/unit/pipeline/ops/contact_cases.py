"""Random contacts: volumes, what plain Python finds in them, and the way up the hierarchy as the stage goes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

import numpy as np

from pipeline.geometry import Box, Grid
from pipeline.ops import faces
from pipeline.ops.contact_join import Joined, join
from pipeline.ops.contact_table import Adjacency, ContactRows, stack
from pipeline.ops.contacts import contacts
from pipeline.ops.region_graph import Place
from pipeline.ops.relabel import rename

Voxel = tuple[int, int, int]
Row = tuple[int, ...]  # a, b, sums, begin, end
Found = tuple[dict[int, Row], set[tuple[int, int]]]

AROUND = [d for d in product((-1, 0, 1), repeat=3) if any(d)]
FACES = [d for d in AROUND if sum(map(abs, d)) == 1]
EDGES = [d for d in AROUND if sum(map(abs, d)) <= 2]
VOXELS = 2 + 7  # the column of a row that does not add up


@dataclass(frozen=True)
class Case:
    labels: np.ndarray
    codes: np.ndarray
    table: np.ndarray
    roi: Box
    grown: np.ndarray | None = None  # bits: edges that tell no affinity

    @property
    def layer(self) -> Voxel:
        return tuple(end + 3 for end in self.roi.end)


def random_case(rng: np.random.Generator, largest: int = 6, codes: type = np.uint8) -> Case:
    shape = tuple(int(n) for n in rng.integers(2, largest + 1, 3))
    coarse = tuple(int(n) for n in rng.integers(1, 4, 3))
    names = rng.choice(2**62, int(rng.integers(2, 9)), replace=False).astype(np.uint64) + np.uint64(1)
    labels = rng.choice(names, [-(-n // c) for n, c in zip(shape, coarse, strict=True)])
    for axis, times in enumerate(coarse):
        labels = labels.repeat(times, axis)
    labels = np.ascontiguousarray(labels[tuple(slice(n) for n in shape)])
    noisy = rng.random(shape) < rng.choice([0, 0.1, 0.3])
    labels[noisy] = rng.choice(names, shape)[noisy]
    labels[rng.random(shape) < rng.choice([0, 0.1, 0.5])] = 0
    levels = 256 if codes is np.uint8 else 65536
    roi = Box.of_shape(shape).shift(tuple(int(n) for n in rng.integers(0, 30, 3)))
    table = np.sort(rng.integers(0, 65536, levels))
    grown = rng.integers(0, 8, shape).astype(np.uint8) if rng.random() < 0.3 else None
    return Case(labels, rng.integers(0, levels, (3, *shape)).astype(codes), table, roi, grown)


def random_block(rng: np.random.Generator) -> Voxel:
    return tuple(int(n) for n in rng.integers(1, 5, 3))


# ---- the reference: voxel sets, components, adjacency in plain Python ----------------------------------------------


def voxel_sets(case: Case, box: Box) -> dict[tuple[int, int], dict[Voxel, list[int]]]:
    """Pair -> voxel -> channels of its edges, of the edges stored in a box."""
    sets: dict[tuple[int, int], dict[Voxel, list[int]]] = {}
    here = np.argwhere(case.labels[box.slices(case.roi.begin)]) + np.subtract(box.begin, case.roi.begin)
    for p in map(tuple, here.tolist()):
        for channel in range(3):
            q = tuple(v - (axis == channel) for axis, v in enumerate(p))
            ends = sorted((int(case.labels[p]), int(case.labels[q]))) if min(q) >= 0 else [0, 0]
            if ends[0] not in (0, ends[1]):
                sets.setdefault((ends[0], ends[1]), {}).setdefault(p, []).append(channel)
    return sets


def reference(
    case: Case,
    box: Box | None = None,
    *,
    reach: list[Voxel] = AROUND,
    touch: list[Voxel] = AROUND,
    coincide: bool = True,
    sharing: bool = False,
) -> tuple[dict[int, Row], set[tuple[int, int]], dict[Voxel, list[int]]]:
    """Rows by name, adjacent pairs of names, and the contacts of every voxel."""
    rows: dict[int, Row] = {}
    at: dict[Voxel, list[int]] = {}
    for pair, voxels in voxel_sets(case, case.roi if box is None else box).items():
        left = set(voxels)
        while left:
            component, waiting = [], [left.pop()]
            while waiting:
                p = waiting.pop()
                component.append(p)
                near = [(p[0] + d[0], p[1] + d[1], p[2] + d[2]) for d in reach]
                waiting += [q for q in near if q in left]
                left -= set(near)
            name, row = row_of(case, pair, {p: voxels[p] for p in component})
            rows[name] = row
            for p in component:
                at.setdefault(p, []).append(name)
    adjacent = set()
    for p, names in at.items():
        if coincide:
            adjacent |= set(combinations(sorted(names), 2))
        for d in touch:
            for other in at.get((p[0] + d[0], p[1] + d[1], p[2] + d[2]), []):
                adjacent |= {(min(one, other), max(one, other)) for one in names if rows[one][:2] != rows[other][:2]}
    if sharing:
        adjacent = {(one, two) for one, two in adjacent if set(rows[one][:2]) & set(rows[two][:2])}
    return rows, adjacent, at


def row_of(case: Case, pair: tuple[int, int], voxels: dict[Voxel, list[int]]) -> tuple[int, Row]:
    edges, sums, total, grown = [0] * 3, [0] * 3, 0, 0
    for p, channels in voxels.items():
        for channel in channels:
            edges[channel] += 1
            unknown = case.grown is not None and case.grown[p] >> channel & 1
            grown, total = grown + bool(unknown), total + (not unknown) * int(case.table[case.codes[(channel, *p)]])
            sums = [s + v + b for s, v, b in zip(sums, p, case.roi.begin, strict=True)]
    places = [tuple(v + b for v, b in zip(p, case.roi.begin, strict=True)) for p in voxels]
    first, channel = min(places), voxels[min(voxels)][0]
    name = ((first[0] * case.layer[1] + first[1]) * case.layer[2] + first[2]) * 4 + channel
    corners = [f(along) for f in (min, max) for along in zip(*places, strict=True)]
    end = [v + 1 for v in corners[3:]]
    return name, (*pair, *edges, total, *sums, len(voxels), grown, *corners[:3], *end)


def rows_of(found: ContactRows) -> dict[int, Row]:
    columns = [column.tolist() for column in found.columns().values()]
    rows = {name: row for name, *row in zip(*columns, strict=True)}
    assert len(rows) == found.size, "a contact twice"
    return {name: tuple(row) for name, row in rows.items()}


def pairs_of(found: Adjacency) -> set[tuple[int, int]]:
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(pairs) == found.size, "a pair twice"
    return pairs


# ---- the hierarchy, in memory ------------------------------------------------------------------------------------


def one_block(case: Case, grid: Grid, index: Voxel) -> Joined:
    box = grid.block_box(index)
    inside = box.slices(case.roi.begin)
    before = {}
    for axis, side in enumerate(faces.LOW):
        if index[axis]:
            where: list[slice | int] = list(inside)
            where[axis] = where[axis].start - 1
            before[side] = case.labels[tuple(where)]
    return contacts(
        np.ascontiguousarray(case.labels[inside]),
        np.ascontiguousarray(case.codes[(slice(None), *inside)]),
        before,
        code_table=case.table,
        place=Place(box.begin, case.layer),
        internal=grid.internal_faces(index),
        grown_ZYX=None if case.grown is None else np.ascontiguousarray(case.grown[inside]),
    )


def climb(
    case: Case,
    block: Voxel,
    *,
    start: Callable[[Case, Grid, Voxel], Joined] = one_block,
    step: Callable[..., Joined] = join,
) -> list[dict[Voxel, Joined]]:
    """Walk up the levels as the stage does; blocks without labels are not there."""
    grids = Grid(case.roi, block).levels
    done: list[dict[Voxel, Joined]] = [{}]
    for index in grids[0]:
        box = grids[0].block_box(index)
        if case.labels[box.slices(case.roi.begin)].any():
            done[0][index] = start(case, grids[0], index)
    for finer, grid in pairwise(grids):
        above = {}
        for index in grid:
            children = [done[-1][child].part for child in finer.children(index) if child in done[-1]]
            if children:
                above[index] = step(children, grid.block_box(index), internal=grid.internal_faces(index))
        done.append(above)
    return done


def hierarchical(case: Case, block: Voxel, **parts: Callable[..., object]) -> tuple[ContactRows, Adjacency]:
    """All that is final at any level."""
    done = climb(case, block, **parts)
    for top in done[-1].values():
        assert top.part.contacts.size == top.part.waiting.size == top.part.shell_voxel.size == 0
    final = [found for level in done for found in level.values()]
    first, second = (
        np.concatenate([np.empty(0, np.uint64), *(getattr(f.adjacency, side) for f in final)])
        for side in ("first", "second")
    )
    return stack(f.closed for f in final), Adjacency(first, second)


def merged(case: Case, rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], Case]:
    """A random merge of fragments, as a rename table and on the voxels."""
    names = np.unique(case.labels[case.labels > 0])
    group = rng.integers(0, rng.integers(1, names.size + 2), names.size)
    smallest = np.array([names[group == g].min() for g in group], np.uint64)
    table = names[names != smallest], smallest[names != smallest]
    return table, replace(case, labels=rename(case.labels, *table))
