"""Upsample: labels repeated at the image's voxel size, the same on every grid, with regions, odd borders and masks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from labels_in_memory import LabelsInMemory

from pipeline.config import parse
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Grid, Index, Layer, VoxelSize
from pipeline.stages.stage import Site
from pipeline.stages.upsample import Upsample

LAYER = (6, 11, 13)
IMAGE = (6, 23, 27)  # a voxel more in y and in x than whole ones of the layer
COARSE, FINE = VoxelSize.from_nm((30, 12, 12)), VoxelSize.from_nm((30, 6, 6))
LABELS = np.random.default_rng(1).integers(1, 99, LAYER, dtype=np.uint64)
BLOCKS: tuple[Index, ...] = ((4, 8, 8), (3, 7, 5), (16, 64, 64))


def upsampled(tmp_path: Path, block: Index, roi: Box, hidden: Iterable[Index] = ()) -> tuple[Upsample, np.ndarray]:
    config = parse(
        {
            "input": {"image": str(tmp_path / "image.npy")},
            "blocks": {"shape": block, "chunk": block},
            "relabel": {"upsample": True},
        },
        where="test",
    )
    facts = {"image": {"fingerprint": "i", "shape": list(IMAGE), "voxel_size_pm": list(FINE.pm)}, "masks": []}
    place = tmp_path / "-".join(map(str, (*block, *roi.begin)))
    relabel = LabelsInMemory(Site(config, Layer(LAYER, roi, COARSE), facts, place, ()))
    relabel.hidden = frozenset(hidden)
    relabel.fill(LABELS)
    stage = Upsample(Site(config, Layer(LAYER, roi, COARSE), facts, place, (relabel,)))
    (sweep,) = stage.passes()
    stage.prepare()
    fine = np.zeros(IMAGE, np.uint64)
    for index in sweep.grid:
        if stage.masked(sweep.name, index):
            continue
        written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
        assert written.parts == stage.reread(sweep.name, index)
        box = sweep.grid.block_box(index)
        fine[box.slices()] = stage.labels.read(box)
    return stage, fine


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def repeated(labels: np.ndarray) -> np.ndarray:
    fine = np.zeros(IMAGE, np.uint64)
    fine[:, :22, :26] = np.repeat(np.repeat(labels, 2, 1), 2, 2)
    return fine


@pytest.mark.parametrize("block", BLOCKS)
def test_labels_are_repeated_on_every_grid(tmp_path: Path, block: Index) -> None:
    stage, fine = upsampled(tmp_path, block, Box.of_shape(LAYER))
    assert stage.passes()[0].grid.box == Box.of_shape(IMAGE)
    assert np.array_equal(fine, repeated(LABELS))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_region_and_masked_blocks(tmp_path: Path, block: Index) -> None:
    roi = Box((1, 2, 3), (6, 10, 13))
    stage, fine = upsampled(tmp_path, block, roi, hidden=[(0, 0, 0)])
    assert stage.passes()[0].grid.box == Box((1, 4, 6), (6, 20, 27))
    left = np.zeros(LAYER, np.uint64)
    left[roi.slices()] = LABELS[roi.slices()]
    left[Grid(roi, block).block_box((0, 0, 0)).slices()] = 0
    assert np.array_equal(fine, repeated(left))


def test_nothing_to_do_where_sizes_agree_or_nobody_asks(tmp_path: Path) -> None:
    for upsample, size in ((True, COARSE), (False, FINE)):
        config = parse({"input": {"image": "x.npy"}, "relabel": {"upsample": upsample}}, where="test")
        facts = {"image": {"fingerprint": "i", "shape": list(LAYER), "voxel_size_pm": list(size.pm)}}
        site = Site(config, Layer(LAYER, Box.of_shape(LAYER), COARSE), facts, tmp_path, ())
        assert Upsample(site).passes() == ()


def test_given_affinities_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"relabel\.upsample"):
        parse({"affinities": {"path": "a.npy"}, "relabel": {"upsample": True}}, where="test")
