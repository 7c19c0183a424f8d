"""The stage on affinities: every grid, format and convention gives the same bytes; needs, masks, holes, refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.config import parse
from pipeline.errors import ChunkMissing, ConfigError, InputError, NotFinite, WrongShape, WrongType
from pipeline.facts import layer_of, resolve
from pipeline.geometry import Box, Index
from pipeline.ops.noisy_affinities import noisy_affinities
from pipeline.ops.synthesize import generate
from pipeline.stages.affinities import BLOCKS, Affinities
from pipeline.stages.context import label_recipe
from pipeline.stages.stage import Site
from pipeline.stages.synthesize import Synthesize
from pipeline.volumes import Volume

SHAPE = (9, 30, 33)
ROI = {"begin": [1, 3, 0], "end": [9, 27, 31]}
BOX = Box((1, 3, 0), (9, 27, 31))
NM = [30, 6, 6]
GRIDS: tuple[Index, ...] = ((3, 8, 8), (4, 12, 20), (16, 32, 32))
Build = Callable[..., Affinities]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The stage of a run: `build(block, path=..., **config)`."""
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def make(block: Index = (4, 12, 20), *, rest: dict[str, Any] | None = None, **affinities: Any) -> Affinities:
        if "from_labels" not in affinities:
            affinities = {"path": str(tmp_path / "a.npy"), "voxel_size_nm": NM, **affinities}
        layout = {"shape": block, "chunk": block}
        config = parse({"affinities": affinities, "roi": ROI, "blocks": layout, **(rest or {})}, where="test")
        facts = resolve(config)
        site = Site(config, layer_of(config, facts), facts, tmp_path / "data")
        synthesize = Synthesize(site)
        return Affinities(Site(config, site.layer, facts, tmp_path / "data", (synthesize,)))

    return make


