"""The region graph: against plain Python, and its sections against each other on any grid."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.geometry import Box, Grid
from pipeline.ops import faces
from pipeline.ops.edges import Edges, combine
from pipeline.ops.region_graph import Place, contacts, lasting, nodes


def reference(
    labels: np.ndarray, codes: np.ndarray, table: np.ndarray, roi: Box, layer: tuple[int, int, int]
) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """(a, b) -> (sum, count, tie, largest code), voxel edge by voxel edge."""
    found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for channel, *p in np.ndindex(3, *labels.shape):
        q = [v - (axis == channel) for axis, v in enumerate(p)]
        if min(q) < 0:
            continue
        a, b = sorted((int(labels[tuple(p)]), int(labels[tuple(q)])))
        if a == 0 or a == b:
            continue
        z, y, x = (v + o for v, o in zip(p, roi.begin, strict=True))
        tie = (channel << 58) + (z * layer[1] + y) * layer[2] + x
        code = int(codes[(channel, *p)])
        total, count, worst, top = found.get((a, b), (0, 0, 0, 0))
        found[a, b] = (total + int(table[code]), count + 1, max(worst, tie), max(top, code))
    return found


def as_dict(edges: Edges) -> dict[tuple[int, int], tuple[int, int, int]]:
    rows = zip(*(column.tolist() for column in list(edges.columns().values())[:5]), strict=True)
    return {(a, b): (total, count, tie) for a, b, total, count, tie in rows}


def blocks(labels: np.ndarray, codes: np.ndarray, table: np.ndarray, grid: Grid, layer: tuple[int, int, int]):
    for index in grid:
        box = grid.block_box(index)
        before = {}
        for axis, side in enumerate(faces.LOW):
            if box.begin[axis] > grid.box.begin[axis]:
                where: list[slice | int] = list(box.slices(grid.box.begin))
                where[axis] = where[axis].start - 1
                before[side] = labels[tuple(where)]
        inside = box.slices(grid.box.begin)
        part = labels[inside]
        place = Place(box.begin, layer)
        yield index, part, contacts(part, codes[(slice(None), *inside)], before, code_table=table, place=place)


@pytest.mark.parametrize("seed", range(30))
def test_any_grid_counts_every_edge_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, 3))
    labels = rng.choice(rng.integers(0, 2**62, int(rng.integers(2, 40))).astype(np.uint64), shape)
    labels[rng.random(shape) < 0.2] = 0
    codes = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    table = np.sort(rng.integers(0, 65536, 256)).astype(np.uint16)
    origin = tuple(int(n) for n in rng.integers(0, 30, 3))
    roi = Box.of_shape(shape).shift(origin)
    layer = tuple(int(e) + 5 for e in roi.end)
    expected = reference(labels, codes, table, roi, layer)
    grid = Grid(roi, tuple(int(n) for n in rng.integers(1, 6, 3)))
    sections = list(blocks(labels, codes, table, grid, layer))
    everything = combine(part for _, _, found in sections for part in found.values())
    assert as_dict(everything) == {pair: row[:3] for pair, row in expected.items()}
    largest: dict[tuple[int, int], int] = {}
    for _, _, found in sections:
        for part in found.values():
            for a, b, code in zip(part.a.tolist(), part.b.tolist(), part.largest.tolist(), strict=True):
                largest[a, b] = max(code, largest.get((a, b), 0))
    assert largest == {pair: int(table[row[3]]) for pair, row in expected.items()}
    for index, _, found in sections:
        assert list(found) == ["inner", "low_z", "low_y", "low_x"]
        for axis, side in enumerate(faces.LOW):
            assert index[axis] > 0 or found[side].size == 0


def test_the_table_grows_without_losing_rows() -> None:
    shape = (6, 30, 30)
    labels = np.arange(1, 5401, dtype=np.uint64).reshape(shape)
    codes = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    table = np.arange(256) * 257
    box = Box.of_shape(shape)
    found = contacts(labels, codes, {}, code_table=table, place=Place(box.begin, shape))
    assert as_dict(found["inner"]) == {k: v[:3] for k, v in reference(labels, codes, table, box, shape).items()}
    assert nodes(labels, 0).name.tolist() == list(range(1, 5401))


def test_nodes_know_their_volume_and_the_internal_faces_they_reach() -> None:
    labels = np.zeros((3, 3, 3), np.uint64)
    labels[0, 0, 0] = labels[1, 0, 0] = 7
    labels[2, 2, 2] = labels[1, 2, 2] = labels[1, 1, 2] = 5
    labels[1, 1, 1] = 6
    found = nodes(labels, internal=0b111111)
    assert found.name.tolist() == [5, 6, 7]
    assert found.volume.tolist() == [3, 1, 2]
    assert found.mask.tolist() == [0b101010, 0, 0b010101]
    assert nodes(labels, internal=0b000001).mask.tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_codes_of_any_kind_and_histograms(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        shape = tuple(int(n) for n in rng.integers(1, 21, 3))
        labels = rng.integers(0, 6, shape).astype(np.uint64)
        if rng.random() < 0.5:  # long runs
            labels = np.sort(labels, axis=2)
        table = np.sort(rng.integers(0, 65536, 65536 if kind == "uint16" else 256))
        codes = rng.integers(0, table.size, (5, *shape)).astype("uint16" if kind == "float32" else kind)
        whole, given = table, table
        if kind == "float32":
            integers = rng.integers(0, 65536, (5, *shape))
            codes, whole, given = (integers / 65535).astype(np.float32), np.arange(65536), None
            codes[rng.random(codes.shape) < 0.1] = np.nan
            integers = np.floor(np.nan_to_num(codes).astype(np.float64) * 65535 + 0.5).astype(np.int64)
        else:
            integers = codes
        box = Box.of_shape(shape)
        place = Place(box.begin, shape)
        found = contacts(labels, codes, {}, code_table=given, place=place, histograms=True)["inner"]
        expected = reference(labels, integers, whole, box, shape)
        assert as_dict(found) == {pair: row[:3] for pair, row in expected.items()}
        pairs = list(zip(found.a.tolist(), found.b.tolist(), strict=True))
        largest = {pair: int(whole[row[3]]) for pair, row in expected.items()}
        assert dict(zip(pairs, found.largest.tolist(), strict=True)) == largest
        bins: dict[tuple[int, int, int], int] = {}
        for channel, *p in np.ndindex(3, *shape):
            q = [v - (axis == channel) for axis, v in enumerate(p)]
            if min(q) >= 0 and (pair := tuple(sorted((int(labels[tuple(p)]), int(labels[tuple(q)]))))) in expected:
                key = (*pair, int(whole[integers[(channel, *p)]]) >> 8)
                bins[key] = bins.get(key, 0) + 1
        rows = found.histograms.columns()
        columns = (rows[column].tolist() for column in ("edge", "bin", "count"))
        assert {(*pairs[e], b): n for e, b, n in zip(*columns, strict=True)} == bins
        assert list(zip(rows["edge"].tolist(), rows["bin"].tolist(), strict=True)) == sorted(
            zip(rows["edge"].tolist(), rows["bin"].tolist(), strict=True)
        )


def test_a_fragment_is_complete_when_its_last_piece_is() -> None:
    name = np.array([3, 5, 9], np.uint64)
    fragment = np.array([5, 0, 3, 5], np.uint64)
    assert lasting(name, fragment, np.array([1, 7, 2, 4], np.uint8)).tolist() == [2, 4, 0]
