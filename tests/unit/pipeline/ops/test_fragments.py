"""Fragments: one block, any grid and a slow reference agree, on small volumes with many ties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import fragments, pieces
from pipeline.ops.fragments import watershed
from pipeline.ops.relabel import rename


@dataclass(frozen=True)
class Case:
    codes: np.ndarray
    roi: Box
    thresholds: tuple[int, int]
    dust_vx: int
    hidden: np.ndarray  # voxels that a mask leaves out


def random_case(rng: np.random.Generator) -> Case:
    shape = tuple(int(n) for n in rng.integers(2, 11, 3))
    levels = np.sort(rng.choice(np.arange(256), size=rng.integers(2, 6), replace=False))
    codes = rng.choice(levels, size=(3, *shape)).astype(np.uint8)
    hidden = np.zeros(shape, bool)
    if rng.random() < 0.6:
        begin = [int(rng.integers(0, n)) for n in shape]
        hidden[tuple(slice(b, b + int(rng.integers(1, 7))) for b in begin)] = True
        hidden |= rng.random(shape) < 0.1
    hide_edges(codes, hidden)
    low, high = sorted(int(v) for v in rng.choice(256, 2))
    origin = tuple(int(n) for n in rng.integers(0, 50, 3))
    dust_vx = int(rng.choice([0, 0, 2, 3, 8, 40]))
    return Case(codes, Box.of_shape(shape).shift(origin), (low // 2, high), dust_vx, hidden)


def hide_edges(codes: np.ndarray, hidden: np.ndarray) -> None:
    for axis in range(3):
        end = np.moveaxis(hidden, axis, 0)
        edges = np.moveaxis(codes[axis], axis, 0)
        edges[end] = 0
        edges[1:][end[:-1]] = 0


def reference(case: Case) -> np.ndarray:
    """Sort all edges, let every voxel take its first, join, name: plain Python."""
    low, high = case.thresholds
    shape = case.roi.shape
    edges = []
    for channel, z, y, x in np.ndindex(3, *shape):
        p = (z, y, x)
        q = tuple(v - (axis == channel) for axis, v in enumerate(p))
        code = int(case.codes[channel, z, y, x])
        if min(q) >= 0 and code > low:
            edges.append((-code, channel, p, q))
    edges.sort()
    best: dict[tuple[int, ...], int] = {}
    for number, (_, _, p, q) in enumerate(edges):
        best.setdefault(p, number)
        best.setdefault(q, number)
    component = {p: p for p in best}
    for number, (minus_code, _, p, q) in enumerate(edges):
        if number in (best[p], best[q]) or -minus_code >= high:
            old, new = component[p], component[q]
            component = {k: new if v == old else v for k, v in component.items()}
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for voxel, root in component.items():
        members.setdefault(root, []).append(voxel)
    labels = np.zeros(shape, np.uint64)
    for voxels in members.values():
        if len(voxels) >= case.dust_vx:
            z, y, x = (v + o for v, o in zip(min(voxels), case.roi.begin, strict=True))
            for voxel in voxels:
                labels[voxel] = 1 + (z << 42 | y << 21 | x)
    return labels


def hierarchical(case: Case, block: tuple[int, int, int], *, forget_faces: bool = False) -> np.ndarray:
    """Walk up and down the levels as the stage does, in memory. Blocks that the mask hides are not there."""
    grids = Grid(case.roi, block).levels
    cut, up = {}, [{}]
    for index in grids[0]:
        box = grids[0].block_box(index)
        if case.hidden[box.slices(case.roi.begin)].all():
            continue
        internal = grids[0].internal_faces(index)
        read = box.grow(fragments.HALO).clip(case.roi)
        codes = case.codes[(slice(None), *read.slices(case.roi.begin))]
        cut[index] = watershed(codes, box, case.roi, codes=case.thresholds, internal=internal)
        mask = cut[index].mask * np.uint8(not forget_faces)
        part = pieces.Part(box, cut[index].name, cut[index].volume, mask, cut[index].slabs)
        up[0][index] = pieces.join([part], box, internal=internal, dust_vx=case.dust_vx)
    for finer, grid in pairwise(grids):
        level = {}
        for index in grid:
            parts = [up[-1][child].part for child in finer.children(index) if child in up[-1]]
            box, internal = grid.block_box(index), grid.internal_faces(index)
            level[index] = pieces.join(parts, box, internal=internal, dust_vx=case.dust_vx)
        up.append(level)
    top = up[-1].get((0, 0, 0))
    final = {(0, 0, 0): (top.old, top.new)} if top else {}
    for level in reversed(up[:-1]):
        final = {
            index: pieces.compose(joined.old, joined.new, joined.part.name, parent=final[tuple(i // 2 for i in index)])
            for index, joined in level.items()
        }
    labels = np.zeros(case.roi.shape, np.uint64)
    for index, piece in cut.items():
        where = grids[0].block_box(index).slices(case.roi.begin)
        labels[where] = rename(piece.labels_ZYX, *final[index])
    return labels


@pytest.mark.parametrize("seed", range(10))
def test_every_grid_gives_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(12):
        case = random_case(rng)
        expected = reference(case)
        np.testing.assert_array_equal(hierarchical(case, case.roi.shape), expected)
        for _ in range(3):
            block = tuple(int(n) for n in rng.integers(1, 7, 3))
            np.testing.assert_array_equal(hierarchical(case, block), expected, err_msg=str(block))


def test_grids_agree_on_larger_volumes() -> None:
    rng = np.random.default_rng(100)
    for _ in range(10):
        shape = tuple(int(n) for n in rng.integers(12, 30, 3))
        codes = rng.integers(0, int(rng.choice([3, 8, 256])), (3, *shape)).astype(np.uint8)
        case = Case(codes, Box.of_shape(shape), (0, int(codes.max())), int(rng.choice([0, 30])), np.zeros(shape, bool))
        whole = hierarchical(case, shape)
        for block in ((5, 4, 7), (8, 16, 16), (1, 40, 3)):
            np.testing.assert_array_equal(hierarchical(case, block), whole)


def caught_share(seed: int, **rules: bool) -> float:
    """How often a broken rule shows: other labels than the reference, or tables that contradict each other."""
    rng = np.random.default_rng(seed)
    caught = 0
    for _ in range(30):
        case = replace(random_case(rng), dust_vx=3)
        try:
            caught += bool((hierarchical(case, (2, 3, 2), **rules) != reference(case)).any())
        except ChunkCorrupt:
            caught += 1
    return caught / 30


def test_control_dust_decided_in_the_block_is_caught() -> None:
    assert caught_share(5) == 0
    assert caught_share(5, forget_faces=True) > 0.3


def test_control_block_without_halo_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "HALO", (0, 0, 0))
    assert caught_share(6) > 0.3


def test_control_halo_on_the_low_side_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class LowHalo(Box):
        def grow(self, before, after=None):
            return super().grow(before, (0, 0, 0))

    grow = Grid.block_box
    monkeypatch.setattr(Grid, "block_box", lambda self, index: LowHalo(grow(self, index).begin, grow(self, index).end))
    assert caught_share(7) > 0.3


def test_names_are_first_voxels_in_the_layer() -> None:
    codes = np.full((3, 1, 1, 4), 200, np.uint8)
    codes[2, 0, 0, 2] = 0  # cuts the row of four in the middle
    box = Box((3, 5, 7), (4, 6, 11))
    found = watershed(codes, box, box, codes=(0, 255), internal=0)
    first, second = (1 + (3 << 42 | 5 << 21 | x) for x in (7, 9))
    assert found.labels_ZYX.ravel().tolist() == [first, first, second, second]
    assert found.name.tolist() == [first, second]
    assert found.volume.tolist() == [2, 2]


def test_ties_go_to_the_smaller_channel_then_position() -> None:
    codes = np.zeros((3, 1, 2, 3), np.uint8)
    codes[2, 0, 0, 1:] = 9  # a row of equal edges: the middle voxel takes the first
    codes[1, 0, 1, 2] = 9  # the last voxel of the row prefers channel 1
    box = Box.of_shape((1, 2, 3))
    best = fragments._best_edges(codes, 0)
    assert best[0].tolist() == [[5, 4, 3], [6, 6, 2]]
    assert len(watershed(codes, box, box, codes=(0, 255), internal=0).name) == 2


def test_inputs_are_left_alone() -> None:
    codes = np.full((3, 2, 2, 2), 7, np.uint8)
    before = codes.copy()
    box = Box.of_shape((2, 2, 2))
    watershed(codes, box, box, codes=(0, 255), internal=0)
    np.testing.assert_array_equal(codes, before)