def run(stage: Affinities) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the region, and the histogram."""
    stage.prepare()
    histogram = np.zeros(256, int)
    for index in stage.sweep(BLOCKS).grid:
        if not stage.masked(BLOCKS, index):
            written = stage.write(BLOCKS, index, stage.compute(stage.read(BLOCKS, index)))
            assert written.parts == stage.reread(BLOCKS, index)
            histogram += written.summary["histogram"]
    return stage.read_codes(stage.site.layer.roi, channels=len(stage.offsets)), histogram


def values(dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Nearest edges, each stored at the voxel behind it; those that leave the volume hold something, too."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("uint"):
        return rng.integers(1, np.iinfo(dtype).max, (3, *SHAPE)).astype(dtype)
    return rng.uniform(0.01, 1, (3, *SHAPE)).astype(dtype)


def expected(edges: np.ndarray) -> np.ndarray:
    """What must be stored for the region: 0 where an edge leaves it."""
    codes = edges if edges.dtype.kind == "u" else np.rint(edges.astype(float) * 65535).astype(np.uint16)
    inside = codes[(..., *BOX.slices())].copy()
    inside[0, 0], inside[1, :, 0], inside[2, :, :, 0] = 0, 0, 0
    return inside


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_every_grid_gives_the_same_codes(build: Build, tmp_path: Path, dtype: str) -> None:
    edges = values(dtype)
    np.save(tmp_path / "a.npy", edges)
    for block in GRIDS:
        stage = build(block)
        codes, histogram = run(stage)
        assert np.array_equal(codes, expected(edges))
        assert codes.dtype == stage.code_dtype == (np.uint8 if dtype == "uint8" else np.uint16)
        assert histogram.sum() == sum(BOX.voxels - BOX.voxels // BOX.shape[axis] for axis in range(3))


def test_every_way_to_store_them_gives_the_same_codes(build: Build, tmp_path: Path) -> None:
    edges = values("uint8")
    wanted = expected(edges)
    at_start = np.zeros((5, *SHAPE), np.uint8)  # two channels of something else; x, z, y; stored at the voxel before
    at_start[4, :, :, :-1], at_start[1, :-1], at_start[2, :, :-1] = edges[2, :, :, 1:], edges[0, 1:], edges[1, :, 1:]
    np.save(tmp_path / "b.npy", np.moveaxis(255 - at_start, 0, 3))
    forward = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    ways = [
        {"offsets": forward, "stored_at": "start"},
        {"offsets": [[-z, -y, -x] for z, y, x in forward], "stored_at": "end"},
    ]
    for way in ways:
        for block in GRIDS:
            stage = build(block, path=str(tmp_path / "b.npy"), axes="ZYXC", channels=[4, 1, 2], kind="boundary", **way)
            assert np.array_equal(run(stage)[0], wanted)


@pytest.mark.parametrize("name", ["a.npz:edges", "small.npz:edges", "a.h5:volumes/edges", "zarr2", "zarr3"])
def test_every_format_gives_the_same_codes(build: Build, tmp_path: Path, name: str) -> None:
    import zarr

    edges = values()
    if name.startswith("zarr"):
        zarr.create_array(
            tmp_path / name, shape=edges.shape, chunks=(2, 4, 16, 16), dtype="f4", zarr_format=int(name[-1])
        )[:] = edges
    elif name.startswith("a.h5"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("volumes/edges", data=edges, chunks=(3, 4, 16, 16))
    else:
        save = np.savez if name.startswith("a") else np.savez_compressed
        save(tmp_path / name.partition(":")[0], other=np.arange(3), edges=edges)
    stage = build(path=str(tmp_path / name))
    np.save(tmp_path / "a.npy", edges)
    assert stage.identity == build().identity, "the same values are the same input, wherever they lie"
    assert np.array_equal(run(stage)[0], expected(edges))


def test_long_edges_come_after_the_nearest_ones(build: Build, tmp_path: Path) -> None:
    edges = np.concatenate([values("uint8"), values("uint8", seed=1)[:2]])
    order = [3, 0, 4, 2, 1]
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [2, 0, 0], [0, -3, 4]]
    np.save(tmp_path / "a.npy", edges[order])
    inside = edges[(..., *BOX.slices())].copy()
    inside[:3] = expected(edges[:3])
    inside[3, -2:] = 0
    inside[4, :, :3] = 0
    inside[4, :, :, -4:] = 0
    for block in GRIDS:
        stage = build(block, offsets=[offsets[i] for i in order])
        assert stage.offsets == tuple(tuple(o) for o in offsets)
        assert np.array_equal(run(stage)[0], inside)


# ---- masks and holes -----------------------------------------------------------------------------------------------
def test_masked_voxels_have_no_edges_and_may_hold_anything(build: Build, tmp_path: Path) -> None:
    edges = values()
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 10:20, 5:14] = 1
    mask[1:5, 3:15, :20] = 1  # a whole block of the second grid
    np.save(tmp_path / "mask.npy", mask)
    wanted = expected(edges)
    hidden = mask[BOX.slices()] > 0
    for axis in range(3):
        before = np.roll(hidden, 1, axis)
        wanted[axis][hidden | before & (np.indices(hidden.shape)[axis] > 0)] = 0
    edges[:, 3, 12, 7], edges[:, 4, 12, 7] = np.nan, 7.0
    np.save(tmp_path / "a.npy", edges)
    masks = {"mask": [{"path": str(tmp_path / "mask.npy"), "voxel_size_nm": NM}]}
    found = [build(block, rest=masks) for block in GRIDS]
    assert all(np.array_equal(run(stage)[0], wanted) for stage in found)
    assert found[1].masked(BLOCKS, (0, 0, 0))
    assert found[1].identity != build().identity


def test_accepted_holes_are_masked(build: Build, tmp_path: Path) -> None:
    edges = values("uint8")
    np.save(tmp_path / "a.npy", edges)
    hole = {"begin": [5, 3, 0], "end": [9, 15, 20]}
    plain, holed = build(), build(rest={"holes": [hole]})
    assert plain.identity == holed.identity
    codes, _ = run(holed)
    assert holed.masked(BLOCKS, (1, 0, 0))
    assert not codes[:, 4:, :12, :20].any()
    assert not codes[1, 4:, 12, :20].any(), "edges into the hole"
    assert codes[0, 4:, 12, :20].all()
    touched = {i for i in plain.sweep(BLOCKS).grid if holed.block_content(BLOCKS, i) != plain.block_content(BLOCKS, i)}
    assert touched == {(1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)}


# ---- from labels ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_generated_ones_are_the_same_on_every_grid(build: Build, dtype: str) -> None:
    whole = Box.of_shape(SHAPE)
    _, truth = generate(whole, seed=3, shape=SHAPE, voxel_size_nm=(30.0, 6.0, 6.0))
    synthetic = {"input": {"synthetic": {"seed": 3, "size": SHAPE, "voxel_size_nm": NM}}}
    boxes: list[Box] = []
    results = []
    for block in GRIDS:
        stage = build(block, rest=synthetic, from_labels={"noise": 0.3, "dtype": dtype})
        made = stage.site.find(Synthesize)
        made.prepare()
        for index in made.sweep("blocks").grid:
            made.write("blocks", index, made.compute(made.read("blocks", index)))
        results.append(run(stage)[0])
        recipe = label_recipe(stage.site)
        assert recipe is not None
        wanted = noisy_affinities(truth, whole, whole, recipe)[(..., *BOX.slices())]
        wanted = wanted if dtype == "uint16" else wanted >> 8
        assert np.array_equal(results[-1][:, 1:, 1:, 1:], wanted[:, 1:, 1:, 1:])
        with pytest.MonkeyPatch.context() as patch:
            read = Volume.read
            patch.setattr(Volume, "read", lambda self, box, r=read: (boxes.append(box), r(self, box))[1])
            for index in stage.sweep(BLOCKS).grid:
                boxes.clear()
                stage.read(BLOCKS, index)
                refs = {ref for box in boxes for ref in made.refs("blocks", box)}
                assert set(stage.needs(BLOCKS, index)) == refs
    assert all(np.array_equal(results[0], other) for other in results)


def test_they_can_be_made_from_a_file_of_labels(build: Build, tmp_path: Path) -> None:
    _, truth = generate(Box.of_shape(SHAPE), seed=3, shape=SHAPE, voxel_size_nm=(30.0, 6.0, 6.0))
    np.save(tmp_path / "truth.npy", (truth % 65521).astype(np.uint16))
    source = {"input": {"truth": str(tmp_path / "truth.npy"), "truth_voxel_size_nm": NM}}
    one = build(rest=source, from_labels={})
    other = build(rest=source, from_labels={"seed": 1})
    assert list(one.needs(BLOCKS, (0, 0, 0))) == []
    assert one.identity != other.identity
    assert not np.array_equal(run(one)[0], run(other)[0])


# ---- refusals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "settings", "error", "says"),
    [
        (np.ones((4, *SHAPE), "f4"), {}, WrongShape, "have 4 channels; the config describes 3"),
        (np.ones((2, *SHAPE), "f4"), {}, WrongShape, "have 2 channels; the config describes 3"),
        (np.ones((3, *SHAPE), "f4"), {"channels": [0, 1, 3]}, WrongShape, "the last of them number 3"),
        (np.ones((*SHAPE, 3), "f4"), {}, WrongShape, "have 9 channels"),
        (np.ones(SHAPE, "f4"), {}, WrongShape, "affinities have four axes, here c, z, y, x"),
        (np.ones((3, *SHAPE), "i8"), {}, WrongType, "dtype int64; they must be floats, uint8 or uint16"),
        (
            np.ones((3, *SHAPE), "u1"),
            {"offsets": [[-1, 0, 0], [0, -1, 0], [0, -2, 0]]},
            ConfigError,
            "nearest neighbour along x",
        ),
    ],
)
def test_what_cannot_work_is_refused_first(
    build: Build, tmp_path: Path, data: np.ndarray, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(error, match=says) as caught:
        build(**settings)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(("value", "error"), [(np.nan, NotFinite), (np.inf, NotFinite), (-0.5, InputError)])
def test_bad_values_name_their_voxel(build: Build, tmp_path: Path, value: float, error: type[Exception]) -> None:
    edges = values()
    edges[1, 6, 20, 25] = value
    np.save(tmp_path / "a.npy", edges)
    stage = build()
    with pytest.raises(error, match=r"voxel \(6, 20, 25\) holds") as caught:
        stage.read(BLOCKS, (1, 1, 1))
    assert len(str(caught.value).splitlines()) == 3
    stage.read(BLOCKS, (0, 1, 1))
    if error is InputError:
        codes, _ = run(build(clip=True))
        assert codes[1, 5, 17, 25] == 0


def test_a_chunk_that_is_missing_is_an_error(build: Build, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("edges", (3, *SHAPE), "f4", chunks=(3, 4, 16, 16))
        data[:, :4] = 0.5
    stage = build(path=f"{tmp_path}/a.h5:edges")
    with pytest.raises(ChunkMissing, match="data is missing"):
        stage.read(BLOCKS, (1, 0, 0))
