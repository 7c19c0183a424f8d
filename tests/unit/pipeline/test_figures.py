"""Figures: the middle of the region, physical proportions, and never a picture of what is not there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import figures
from pipeline.errors import ChunkMissing
from pipeline.figures import Cut, cuts, length, scale_nm, take
from pipeline.geometry import Box, Grid, VoxelSize

SIZE = VoxelSize.from_nm((30, 12, 12))


def test_cuts_go_through_the_middle_of_the_region():
    across, along = cuts(Box((10, 100, 200), (30, 160, 240)), SIZE)
    assert across.box == Box((19, 100, 200), (20, 160, 240))
    assert across.size_nm == (720, 480)
    assert str(across) == "xy at z = 19: 480 nm \u00d7 720 nm"
    assert along.box == Box((12, 129, 200), (28, 130, 240))  # no higher than wide: 16 x 30 nm = 480 nm
    assert along.axes == (0, 2)
    assert along.shape_px == (512, 512)


def test_cuts_of_a_large_volume_stay_small():
    across, along = cuts(Box.of_shape((5000, 50_000, 60_000)), SIZE)
    assert across.box.shape == (1, 1024, 1024)
    assert along.box.shape == (409, 1, 1024)
    assert across.box.begin == (2499, 24_488, 29_488)


def test_cuts_of_one_voxel():
    across, along = cuts(Box((3, 4, 5), (4, 5, 6)), SIZE)
    assert across.box == along.box == Box((3, 4, 5), (4, 5, 6))


def section() -> tuple[Cut, Grid, np.ndarray]:
    volume = np.arange(4 * 6 * 8, dtype=np.uint64).reshape(4, 6, 8)
    return Cut(Box((2, 1, 0), (3, 6, 8)), 0, SIZE), Grid(Box.of_shape(volume.shape), (2, 3, 4)), volume


def test_a_cut_is_read_in_blocks():
    cut, grid, volume = section()
    asked = []

    def read(box):
        asked.append(box)
        return volume[box.slices()]

    taken = take(cut, grid, read)
    assert np.array_equal(taken.plane, volume[2, 1:])
    assert not taken.missing.any()
    assert taken.why == ""
    assert sum(box.voxels for box in asked) == cut.box.voxels
    assert all(box.shape[0] == 1 for box in asked)


def test_what_cannot_be_read_is_missing_and_says_why():
    cut, grid, volume = section()

    def read(box):
        if box.begin[1:] == (3, 4):
            raise ChunkMissing("data is missing", where="somewhere")
        return volume[box.slices()]

    taken = take(cut, grid, read)
    assert taken.why == "data is missing"
    assert taken.missing[2:, 4:].all()
    assert taken.missing.sum() == 12


def test_only_blocks_with_a_receipt_are_read():
    cut, grid, volume = section()
    current = {index: "digest" for index in grid}
    del current[1, 0, 0], current[1, 0, 1]
    survey = SimpleNamespace(current=current, masked={(1, 1, 0)}, failed={(1, 0, 0): None})
    asked = []

    def read(box):
        asked.append(box)
        return volume[box.slices()]

    taken = take(cut, grid, read, survey=survey)
    assert asked == [Box((2, 3, 4), (3, 6, 8))]
    assert taken.missing.sum() == cut.box.voxels - 12
    assert taken.why == "failed, not done, masked"


def test_channels_stay_in_front():
    grid = Grid(Box.of_shape((4, 6, 8)), (2, 3, 4))
    codes = np.arange(3 * 4 * 6 * 8).astype(np.uint8).reshape(3, 4, 6, 8)
    cut = Cut(Box((0, 2, 0), (4, 3, 8)), 1, SIZE)
    taken = take(cut, grid, lambda box: codes[(..., *box.slices())], channels=3)
    assert np.array_equal(taken.plane, codes[:, :, 2])
    assert taken.missing.shape == (4, 8)


@pytest.mark.parametrize(
    ("width_nm", "expected"), [(3072, 500), (3400, 1000), (40, 10), (12, 2), (1e6, 200_000), (667, 200)]
)
def test_scale_bars_are_round_and_fit(width_nm, expected):
    assert scale_nm(width_nm) == expected
    assert expected <= width_nm * figures.SCALE_SHARE


@pytest.mark.parametrize(
    ("nm", "said"), [(500, "500 nm"), (1000, "1 µm"), (3072, "3.07 µm"), (2.5e6, "2.5 mm"), (7.5, "7.5 nm")]
)
def test_lengths(nm, said):
    assert length(nm) == said
