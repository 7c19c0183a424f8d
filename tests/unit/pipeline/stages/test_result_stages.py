"""Pyramid and evaluate, with a stand-in for relabel: one answer on every grid, needs, products, measures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from labels_in_memory import LabelsInMemory

from pipeline.config import parse
from pipeline.errors import WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Index, Layer, VoxelSize
from pipeline.ops.evaluate import pairs, scores
from pipeline.ops.resample import mean_image
from pipeline.sources import open_source
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.pyramid import Pyramid
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Site, Stage
from pipeline.stages.synthesize import Synthesize
from pipeline.volumes import Volume
from workers.block import BlockRef

SHAPE = (10, 40, 44)
ROI = Box((1, 3, 6), (10, 36, 41))
SIZE = VoxelSize.from_nm((30, 12, 12))
TRUTH = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 5, (10, 20, 22), dtype=np.uint64), 2, 1), 2, 2)


@dataclass
class Built:
    """The stages of one run."""

    relabel: LabelsInMemory
    resample: Resample
    pyramid: Pyramid
    evaluate: Evaluate
    summaries: dict[BlockRef, Any]
    parts: dict[BlockRef, Any]

    def run(self, stage: Stage[Any, Any]) -> None:
        for sweep in stage.passes():
            stage.prepare()
            for index in sweep.grid:
                if stage.masked(sweep.name, index):
                    continue
                written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
                ref = BlockRef(stage.task(sweep.name), index)
                self.parts[ref], self.summaries[ref] = written.parts, written.summary


def segmentation() -> np.ndarray:
    """Labels in the layer; different from the truth, and never two alike side by side by chance."""
    return TRUTH // np.uint64(2) + np.uint64(9) * (np.arange(44, dtype=np.uint64) // np.uint64(13))


IMAGE = np.random.default_rng(2).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Built]:
    """Stages over an image and a truth in files: `build(block, hidden=..., truth=..., truth_nm=...)`."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    np.save(tmp_path / "image.npy", IMAGE)

    def make(
        block: Index,
        *,
        hidden: Iterable[Index] = (),
        truth: np.ndarray | None = TRUTH,
        truth_nm: Any = (30, 12, 12),
        mask: np.ndarray | None = None,
        **sections: Any,
    ) -> Built:
        given = {"image": str(tmp_path / "image.npy")}
        facts: dict[str, Any] = {
            "image": {"fingerprint": "i", "shape": list(SHAPE), "voxel_size_pm": list(SIZE.pm)},
            "truth": None,
            "weights": {"patch": [3, 5, 5]},
            "masks": [],
        }
        if truth is not None:
            np.save(tmp_path / "truth.npy", truth)
            given["truth"] = str(tmp_path / "truth.npy")
            fingerprint = open_source(given["truth"]).fingerprint()
            size = list(VoxelSize.from_nm(truth_nm).pm)
            facts["truth"] = {"fingerprint": fingerprint, "shape": list(truth.shape), "voxel_size_pm": size}
        if mask is not None:
            np.save(tmp_path / "mask.npy", mask)
            sections["mask"] = [{"path": str(tmp_path / "mask.npy")}]
            facts["masks"] = [{"fingerprint": "m", "shape": list(mask.shape), "voxel_size_pm": list(SIZE.pm)}]
        layout = {"shape": block, "chunk": block}
        config = parse({"input": given, "blocks": layout, **sections}, where="test")
        before: tuple[Stage[Any, Any], ...] = ()
        for kind in (Synthesize, Resample, LabelsInMemory, Pyramid, Evaluate):
            before = (*before, kind(Site(config, Layer(SHAPE, ROI, SIZE), facts, tmp_path / "data", before)))
        built = Built(*before[2:3], *before[1:2], *before[3:], {}, {})  # type: ignore[arg-type,call-arg]
        built.relabel.hidden = frozenset(hidden)
        built.relabel.fill(segmentation())
        built.run(built.resample)
        return built

    return make


