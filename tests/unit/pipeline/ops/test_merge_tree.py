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
from pipeline.ops.merge_tree import Renames, cut, unchanged
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
    low = tuple(found[side].edges for side in faces.LOW)
    return Part(box, own.name, own.mask, found["inner"].edges, low) if own.name.size else None


def levels_of(case: Case, grids: tuple[Grid, ...]) -> list[Level]:
    """Up the hierarchy, as the stage does it."""
    parts = {index: graph_of(case, grids[0], index) for index in grids[0]}
    found = [{i: agglomerate([p], p.box, floor=case.floor) for i, p in parts.items() if p is not None}]
    for finer, grid in pairwise(grids):
        children = {index: [c for c in finer.children(index) if c in found[-1]] for index in grid}
        found.append(
            {
                index: agglomerate([found[-1][c].part for c in there], grid.block_box(index), floor=case.floor)
                for index, there in children.items()
                if there
            }
        )
    return found


def descended(case: Case, grids: tuple[Grid, ...], levels: list[Level], threshold: float, step: Cut) -> np.ndarray:
    """Down again: the labels of all blocks at a threshold."""
    above: dict[Index, Renames] = {}
    for level in reversed(levels):
        here = {}
        for index, found in level.items():
            parent = above.get(tuple(i // 2 for i in index), unchanged())  # type: ignore[call-overload]
            tree = found.tree
            here[index] = step(
                tree.a, tree.b, tree.score, threshold=threshold, handed_up=found.part.name, parent=parent
            )
        above = here
    labels = np.zeros_like(case.labels)
    for index, found in above.items():
        where = grids[0].block_box(index).slices(case.roi.begin)
        labels[where] = rename(case.labels[where], found.old, found.new)
    return labels


def slow_components(case: Case, levels: list[Level], threshold: float) -> np.ndarray:
    """All merges of all levels, in one dictionary."""
    root = {name: name for name in np.unique(case.labels).tolist()}

    def find(name: int) -> int:
        while root[name] != name:
            name = root[name]
        return name

    for found in (found for level in levels for found in level.values()):
        columns = (found.tree.a.tolist(), found.tree.b.tolist(), found.tree.score.tolist())
        for a, b, score in zip(*columns, strict=True):
            if score > threshold:
                low, high = sorted((find(a), find(b)))
                root[high] = low
    return np.vectorize(find, otypes=[np.uint64])(case.labels)


def thresholds(case: Case, levels: list[Level], rng: np.random.Generator) -> list[float]:
    """The floor, scores that occur, and one between."""
    scores = np.concatenate([found.tree.score for level in levels for found in level.values()] or [np.zeros(1)])
    some = rng.choice(scores, 4).tolist() if scores.size else []
    return [case.floor, *some, 0.5 * (case.floor + TABLE[-1])]


def failures(seed: int, cases: int, step: Cut = cut) -> tuple[int, int]:
    """How many cuts there were, and how many of them were wrong."""
    rng = np.random.default_rng(seed)
    done = wrong = 0
    for _ in range(cases):
        case = random_case(rng)
        for block in ((8, 8, 8), tuple(int(n) for n in rng.integers(1, 5, 3))):
            grids = Grid(case.roi, block).levels
            levels = levels_of(case, grids)
            for threshold in thresholds(case, levels, rng):
                found = descended(case, grids, levels, threshold, step)
                wrong += not np.array_equal(found, slow_components(case, levels, threshold))
                done += 1
    return done, wrong


@pytest.mark.parametrize("seed", range(6))
def test_every_cut_on_every_grid_is_the_components_of_all_merges_above_it(seed: int) -> None:
    done, wrong = failures(seed, 34)
    assert (done >= 350, wrong) == (True, 0)


def without_parent(a: np.ndarray, b: np.ndarray, score: np.ndarray, **given: object) -> Renames:
    return cut(a, b, score, **{**given, "parent": unchanged()})  # type: ignore[arg-type]


def without_the_handed_up(a: np.ndarray, b: np.ndarray, score: np.ndarray, **given: object) -> Renames:
    return cut(a, b, score, **{**given, "handed_up": np.empty(0, np.uint64)})  # type: ignore[arg-type]


def at_the_threshold(a: np.ndarray, b: np.ndarray, score: np.ndarray, **given: object) -> Renames:
    return cut(a, b, score, **{**given, "threshold": np.nextafter(given["threshold"], -1)})  # type: ignore[arg-type, call-overload]


def without_own(a: np.ndarray, b: np.ndarray, score: np.ndarray, **given: object) -> Renames:
    return cut(a[:0], b[:0], score[:0], **given)  # type: ignore[arg-type]


def own_names_stay(a: np.ndarray, b: np.ndarray, score: np.ndarray, **given: object) -> Renames:
    """Renames of the parent reach its own nodes, but not what was united below them."""
    above, own = without_own(a, b, score, **given), without_parent(a, b, score, **given)
    old, new = np.concatenate([above.old, own.old]), np.concatenate([above.new, own.new])
    order = np.argsort(old)
    return Renames(old[order], new[order], own.kept)


@pytest.mark.parametrize(
    "broken", [without_parent, without_the_handed_up, at_the_threshold, without_own, own_names_stay]
)
def test_control_each_broken_rule_is_caught(broken: Cut) -> None:
    done, wrong = failures(70, 6, broken)
    assert wrong > done // 20
