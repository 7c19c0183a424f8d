"""Synthesize and resample: the same bytes on every grid, needs that are the reads, files read in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse
from pipeline.errors import NotFinite, WrongShape, WrongType, WrongVoxelSize
from pipeline.geometry import Box, Index, Layer, VoxelSize
from pipeline.ops.resample import mean_image
from pipeline.ops.synthesize import generate
from pipeline.sources import open_source
from pipeline.stages.context import context_box
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Site
from pipeline.stages.synthesize import Synthesize
from pipeline.volumes import Volume
from workers.block import BlockRef

SIZE = (9, 61, 70)
ROI = Box((2, 5, 6), (7, 25, 29))
PATCH = [2, 4, 4]
Stages = tuple[Synthesize, Resample]


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stages]:
    """Build both stages: `stages(block, image=..., roi=..., fine_nm=...)`; a generated volume without an image."""
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def build(block: Index, *, image: Path | None = None, roi: Box = ROI, coarse_nm: Any = (30, 12, 12)) -> Stages:
        synthetic = {"seed": 7, "size": SIZE, "voxel_size_nm": (30, 6, 6)}
        given: dict[str, Any] = {"synthetic": synthetic} if image is None else {"image": str(image)}
        config = parse({"input": given, "blocks": {"shape": block, "chunk": block}}, where="test")
        fingerprint = "synthetic" if image is None else open_source(str(image)).fingerprint()
        facts = {
            "image": {"fingerprint": fingerprint, "shape": list(SIZE), "voxel_size_pm": [30000, 6000, 6000]},
            "weights": {"patch": PATCH},
            "override_weights": [],
        }
        size = VoxelSize.from_nm(coarse_nm)
        factor = size.ratio(VoxelSize.from_nm((30, 6, 6))) or (1, 2, 2)
        z, y, x = (n // f for n, f in zip(SIZE, factor, strict=True))
        layer = Layer((z, y, x), roi, size)
        synthesize = Synthesize(Site(config, layer, facts, tmp_path / "data"))
        return synthesize, Resample(Site(config, layer, facts, tmp_path / "data", (synthesize,)))

    return build


def run(*run_stages: Any) -> dict[BlockRef, Any]:
    done: dict[BlockRef, Any] = {}
    for stage in run_stages:
        for sweep in stage.passes():
            stage.prepare()
            for index in sweep.grid:
                assert set(stage.needs(sweep.name, index)) <= done.keys()
                written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
                done[BlockRef(stage.task(sweep.name), index)] = written.parts
    return done


def test_every_grid_gives_the_same_volumes(stages: Callable[..., Stages]) -> None:
    image, truth = generate(Box.of_shape(SIZE), seed=7, shape=SIZE, voxel_size_nm=(30, 6, 6))
    context = Box((0, 1, 2), (9, 29, 33))
    for block in ((3, 8, 8), (4, 12, 20), (16, 64, 64)):
        synthesize, resample = stages(block)
        run(synthesize, resample)
        assert context_box(resample.site) == context == resample.image.box
        fine = context.scale((1, 2, 2))
        assert np.array_equal(synthesize.image.read(fine), image[fine.slices()])
        assert np.array_equal(synthesize.truth.read(fine), truth[fine.slices()])
        coarse = mean_image(image[:, :60, :70], (1, 2, 2))
        assert np.array_equal(resample.image.read(context), coarse[context.slices()])
        assert resample.image.spec.voxel_size == VoxelSize.from_nm((30, 12, 12))


def test_identity_does_not_depend_on_the_grid_or_the_region(stages: Callable[..., Stages]) -> None:
    first, second = stages((3, 8, 8)), stages((4, 12, 20), roi=Box((0, 0, 0), (4, 4, 4)))
    assert [s.identity for s in first] == [s.identity for s in second]
    assert [s.folder for s in first] != [s.folder for s in second]


def test_needs_are_exactly_what_is_read(stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch) -> None:
    synthesize, resample = stages((3, 8, 8))
    run(synthesize, resample)
    boxes: list[Box] = []
    read = Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box: (boxes.append(box), read(self, box))[1])
    for index in resample.sweep("blocks").grid:
        boxes.clear()
        resample.read("blocks", index)
        read_refs = {ref for box in boxes for ref in synthesize.refs("blocks", box)}
        assert set(resample.needs("blocks", index)) == read_refs
        assert len(read_refs) == 1, "one generated block feeds one block of the layer"


def test_reread_finds_what_was_written(stages: Callable[..., Stages]) -> None:
    both = stages((4, 12, 20))
    done = run(*both)
    for stage in both:
        for index in stage.sweep("blocks").grid:
            assert stage.reread("blocks", index) == done[BlockRef(stage.task("blocks"), index)]


def test_a_file_is_read_in_place(stages: Callable[..., Stages], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    for coarse_nm, factor in (((30, 12, 12), (1, 2, 2)), ((30, 6, 6), (1, 1, 1)), ((60, 12, 6), (2, 2, 1))):
        roi = Box((0, 0, 0), (3, 20, 20))
        synthesize, resample = stages((4, 12, 20), image=tmp_path / "image.npy", roi=roi, coarse_nm=coarse_nm)
        assert synthesize.passes() == ()
        assert synthesize.stored_bytes() == synthesize.inodes() == 0
        assert resample.upstream() == ()
        run(synthesize, resample)
        box = resample.image.box
        assert np.array_equal(resample.image.read(box), mean_image(image[box.scale(factor).slices()], factor))


def test_an_edited_file_is_another_image(stages: Callable[..., Stages], tmp_path: Path) -> None:
    image = np.zeros(SIZE, np.uint8)
    np.save(tmp_path / "a.npy", image)
    image[0, 0, 0] = 1
    np.save(tmp_path / "b.npy", image)
    first, second = (stages((4, 12, 20), image=tmp_path / name)[1].identity for name in ("a.npy", "b.npy"))
    assert first != second


@pytest.mark.parametrize(("dtype", "error"), [(np.uint16, WrongType), (np.float32, WrongType)])
def test_other_dtypes_are_refused(
    stages: Callable[..., Stages], tmp_path: Path, dtype: Any, error: type[Exception]
) -> None:
    np.save(tmp_path / "image.npy", np.full(SIZE, np.nan if dtype is np.float32 else 1, dtype))
    _, resample = stages((4, 12, 20), image=tmp_path / "image.npy")
    resample.prepare()
    with pytest.raises((error, NotFinite), match="way out"):
        resample.read("blocks", (0, 0, 0))


def test_a_file_that_has_shrunk_is_an_error(stages: Callable[..., Stages], tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((2, 2, 2), np.uint8))
    _, resample = stages((4, 12, 20), image=tmp_path / "image.npy")
    with pytest.raises(WrongShape):
        resample.read("blocks", (0, 0, 0))


def test_voxel_sizes_that_do_not_divide_are_refused(stages: Callable[..., Stages]) -> None:
    with pytest.raises(WrongVoxelSize, match="not a whole multiple"):
        stages((4, 12, 20), coarse_nm=(30, 10, 10))[1].content()


def test_costs_are_bounds(stages: Callable[..., Stages]) -> None:
    for stage in stages((4, 12, 20)):
        done = run(*stages((4, 12, 20)))
        files = [p for p in stage.folder.rglob("*")]
        assert len(files) + 1 <= stage.inodes()
        assert sum(p.stat().st_size for p in files if p.is_file()) < stage.stored_bytes() + 4096 * len(done)
        assert stage.memory_bytes("blocks") > 0
