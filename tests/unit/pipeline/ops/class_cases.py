"""Random volumes with classes: what the slow references and the hierarchy of tests are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
from scipy.ndimage import label

from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.agglomerate import Agglomerated, agglomerate
from pipeline.ops.agglomerate import Part as Graph
from pipeline.ops.classes import (
    CONFLICT,
    Classes,
    Part,
    Tallied,
    count,
    descend,
    no_classes,
    separate,
    tally,
    together,
)
from pipeline.ops.merge_tree import Merges, cut, kept, unchanged
from pipeline.ops.objects import Objects, largest, list_objects
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename

TABLE = np.arange(256) * 257
MergeRow = tuple[float, int, int, int]  # score, a, b, class of both together
Chunks = list[dict[Index, Agglomerated]]


@dataclass(frozen=True)
class Case:
    """Fragments, what class every voxel has, affinities."""

    labels: np.ndarray
    classes: np.ndarray
    codes: np.ndarray
    roi: Box
    share: int
    floor: float

    def name_of(self, voxel: tuple[int, ...]) -> int:
        return int(self.labels[voxel])


def random_case(rng: np.random.Generator, largest_axis: int = 6) -> Case:
    """Few classes and few levels of affinity; fragments are voxels, patches, or scattered voxels."""
    shape = tuple(int(n) for n in rng.integers(2, largest_axis, 3))
    roi = Box.of_shape(shape).shift(tuple(int(n) for n in rng.integers(0, 9, 3)))
    seeds = int(rng.integers(2, 14))
    kind = rng.random()
    if kind < 0.2:
        parts = np.arange(np.prod(shape)).reshape(shape)
    elif kind < 0.85:
        places = rng.uniform(0, shape, (seeds, 3))
        voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        parts = ((voxels[..., None, :] - places) ** 2).sum(-1).argmin(-1)
    else:
        parts = rng.integers(0, seeds, shape)
    hidden = rng.random(shape) < rng.choice([0, 0, 0.2])
    classes = rng.integers(0, int(rng.integers(2, 5)), [-(-n // 2) for n in shape])
    for axis in range(3):
        classes = classes.repeat(2, axis)
    classes = np.where(rng.random(shape) < 0.3, 0, classes[tuple(slice(n) for n in shape)])
    codes = rng.choice(rng.integers(0, 256, int(rng.integers(2, 6))), size=(3, *shape)).astype(np.uint8)
    share = int(rng.choice([0, 1, 333, 500, 500, 501, 750, 1000]))
    floor = float(rng.choice([0, 0, TABLE[codes].mean() / 2]))
    return Case(named(parts, hidden, roi), classes.astype(np.uint8), codes, roi, share, floor)


def named(parts: np.ndarray, hidden: np.ndarray, roi: Box) -> np.ndarray:
    """Every part under the id of its first voxel."""
    z, y, x = (np.arange(b, e).astype(np.uint64) for b, e in zip(roi.begin, roi.end, strict=True))
    ids = 1 + (z[:, None, None] << np.uint64(42) | y[:, None] << np.uint64(21) | x)
    labels = np.zeros(parts.shape, np.uint64)
    for part in np.unique(parts):
        inside = (parts == part) & ~hidden
        if inside.any():
            labels[inside] = ids[inside].min()
    return labels


# ---- slow references -----------------------------------------------------------------------------------------------
def slow_classes(case: Case) -> dict[int, int]:
    """The class of every fragment that has one: voxel by voxel, with fractions."""
    votes: dict[int, Counter[int]] = {}
    for voxel in np.ndindex(case.labels.shape):
        votes.setdefault(case.name_of(voxel), Counter())[int(case.classes[voxel])] += 1
    votes.pop(0, None)
    found = {}
    for name, counted in votes.items():
        ranked = sorted((kind for kind in counted if kind), key=lambda kind: (-counted[kind], kind))
        if ranked and Fraction(counted[ranked[0]], counted.total()) >= Fraction(case.share, 1000):
            found[name] = ranked[0]
    return found


def slow_edges(case: Case) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Sum, count and tie of every pair of fragments."""
    rows: dict[tuple[int, int], tuple[int, int, int]] = {}
    _, height, width = case.roi.end
    for channel, *voxel in product(range(3), *map(range, case.labels.shape)):
        if voxel[channel] == 0:
            continue
        other = list(voxel)
        other[channel] -= 1
        a, b = sorted((case.name_of(tuple(voxel)), case.name_of(tuple(other))))
        if a == b or a == 0:
            continue
        z, y, x = (v + b for v, b in zip(voxel, case.roi.begin, strict=True))
        tie = channel << 58 | ((z * height + y) * width + x)
        total, number, worst = rows.get((a, b), (0, 0, 0))
        rows[a, b] = (total + int(TABLE[case.codes[channel, *voxel]]), number + 1, max(worst, tie))
    return rows


