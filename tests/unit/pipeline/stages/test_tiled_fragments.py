"""Backends on tiles: the same labels for every grouping of tiles into blocks; connected; named by first voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from skimage.measure import label

from pipeline.config import parse
from pipeline.errors import ConfigError
from pipeline.ops.seeded import seeded_watershed
from pipeline.ops.waterz_backend import waterz_segments
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.relabel import Relabel

TILES = {"tile": [6, 10, 10], "halo": [1, 3, 4]}
SETTINGS = {"seeded": {**TILES, "threshold": 0.6}, "waterz": {**TILES, "threshold": 0.7}}


def made(chain: Callable[..., Any], method: str, block: tuple[int, int, int], **settings: Any) -> Any:
    sections = {"fragments": {"method": method}, method: {**SETTINGS[method], **settings}}
    return chain(block, **sections).run()


@pytest.mark.parametrize("method", ["seeded", "waterz"])
def test_blocks_only_group_tiles(chain: Callable[..., Any], method: str) -> None:
    one = made(chain, method, (24, 40, 40))
    assert one.fragments().any()
    for block in ((6, 10, 10), (12, 20, 40), (6, 40, 20)):
        other = made(chain, method, block)
        np.testing.assert_array_equal(other.fragments(), one.fragments())
        np.testing.assert_array_equal(other.segmentation(), one.segmentation())
    assert len(np.unique(one.segmentation())) < len(np.unique(one.fragments()))
    moved = made(chain, method, (24, 40, 40), tile=[8, 20, 20])
    assert not np.array_equal(moved.fragments(), one.fragments())  # tiles are part of the method


@pytest.mark.parametrize("method", ["seeded", "waterz"])
def test_fragments_are_connected_and_named_after_their_first_voxel(chain: Callable[..., Any], method: str) -> None:
    done = made(chain, method, (12, 20, 20))
    labels, corner = done.fragments(), done.stage(FragmentSource).site.layer.roi.begin
    assert label(labels, background=0, connectivity=1).max() == np.unique(labels[labels != 0]).size
    for name in np.unique(labels[labels != 0])[:50]:
        z, y, x = (int(w[0]) + b for w, b in zip(np.nonzero(labels == name), corner, strict=True))
        assert name == 1 + (z << 42 | y << 21 | x)


def test_only_the_chosen_method_is_active(chain: Callable[..., Any]) -> None:
    found = made(chain, "seeded", (12, 20, 20))
    assert [stage.name for stage in found.stages if isinstance(stage, FragmentSource)] == ["seeded"]
    assert found.stage(Relabel).fragments.name == "seeded"


def test_blocks_that_cut_tiles_are_refused() -> None:
    given = {"input": {"synthetic": {}}, "fragments": {"method": "waterz"}, "waterz": {"tile": [5, 5, 5]}}
    with pytest.raises(ConfigError, match="multiple of the tile"):
        parse(given, where="here")


def test_seeds_are_the_middles_of_what_is_inside() -> None:
    affinities = np.ones((3, 2, 9, 19), np.float32)
    affinities[:, :, :, 9] = 0.1  # a membrane between two squares
    flat = seeded_watershed(affinities, threshold=0.5, flat=True, voxel_size_nm=(30, 6, 6))
    assert len(np.unique(flat)) == 4  # two in each of two sections
    assert all(flat[z, 4, 3] != flat[z, 4, 15] for z in range(2))
    solid = seeded_watershed(affinities, threshold=0.5, flat=False, voxel_size_nm=(30, 6, 6))
    assert len(np.unique(solid)) == 2
    affinities[:, :, 0] = 0
    assert not seeded_watershed(affinities, threshold=0.5, flat=True, voxel_size_nm=(30, 6, 6))[:, 0].any()


def test_waterz_merges_above_the_threshold_only() -> None:
    affinities = np.ones((3, 2, 6, 12), np.float32)
    for axis in range(3):
        affinities[axis][(slice(None),) * axis + (0,)] = 0
    affinities[2, :, :, 6] = 0.4
    assert len(np.unique(waterz_segments(affinities, low=0.0001, high=0.9, threshold=0.5))) == 2
    assert len(np.unique(waterz_segments(affinities, low=0.0001, high=0.9, threshold=0.3))) == 1
