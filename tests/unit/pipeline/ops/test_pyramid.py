"""The levels of a pyramid."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Box, VoxelSize
from pipeline.ops.pyramid import coarse_box, first_voxels, levels


def test_flat_voxels_are_halved_in_plane_until_they_are_nearly_cubes() -> None:
    steps = [level.step for level in levels(VoxelSize.from_nm((50, 6, 6)), 5)]
    assert steps == [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    made = levels(VoxelSize.from_nm((30, 12, 12)), 2)
    assert [level.voxel_size for level in made] == [VoxelSize.from_nm((30, 24, 24)), VoxelSize.from_nm((60, 48, 48))]
    assert made[1].factor == (2, 4, 4)


def test_cubes_are_halved_along_all_axes() -> None:
    assert [level.step for level in levels(VoxelSize.from_nm((8, 8, 8)), 2)] == [(2, 2, 2), (2, 2, 2)]


TRIPLES = st.tuples(*[st.integers(0, 30)] * 3)


@given(TRIPLES, TRIPLES, st.tuples(*[st.integers(1, 4)] * 3))
def test_a_coarse_voxel_belongs_to_a_region_iff_its_first_voxel_does(
    begin: tuple[int, int, int], shape: tuple[int, int, int], factor: tuple[int, int, int]
) -> None:
    box = Box(begin, begin).grow((0, 0, 0), shape)
    coarse = coarse_box(box, factor)
    for axis in range(3):
        expected = [c for c in range(100) if box.begin[axis] <= c * factor[axis] < box.end[axis]]
        assert expected == list(range(coarse.begin[axis], coarse.end[axis]))
    assert box.contains(first_voxels(coarse, factor)) or coarse.voxels == 0
    if coarse.voxels:
        assert coarse_box(first_voxels(coarse, factor), factor) == coarse


@given(TRIPLES, TRIPLES)
def test_two_steps_are_one(begin: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    box = Box(begin, begin).grow((0, 0, 0), shape)
    assert coarse_box(coarse_box(box, (1, 2, 2)), (2, 2, 2)) == coarse_box(box, (2, 4, 4))
