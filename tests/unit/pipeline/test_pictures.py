"""Pictures: sizes are physical, colours follow ids, missing data never looks like data."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from pipeline import pictures


@pytest.mark.parametrize(
    ("shape_vx", "voxel_nm", "expected"),
    [
        ((256, 256), (12.0, 12.0), (512, 512)),
        ((64, 256), (30.0, 12.0), (320, 512)),  # 1920 x 3072 nm
        ((1024, 512), (4.0, 4.0), (512, 256)),
        ((1, 100_000), (40.0, 4.0), (1, 512)),  # never without a row
    ],
)
def test_proportions_are_physical(shape_vx, voxel_nm, expected):
    assert pictures.picture_shape(shape_vx, voxel_nm) == expected


def test_nearest_enlarges_and_reduces_without_new_labels():
    labels = np.array([[5, 7], [1 << 62, 0]], np.uint64)
    large = pictures.nearest(labels, (4, 6))
    assert large.dtype == np.uint64
    assert large[:2, :3].tolist() == [[5] * 3] * 2
    assert large[3, 5] == 0
    assert large[3, 0] == 1 << 62
    assert pictures.nearest(large, (2, 2)).tolist() == labels.tolist()
    assert pictures.nearest(np.stack([labels, labels]), (4, 6)).shape == (2, 4, 6)


def test_averaged_takes_the_mean_of_what_a_pixel_covers():
    image = np.array([[0, 100], [100, 200]], np.uint8)
    assert pictures.averaged(image, (1, 1)).tolist() == [[100]]
    assert pictures.averaged(image, (4, 4)).tolist() == np.kron(image, np.ones((2, 2), np.uint8)).tolist()


def test_affinities_go_through_the_table_and_x_is_red():
    table = np.linspace(0, 65535, 256).astype(np.int64)
    table[1:] = np.maximum(table[1:], 65535 // 2)
    codes = np.array([0, 1, 255], np.uint8).reshape(3, 1, 1)  # z, y, x
    assert pictures.affinities(codes, table).tolist() == [[[255, 127, 0]]]
    assert pictures.least_affinity(codes, table).tolist() == [[[127, 127, 127]]]
    assert pictures.least_affinity(codes, table, (0, 2)).tolist() == [[[0, 0, 0]]]


def test_seams_are_lines_between_parts():
    picture = np.full((4, 6, 3), 10, np.uint8)
    parts = np.repeat([[0, 0, 0, 4, 4, 4]], 4, axis=0)
    drawn = pictures.seamed(picture, parts)
    assert (drawn[:, [0, 1, 3, 4, 5]] == 10).all()
    assert (drawn[:, 2] == 255).all()
    assert (picture == 10).all()


def test_colours_follow_the_id_alone():
    labels = np.array([[3, 0], [1 << 60, 3]], np.uint64)
    shown = pictures.colour(labels)
    assert shown[0, 0].tolist() == shown[1, 1].tolist() == pictures.colour(np.array([[3]], np.uint64))[0, 0].tolist()
    assert shown[0, 1].tolist() == [0, 0, 0]
    assert shown[0, 0].tolist() != shown[1, 0].tolist()


def test_neighbouring_ids_get_different_colours():
    table = pictures.colour_of_ids(np.arange(1, 2001, dtype=np.uint64))
    assert len({tuple(row) for row in table.tolist()}) > 1000
    hues = [colorsys.rgb_to_hsv(*(row / 255))[0] for row in table]
    assert np.histogram(hues, bins=12, range=(0, 1))[0].min() > 100  # no hue is left out
    brightness = table.max(axis=1)
    assert brightness.min() > 150


def test_overlay_keeps_background_and_marks_borders():
    image = np.full((4, 4), 80, np.uint8)
    labels = np.zeros((4, 4), np.uint64)
    labels[:, :2] = 9
    shown = pictures.overlay(image, labels)
    assert (shown[:, 2:] == 80).all()
    colour = pictures.colour_of_ids(np.array([9], np.uint64))[0].astype(int)
    inside, border = (abs(shown[1, x].astype(int) - colour).sum() for x in (0, 1))
    assert border < inside


def test_truth_takes_the_colour_of_its_mutual_best_match():
    segmentation = np.array([[10, 10, 10, 20, 20, 30]], np.uint64)
    truth = np.array([[1, 1, 2, 2, 2, 0]], np.int32)
    found = pictures.matching_colours(truth, segmentation)
    expected = pictures.colour_of_ids(np.array([10, 20], np.uint64)).tolist()
    assert found == {1: tuple(expected[0]), 2: tuple(expected[1])}


def test_a_merged_object_keeps_a_colour_of_its_own():
    segmentation = np.full((1, 6), 10, np.uint64)
    truth = np.array([[1, 1, 1, 1, 2, 2]], np.uint64)
    assert set(pictures.matching_colours(truth, segmentation)) == {1}
    assert pictures.matching_colours(np.zeros_like(truth), segmentation) == {}


def test_missing_is_hatched():
    picture = np.full((16, 16, 3), 7, np.uint8)
    missing = np.zeros((16, 16), bool)
    assert pictures.hatched(picture, missing) is picture
    missing[:8] = True
    shown = pictures.hatched(picture, missing)
    assert {tuple(p) for p in shown[:8].reshape(-1, 3).tolist()} == set(pictures.HATCH)
    assert (shown[8:] == 7).all()