def slow_tree(case: Case, classes: dict[int, int]) -> tuple[list[MergeRow], int]:
    """Greedy in plain Python, without the edges between classes, in its order; how many voxel edges those had."""
    every = slow_edges(case)
    apart = {pair for pair in every if len({classes.get(name, 0) for name in pair} - {0}) > 1}
    state = {pair: row for pair, row in every.items() if pair not in apart}
    inside = {name: {classes[name]} if name in classes else set() for name in np.unique(case.labels).tolist()}
    merges = []
    while state:
        best = max(state, key=lambda pair: (Fraction(state[pair][0], state[pair][1]), -state[pair][2]))
        total, number, _ = state.pop(best)
        if total / number <= case.floor:
            break
        keep, gone = best
        inside[keep] |= inside.pop(gone)
        merges.append((total / number, keep, gone, kind_of(inside[keep])))
        for pair in [pair for pair in state if gone in pair]:
            row = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            before = state.get(new, (0, 0, 0))
            state[new] = (row[0] + before[0], row[1] + before[1], max(row[2], before[2]))
    return merges, sum(every[pair][1] for pair in apart)


def kind_of(classes: set[int]) -> int:
    return next(iter(classes), 0) if len(classes) < 2 else CONFLICT


def slow_labels(case: Case, merges: list[MergeRow], classes: dict[int, int], threshold: float) -> np.ndarray:
    """Merge by merge in the order of the run; a refused one, of two classes or too low, closes its cluster for good."""
    cluster = {name: name for name in np.unique(case.labels).tolist()}  # in the tree
    segment = dict(cluster)
    closed: set[int] = set()
    for score, a, b, _ in merges:
        inside = {classes.get(name, 0) for name, own in cluster.items() if own in (a, b)} - {0}
        if score <= threshold or {a, b} & closed or len(inside) > 1:
            closed.add(a)
        else:
            segment.update({name: a for name, own in segment.items() if own == b})
        cluster.update({name: a for name, own in cluster.items() if own == b})
    return np.vectorize(segment.__getitem__, otypes=[np.uint64])(case.labels)


# ---- the hierarchy, in memory --------------------------------------------------------------------------------------
Tally = Callable[..., Tallied]
Separate = Callable[..., tuple]
Keep = Callable[..., Merges]


@dataclass(frozen=True)
class Result:
    """What a grid gives."""

    classes: dict[int, int]
    merges: list[MergeRow]
    apart: int
    labels: dict[tuple[float, bool], np.ndarray]
    objects: dict[tuple[float, bool], Objects]


@dataclass(frozen=True)
class Steps:
    """The steps under test."""

    tally: Tally = tally
    separate: Separate = separate
    keep: Keep = kept


def until_of(case: Case, grid: Grid) -> dict[int, int]:
    """The lowest level at which one chunk holds a fragment and the voxels around it; 0 for those that hang together,
    as a watershed's do: faces tell."""
    found = {}
    for name in np.unique(case.labels[case.labels > 0]).tolist():
        voxels = np.argwhere(case.labels == name)
        begin = tuple(int(b + o) for b, o in zip(voxels.min(0), case.roi.begin, strict=True))
        end = tuple(int(e + 1 + o) for e, o in zip(voxels.max(0), case.roi.begin, strict=True))
        around = Box(begin, end).grow((1, 1, 1)).clip(case.roi)
        if label(case.labels == name)[1] == 1:
            found[name] = 0
            continue
        found[name] = next(level for level, g in enumerate(grid.levels) if len(list(g.touching(around))) == 1)
    return found


def filled(case: Case, grid: Grid) -> Iterator[tuple[Index, Box, tuple[slice, ...]]]:
    for index in grid:
        box = grid.block_box(index)
        inside = box.slices(case.roi.begin)
        if case.labels[inside].any():
            yield index, box, inside