BLOCKS = ((4, 8, 12), (3, 11, 7), (16, 64, 64))


@pytest.mark.parametrize("block", BLOCKS)
def test_pyramid_is_a_function_of_position(build: Callable[..., Built], block: Index) -> None:
    built = build(block)
    built.run(built.pyramid)
    labels = dict(enumerate(built.pyramid.datasets("segmentation")))
    assert [size.nm for _, size, _ in labels.values()] == [(30, 12, 12), (30, 24, 24), (60, 48, 48)]
    for number, factor in ((1, (1, 2, 2)), (2, (2, 4, 4))):
        volume = Volume.open(labels[number][0])
        for axis in range(3):
            first = range(ROI.begin[axis], ROI.end[axis])
            assert volume.box.begin[axis] == next(i for i in first if i % factor[axis] == 0) // factor[axis]
        values = volume.read(volume.box)
        z, y, x = factor
        assert np.array_equal(values, segmentation()[::z, ::y, ::x][volume.box.slices()])
    image = Volume.open(built.pyramid.datasets("image")[1][0])
    finest = built.resample.image.box
    start = (0, image.box.begin[1] * 2, image.box.begin[2] * 2)
    used = Box(start, finest.end)
    assert np.array_equal(image.read(image.box), mean_image(IMAGE[used.slices()], (1, 2, 2)))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("hidden", [(), ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 0))])
def test_pyramid_needs_are_exactly_what_it_reads(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, block: Index, hidden: Any
) -> None:
    built = build(block, hidden=hidden)
    built.run(built.pyramid)
    owners = {built.relabel.folder / "labels": (built.relabel, "blocks")}
    owners[built.resample.folder / "image"] = (built.resample, "blocks")  # type: ignore[assignment]
    for kind in ("segmentation", "image"):
        for number in (1, 2):
            owners[built.pyramid.folder / f"{kind}.zarr" / str(number)] = (built.pyramid, f"{kind}{number}")  # type: ignore[assignment]
    reads: list[tuple[Path, Box]] = []
    read = Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box: (reads.append((self.path, box)), read(self, box))[1])
    for sweep in built.pyramid.passes():
        for index in sweep.grid:
            reads.clear()
            needs = set(built.pyramid.needs(sweep.name, index))
            if built.pyramid.masked(sweep.name, index):
                assert not needs
                continue
            built.pyramid.read(sweep.name, index)
            found = {ref for path, box in reads for ref in owners[path][0].refs(owners[path][1], box)}
            assert needs == found


def test_masked_blocks_are_background_in_coarser_levels(build: Callable[..., Built]) -> None:
    built = build((4, 8, 12), hidden=[(0, 0, 0)])
    built.run(built.pyramid)
    expected = segmentation()
    expected[built.relabel.passes()[0].grid.block_box((0, 0, 0)).slices()] = 0
    path, _, _ = built.pyramid.datasets("segmentation")[2]
    volume = Volume.open(path)
    assert np.array_equal(volume.read(volume.box), expected[::2, ::4, ::4][volume.box.slices()])


@pytest.mark.parametrize("levels", [0, 2, 9])
def test_products_are_multiscale_groups(build: Callable[..., Built], levels: int) -> None:
    built = build((4, 8, 12), pyramid={"levels": levels})
    built.run(built.pyramid)
    assert built.pyramid.products() == built.pyramid.products()
    for name, path in built.pyramid.products().items():
        group = zarr.open_group(path, mode="r")
        listed: Any = group.attrs["ome"]
        paths = [entry["path"] for entry in listed["multiscales"][0]["datasets"]]
        assert len(paths) == 1 + len(built.pyramid.passes()) // 2 <= 1 + levels
        for entry, (_, size, offset) in zip(
            listed["multiscales"][0]["datasets"], built.pyramid.datasets(name.removesuffix(".zarr")), strict=True
        ):
            scale, move = (
                t[k] for t, k in zip(entry["coordinateTransformations"], ("scale", "translation"), strict=True)
            )
            assert tuple(scale) == size.nm
            assert move == [o * s for o, s in zip(offset, size.nm, strict=True)]
            assert group[entry["path"]].shape  # type: ignore[union-attr]
    finest: Any = zarr.open_group(built.pyramid.products()["segmentation.zarr"], mode="r")["0"]
    assert np.array_equal(finest[:], segmentation()[ROI.slices()])


