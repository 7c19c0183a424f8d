"""The merge tree cut down the hierarchy is the components of all merges above it; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.agglomerate import Agglomerated, Part, agglomerate
from pipeline.ops.fragments import watershed
from pipeline.ops.merge_tree import Merges, Renames, cut, kept, unchanged
from pipeline.ops.objects import LISTED, Objects, largest, list_objects
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename

Level = dict[Index, Agglomerated]
Cut = Callable[..., Renames]
TABLE = np.arange(256) * 257


@dataclass(frozen=True)
class Case:
    """A volume of fragments, and the affinities between them."""

    labels: np.ndarray
    codes: np.ndarray
    roi: Box
    floor: float


def random_case(rng: np.random.Generator) -> Case:
    """Basins of few levels of affinity, hence many ties; sometimes every voxel is a fragment."""
    shape = tuple(int(n) for n in rng.integers(2, 8, 3))
    levels = np.sort(rng.choice(256, size=int(rng.integers(2, 8)), replace=False))
    codes = rng.choice(levels, size=(3, *shape)).astype(np.uint8)
    roi = Box.of_shape(shape).shift(tuple(int(n) for n in rng.integers(0, 40, 3)))
    labels = watershed(codes, roi, roi, codes=(int(levels[0]), 256), internal=0).labels_ZYX
    if rng.random() < 0.5:
        z, y, x = (np.arange(b, e).astype(np.uint64) for b, e in zip(roi.begin, roi.end, strict=True))
        labels = 1 + (z[:, None, None] << np.uint64(42) | y[:, None] << np.uint64(21) | x)
    codes = rng.choice(levels, size=(3, *shape)).astype(np.uint8)
    return Case(labels, codes, roi, float(rng.choice([0, 0, TABLE[levels].mean() / 2])))


def graph_of(case: Case, grid: Grid, index: Index) -> Part | None:
    """The region graph of one block."""
    box = grid.block_box(index)
    inside = box.slices(case.roi.begin)
    before = {}
    for axis, side in enumerate(faces.LOW):
        if index[axis]:
            where: list[slice | int] = list(inside)
            where[axis] = box.begin[axis] - case.roi.begin[axis] - 1
            before[side] = case.labels[tuple(where)]
    place = Place(box.begin, case.roi.end)
    found = contacts(case.labels[inside], case.codes[(slice(None), *inside)], before, code_table=TABLE, place=place)
    own = nodes(case.labels[inside], grid.internal_faces(index))
    low = (found["low_z"], found["low_y"], found["low_x"])
    return Part(box, own.name, own.mask, found["inner"], low, volume=own.volume) if own.name.size else None


def levels_of(case: Case, grids: tuple[Grid, ...]) -> list[Level]:
    """Up the hierarchy, as the stage does it."""
    parts = {index: graph_of(case, grids[0], index) for index in grids[0]}
    found = [{i: agglomerate([p], p.box, floor=case.floor) for i, p in parts.items() if p is not None}]
    for level, (finer, grid) in enumerate(pairwise(grids), start=1):
        children = {index: [c for c in finer.children(index) if c in found[-1]] for index in grid}
        found.append(
            {
                index: agglomerate(
                    [found[-1][c].part for c in there], grid.block_box(index), floor=case.floor, level=level
                )
                for index, there in children.items()
                if there
            }
        )
    return found


def chunks(levels: list[Level]) -> list[Agglomerated]:
    return [found for level in levels for found in level.values()]


def merges_of(found: Agglomerated) -> Merges:
    sizes = found.sizes
    return Merges(found.tree.a, found.tree.b, found.tree.score, sizes.tie, sizes.voxels_a, sizes.voxels_b)


def rows_of(levels: list[Level]) -> list[tuple[float, ...]]:
    """The whole tree, sorted: score, a, b, tie, sizes."""
    every = [merges_of(found) for found in chunks(levels)]
    columns = [[m.score, m.a, m.b, m.tie, m.voxels_a, m.voxels_b] for m in every]
    return sorted(row for one in columns for row in zip(*(c.tolist() for c in one), strict=True))


def descended(
    case: Case, grids: tuple[Grid, ...], levels: list[Level], threshold: float, step: Cut, largest_vx: int = 0
) -> tuple[np.ndarray, Objects]:
    """Down again: the labels of all blocks at a threshold, and the largest objects."""
    above: dict[Index, Renames] = {}
    lists = []
    for level in reversed(levels):
        here = {}
        for index, found in level.items():
            parent = above.get(tuple(i // 2 for i in index), unchanged())  # type: ignore[call-overload]
            own = kept(merges_of(found), threshold=threshold, largest_vx=largest_vx)
            here[index] = step(own, handed_up=found.part.name, parent=parent)
            lists.append(list_objects(own, found.sizes.fragment, found.sizes.voxels, here[index]))
        above = here
    labels = np.zeros_like(case.labels)
    for index, renames in above.items():
        where = grids[0].block_box(index).slices(case.roi.begin)
        labels[where] = rename(case.labels[where], renames.old, renames.new)
    return labels, largest(lists)


def slow_components(case: Case, levels: list[Level], threshold: float, largest_vx: int = 0) -> np.ndarray:
    """All merges of all levels, in one dictionary."""
    root = {name: name for name in np.unique(case.labels).tolist()}

    def find(name: int) -> int:
        while root[name] != name:
            name = root[name]
        return name

    for score, a, b, _, voxels_a, voxels_b in rows_of(levels):
        if score > threshold and not 0 < largest_vx < voxels_a + voxels_b:
            low, high = sorted((find(int(a)), find(int(b))))
            root[high] = low
    return np.vectorize(find, otypes=[np.uint64])(case.labels)


def thresholds(case: Case, levels: list[Level], rng: np.random.Generator) -> list[float]:
    """The floor, scores that occur, and one between."""
    scores = np.concatenate([found.tree.score for found in chunks(levels)] or [np.zeros(1)])
    some = rng.choice(scores, 4).tolist() if scores.size else []
    return [case.floor, *some, 0.5 * (case.floor + TABLE[-1])]


def random_grids(case: Case, rng: np.random.Generator) -> list[tuple[Grid, ...]]:
    """One chunk, and random blocks."""
    return [Grid(case.roi, block).levels for block in ((8, 8, 8), tuple(int(n) for n in rng.integers(1, 5, 3)))]


def failures(seed: int, cases: int, step: Cut = cut) -> tuple[int, int]:
    """How many cuts there were, and how many of them were wrong."""
    rng = np.random.default_rng(seed)
    done = wrong = 0
    for _ in range(cases):
        case = random_case(rng)
        for grids in random_grids(case, rng):
            levels = levels_of(case, grids)
            for threshold in thresholds(case, levels, rng):
                guard = int(rng.choice([0, 0, 3, 8, 30]))
                found, _ = descended(case, grids, levels, threshold, step, guard)
                wrong += not np.array_equal(found, slow_components(case, levels, threshold, guard))
                done += 1
    return done, wrong


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_on_every_grid_is_the_components_of_all_merges_above_it(seed: int) -> None:
    done, wrong = failures(seed, 34)
    assert (done >= 350, wrong) == (True, 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 120))
def test_every_cut_on_every_grid_often(seed: int) -> None:
    """20 x 100 volumes, each on two grids, cut at six thresholds."""
    done, wrong = failures(seed, 100)
    assert (done >= 1000, wrong) == (True, 0)


def without_parent(own: Merges, *, handed_up: np.ndarray, parent: Renames) -> Renames:
    return cut(own, handed_up=handed_up, parent=unchanged())


def without_the_handed_up(own: Merges, *, handed_up: np.ndarray, parent: Renames) -> Renames:
    return cut(own, handed_up=handed_up[:0], parent=parent)


def without_own(own: Merges, *, handed_up: np.ndarray, parent: Renames) -> Renames:
    return cut(own.take(np.arange(0)), handed_up=handed_up, parent=parent)


def own_names_stay(own: Merges, *, handed_up: np.ndarray, parent: Renames) -> Renames:
    """Renames of the parent reach its own nodes, but not what was united below them."""
    above, below = (f(own, handed_up=handed_up, parent=parent) for f in (without_own, without_parent))
    old, new = np.concatenate([above.old, below.old]), np.concatenate([above.new, below.new])
    order = np.argsort(old)
    return Renames(old[order], new[order], below.kept)


@pytest.mark.parametrize("broken", [without_parent, without_the_handed_up, without_own, own_names_stay])
def test_control_each_broken_rule_is_caught(broken: Cut) -> None:
    done, wrong = failures(70, 6, broken)
    assert wrong > done // 20


def slow_sizes(case: Case, rows: list[tuple[float, ...]]) -> bool:
    """Whether every size in the tree is that of the cluster, merge by merge in the order of the one-chunk run."""
    names, counts = np.unique(case.labels[case.labels != 0], return_counts=True)
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))
    root = {name: name for name in size}
    pending = sorted(rows, key=lambda row: -row[0])
    while pending:  # within a score, whatever fits first: a merge fits when both clusters are as large as it says
        ready = next(r for r in pending if r[0] == pending[0][0] and (size[r[1]], size[r[2]]) == r[4:])
        pending.remove(ready)
        size[ready[1]] += size.pop(ready[2])
        root[ready[2]] = ready[1]
    return True


def test_sizes_ties_and_fragments_are_those_of_the_volume_on_every_grid() -> None:
    rng = np.random.default_rng(31)
    for _ in range(25):
        case = random_case(rng)
        whole, blocks = (levels_of(case, grids) for grids in random_grids(case, rng))
        assert rows_of(whole) == rows_of(blocks)
        assert slow_sizes(case, rows_of(whole))
        names, counts = np.unique(case.labels[case.labels != 0], return_counts=True)
        found = {}
        for chunk in chunks(blocks):
            rows = dict(zip(chunk.sizes.fragment.tolist(), chunk.sizes.voxels.tolist(), strict=True))
            assert not found.keys() & rows.keys(), "a fragment is complete in one chunk"
            found |= rows
        assert found == dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_the_largest_objects_and_their_weakest_bridges() -> None:
    rng = np.random.default_rng(32)
    for _ in range(30):
        case = random_case(rng)
        for grids in random_grids(case, rng):
            levels = levels_of(case, grids)
            for threshold in thresholds(case, levels, rng):
                guard = int(rng.choice([0, 0, 6, 20]))
                labels, objects = descended(case, grids, levels, threshold, cut, guard)
                names, counts = np.unique(labels[labels != 0], return_counts=True)
                order = np.lexsort((names, -counts))[:LISTED]
                assert objects.name.tolist() == names[order].tolist()
                assert objects.voxels.tolist() == counts[order].tolist()
                inside = dict(zip(case.labels.ravel().tolist(), labels.ravel().tolist(), strict=True))
                bridges: dict[int, list[float]] = {}
                for score, a, b, _, voxels_a, voxels_b in rows_of(levels):
                    if score > threshold and not 0 < guard < voxels_a + voxels_b:
                        assert inside[int(a)] == inside[int(b)]
                        bridges.setdefault(inside[int(a)], []).append(score)
                weakest = [min(bridges.get(name, [0.0])) for name in objects.name.tolist()]
                assert objects.score.tolist() == weakest
                assert ((objects.voxels_b == 0) == ~np.isin(objects.name, list(bridges))).all()


def test_a_guard_keeps_objects_small_unless_a_fragment_is_larger() -> None:
    rng = np.random.default_rng(33)
    for _ in range(20):
        case = random_case(rng)
        grids = random_grids(case, rng)[1]
        levels = levels_of(case, grids)
        labels, _ = descended(case, grids, levels, case.floor, cut, 9)
        largest_fragment = int(np.unique(case.labels[case.labels != 0], return_counts=True)[1].max(initial=0))
        counts = np.unique(labels[labels != 0], return_counts=True)[1]
        assert counts.max(initial=0) <= max(9, largest_fragment)