def voted(case: Case, grids: tuple[Grid, ...], until: dict[int, int], step: Tally) -> dict[Index, Classes]:
    """Up and down: the classes that every block knows of its own fragments."""
    levels: list[dict[Index, Tallied]] = [{}]
    for index, box, inside in filled(case, grids[0]):
        labels = np.ascontiguousarray(case.labels[inside])
        own = nodes(labels, grids[0].internal_faces(index))
        later = np.array([until[name] for name in own.name.tolist()], np.uint8)
        part = Part(box, own.name, own.mask, later, count(labels, np.ascontiguousarray(case.classes[inside])))
        levels[0][index] = step([part], box, share=case.share, level=0)
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        children = {index: [c for c in finer.children(index) if c in levels[-1]] for index in grid}
        levels.append(
            {
                i: step([levels[-1][c].part for c in there], grid.block_box(i), share=case.share, level=level)
                for i, there in children.items()
                if there
            }
        )
    above: dict[Index, Classes] = {}
    for found in reversed(levels):
        parents = {i: above.get(tuple(n // 2 for n in i), no_classes()) for i in found}  # type: ignore[call-overload]
        above = {i: descend(found[i].decided, found[i].part.name, parents[i]) for i in found}
    return above


def graphs(
    case: Case, grid: Grid, until: dict[int, int], classes: dict[Index, Classes], step: Separate
) -> tuple[dict[Index, Graph], int]:
    """The region graphs of all blocks, without edges between classes; how many voxel edges were dropped."""
    found, apart = {}, 0
    for index, box, inside in filled(case, grid):
        before, near = {}, [index]
        for axis, side in enumerate(faces.LOW):
            if index[axis]:
                where: list[slice | int] = list(inside)
                where[axis] = where[axis].start - 1  # type: ignore[union-attr]
                before[side] = case.labels[tuple(where)]
                near.append(tuple(i - (a == axis) for a, i in enumerate(index)))  # type: ignore[arg-type]
        labels = np.ascontiguousarray(case.labels[inside])
        codes = np.ascontiguousarray(case.codes[(slice(None), *inside)])
        rows = contacts(labels, codes, before, code_table=TABLE, place=Place(box.begin, case.roi.end))
        own = nodes(labels, grid.internal_faces(index))
        known = together([classes[block] for block in near if block in classes])
        parts = [step(rows[side], known) for side in ("inner", *faces.LOW)]
        apart += sum(number for _, number in parts)
        later = np.array([until[name] for name in own.name.tolist()], np.uint8)
        (inner, *low), kind = [edges for edges, _ in parts], known.of(own.name)
        found[index] = Graph(box, own.name, own.mask, inner, (low[0], low[1], low[2]), later, own.volume, kind)
    return found, apart


def merged(case: Case, grids: tuple[Grid, ...], parts: dict[Index, Graph]) -> Chunks:
    """Up the hierarchy."""
    found = [{i: agglomerate([p], p.box, floor=case.floor) for i, p in parts.items()}]
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        children = {index: [c for c in finer.children(index) if c in found[-1]] for index in grid}
        found.append(
            {
                i: agglomerate([found[-1][c].part for c in there], grid.block_box(i), floor=case.floor, level=level)
                for i, there in children.items()
                if there
            }
        )
    return found


def merges_of(found: Agglomerated) -> Merges:
    tree, sizes = found.tree, found.sizes
    return Merges(tree.a, tree.b, tree.score, sizes.tie, sizes.voxels_a, sizes.voxels_b, sizes.merged_kind)


def descended(case: Case, grid: Grid, levels: Chunks, keep: Callable[[Merges], Merges]) -> tuple[np.ndarray, Objects]:
    """Down again: labels and the largest objects."""
    above: dict[Index, object] = {}
    lists = []
    for level in reversed(levels):
        here = {}
        for index, found in level.items():
            parent = above.get(tuple(i // 2 for i in index), unchanged())
            own, sizes = keep(merges_of(found)), found.sizes
            here[index] = cut(own, handed_up=found.part.name, parent=parent)  # type: ignore[arg-type]
            lists.append(list_objects(own, sizes.fragment, sizes.voxels, here[index], sizes.kind))
        above = here  # type: ignore[assignment]
    labels = np.zeros_like(case.labels)
    for index, renames in above.items():
        where = grid.block_box(index).slices(case.roi.begin)
        labels[where] = rename(np.ascontiguousarray(case.labels[where]), renames.old, renames.new)  # type: ignore[attr-defined]
    return labels, largest(lists)


def hierarchical(case: Case, block: Index, thresholds: list[float], steps: Steps) -> Result:
    """As the stages do it."""
    grids = Grid(case.roi, block).levels
    until = until_of(case, grids[0])
    known = voted(case, grids, until, steps.tally)
    parts, apart = graphs(case, grids[0], until, known, steps.separate)
    levels = merged(case, grids, parts)
    classes: dict[int, int] = {}
    for found in known.values():
        classes |= dict(zip(found.name.tolist(), found.kind.tolist(), strict=True))
    rows: list[MergeRow] = []
    for chunk in (c for level in levels for c in level.values()):
        merges = merges_of(chunk)
        assert merges.kind is not None
        columns = (merges.score, merges.a, merges.b, merges.kind)
        rows += zip(*(column.tolist() for column in columns), strict=True)
    results = {
        (threshold, guard): descended(
            case, grids[0], levels, lambda m, t=threshold, g=guard: steps.keep(m, threshold=t, one_class=g)
        )
        for threshold in thresholds
        for guard in (False, True)
    }
    labels = {key: found for key, (found, _) in results.items()}
    return Result(classes, sorted(rows), apart, labels, {key: objects for key, (_, objects) in results.items()})