@pytest.mark.parametrize("block", BLOCKS)
def test_measures_do_not_show_the_grid(build: Callable[..., Built], block: Index) -> None:
    built = build(block)
    built.run(built.evaluate)
    expected = scores(pairs(TRUTH[ROI.slices()].copy(), segmentation()[ROI.slices()].copy()))
    assert built.summaries[BlockRef("evaluate/total", (0, 0, 0))] == expected
    assert expected["voi"]
    for ref, parts in built.parts.items():
        if ref.task.startswith("evaluate"):
            assert built.evaluate.reread(ref.task.partition("/")[2], ref.index) == parts


@pytest.mark.parametrize(
    ("truth", "nm"),
    [
        (TRUTH.repeat(2, 1).repeat(3, 2), (30, 6, 4)),
        (TRUTH[:, ::2, ::2].copy(), (30, 24, 24)),
        (TRUTH[:, ::2].repeat(2, 0).astype(np.uint16), (15, 24, 12)),
    ],
)
def test_the_truth_may_have_other_voxels(build: Callable[..., Built], truth: np.ndarray, nm: Any) -> None:
    built = build((4, 8, 12), truth=truth, truth_nm=nm)
    built.run(built.evaluate)
    expected = scores(pairs(TRUTH[ROI.slices()].copy(), segmentation()[ROI.slices()].copy()))
    assert built.summaries[BlockRef("evaluate/total", (0, 0, 0))] == expected


def test_voxels_under_a_skip_mask_do_not_count(build: Callable[..., Built]) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 10:20, 7:30] = 1
    built = build((4, 8, 12), mask=mask)
    built.run(built.evaluate)
    keep = mask[ROI.slices()] == 0
    expected = scores(pairs(TRUTH[ROI.slices()][keep], segmentation()[ROI.slices()][keep]))
    assert built.summaries[BlockRef("evaluate/total", (0, 0, 0))] == expected


def test_an_accepted_hole_counts_as_background(build: Callable[..., Built]) -> None:
    built = build((4, 8, 12), hidden=[(1, 1, 1)])
    built.run(built.evaluate)
    holed = segmentation()
    holed[built.relabel.passes()[0].grid.block_box((1, 1, 1)).slices()] = 0
    expected = scores(pairs(TRUTH[ROI.slices()].copy(), holed[ROI.slices()].copy()))
    assert built.summaries[BlockRef("evaluate/total", (0, 0, 0))] == expected
    assert BlockRef("relabel/blocks", (1, 1, 1)) not in built.evaluate.needs("blocks", (1, 1, 1))
    assert list(built.evaluate.needs("blocks", (0, 1, 1))) == [BlockRef("relabel/blocks", (0, 1, 1))]


def test_no_truth_no_passes(build: Callable[..., Built]) -> None:
    built = build((4, 8, 12), truth=None)
    assert built.evaluate.passes() == ()
    assert built.evaluate.stored_bytes() == 0
    assert built.evaluate.identity


def test_a_truth_that_does_not_fit_is_refused(build: Callable[..., Built]) -> None:
    with pytest.raises(WrongShape, match="does not cover"):
        build((4, 8, 12), truth=TRUTH[:5]).evaluate.read("blocks", (0, 0, 0))
    with pytest.raises(WrongVoxelSize, match="do not fit"):
        build((4, 8, 12), truth_nm=(30, 10, 10)).evaluate.read("blocks", (0, 0, 0))
