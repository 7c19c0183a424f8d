import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.lattice import Lattice
from models.spec import NEAREST
from pipeline.geometry import Box, Grid
from pipeline.ops.predict import ENOUGH, choose_block, keep_existing_edges, redundancy

SHAPE = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def reference(codes: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out, histogram = np.zeros_like(codes), np.zeros(256, np.int64)
    for c, z, y, x in np.ndindex(*codes.shape):
        here = (z + 1, y + 1, x + 1)
        partner = tuple(i + o for i, o in zip(here, NEAREST[c], strict=True))
        if not absent[here] and not absent[partner]:
            out[c, z, y, x] = codes[c, z, y, x]
            histogram[codes[c, z, y, x]] += 1
    return out, histogram


@given(st.data(), SHAPE)
def test_edges_of_absent_voxels_vanish(data: st.DataObject, shape: tuple[int, int, int]):
    codes = data.draw(hnp.arrays(np.uint8, (3, *shape)))
    absent = data.draw(hnp.arrays(np.bool_, tuple(n + 1 for n in shape)))
    expected, histogram = reference(codes, absent)
    np.testing.assert_array_equal(keep_existing_edges(codes, absent, NEAREST), histogram)
    np.testing.assert_array_equal(codes, expected)


FURTHER = (*NEAREST, (-2, 0, 0), (0, 3, -1), (1, -2, 0))
LOW, HIGH = (2, 2, 1), (1, 3, 0)  # how far they reach


def restricted(codes: np.ndarray, absent: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxel by voxel; `background` covers what `absent` does."""
    out, histogram = np.zeros_like(codes), np.zeros(256, np.int64)
    for c, z, y, x in np.ndindex(*codes.shape):
        here = tuple(i + low for i, low in zip((z, y, x), LOW, strict=True))
        partner = tuple(i + o for i, o in zip(here, FURTHER[c], strict=True))
        exists = not absent[here] and not absent[partner] and not background[here]
        if c < 3:
            exists = exists and not background[partner]
        if exists:
            out[c, z, y, x] = codes[c, z, y, x]
        if exists and c < 3:
            histogram[codes[c, z, y, x]] += 1
    return out, histogram


@given(st.data(), SHAPE)
def test_edges_to_background_vanish(data: st.DataObject, shape: tuple[int, int, int]):
    codes = data.draw(hnp.arrays(np.uint8, (len(FURTHER), *shape)))
    around = tuple(n + low + high for n, low, high in zip(shape, LOW, HIGH, strict=True))
    absent, background = (data.draw(hnp.arrays(np.bool_, around)) for _ in range(2))
    expected, histogram = restricted(codes, absent, background)
    before = background[tuple(slice(low - 1, low + n) for low, n in zip(LOW, shape, strict=True))]
    np.testing.assert_array_equal(keep_existing_edges(codes, absent, FURTHER, before), histogram)
    np.testing.assert_array_equal(codes, expected)


def brute_redundancy(lattice: Lattice, grid: Grid) -> float:
    evaluated = sum(
        len(list(lattice.touching(box.begin, box.end))) for box in (grid.block_box(index) for index in grid)
    )
    return evaluated / len(list(lattice.touching(grid.box.begin, grid.box.end)))


@pytest.mark.parametrize("block", [(4, 8, 8), (8, 16, 24), (100, 100, 100)])
@pytest.mark.parametrize("roi", [Box((0, 0, 0), (20, 50, 61)), Box((3, 17, 5), (11, 40, 61))])
def test_redundancy_is_evaluations_per_patch(block, roi):
    lattice = Lattice((20, 50, 61), (6, 16, 16), (4, 12, 12))
    assert redundancy(lattice, Grid(roi, block)) == pytest.approx(brute_redundancy(lattice, Grid(roi, block)))


def test_redundancy_counts_what_a_block_looks_at_before_itself():
    lattice, roi = Lattice((20, 50, 61), (6, 16, 16), (4, 12, 12)), Box((3, 17, 5), (11, 40, 61))
    grid = Grid(roi, (4, 8, 8))
    grown = [grid.block_box(index).grow((1, 1, 1), (0, 0, 0)).clip(roi) for index in grid]
    evaluated = sum(lattice.count(box.begin, box.end) for box in grown)
    assert redundancy(lattice, grid, before=1) == pytest.approx(evaluated / lattice.count(roi.begin, roi.end))


def test_one_block_is_not_redundant():
    lattice = Lattice((20, 50, 61), (6, 16, 16), (4, 12, 12))
    assert redundancy(lattice, Grid(Box.of_shape((20, 50, 61)), (20, 50, 61))) == 1


def test_the_smallest_block_that_is_good_enough_is_chosen():
    shape = (64, 256, 256)
    lattice = Lattice(shape, (16, 96, 96), (12, 80, 80))
    block = choose_block(lattice, Box.of_shape(shape), (32, 64, 64), lambda _: True)
    assert redundancy(lattice, Grid(Box.of_shape(shape), block)) < ENOUGH
    assert block == (32, 256, 256)


def test_memory_limits_the_block():
    shape = (1000, 4000, 4000)
    lattice = Lattice(shape, (16, 96, 96), (12, 80, 80))
    roi = Box.of_shape(shape)
    free = choose_block(lattice, roi, (32, 64, 64), lambda _: True)
    tight = choose_block(lattice, roi, (32, 64, 64), lambda block: np.prod(block) <= 8 << 20)
    assert redundancy(lattice, Grid(roi, free)) < ENOUGH
    assert np.prod(tight) <= 8 << 20
    assert redundancy(lattice, Grid(roi, free)) < redundancy(lattice, Grid(roi, tight))


def test_a_layer_smaller_than_a_chunk_gets_one_chunk():
    lattice = Lattice((5, 20, 20), (16, 96, 96), (12, 80, 80))
    assert choose_block(lattice, Box.of_shape((5, 20, 20)), (32, 64, 64), lambda _: False) == (32, 64, 64)
