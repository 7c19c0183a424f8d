import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.checkpoint import load_network, save_weights
from models.engine import Engine
from models.rsunet import build
from models.spec import NEAREST, WeightsSpec
from pipeline.config import parse
from pipeline.errors import BadWeights, ConfigError, WrongShape, WrongVoxelSize
from pipeline.facts import layer_of, resolve
from pipeline.geometry import Box, Index
from pipeline.ops.resample import mean_image
from pipeline.stages.predict import BLOCKS, Predict
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Site
from pipeline.stages.synthesize import Synthesize

SHAPE = (14, 84, 100)  # of the image; the layer has half of that in y and x
LAYER = (14, 42, 50)


def write_weights(path: Path, seed: int, **changes: Any) -> str:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
        "offsets": NEAREST,
        "voxel_size_nm": (30.0, 12.0, 12.0),
        "patch": (6, 16, 16),
        "stride": (4, 12, 12),
    }
    spec = WeightsSpec(**{**fields, **changes})
    save_weights(build(spec.architecture), spec, path)
    return str(path)


@dataclass
class World:
    """An image, two pairs of weights, and runs over them."""

    folder: Path
    image: np.ndarray
    first: str
    second: str

    def predict(self, name: str = "run", **config: Any) -> Predict:
        """The stage of a run, its image resampled already."""
        settings = {
            "input": {"image": str(self.folder / "image.npy"), "voxel_size_nm": [30, 6, 6]},
            "blocks": {"shape": [8, 16, 16], "chunk": [4, 8, 8]},
            **config,
        }
        settings["predict"] = {"weights": self.first, "block": [8, 24, 24], **settings.get("predict", {})}
        parsed = parse(settings, where="test")
        facts = resolve(parsed)
        site = Site(parsed, layer_of(parsed, facts), facts, self.folder / name)
        for kind in (Synthesize, Resample):
            site = Site(parsed, site.layer, facts, site.data, (*site.before, kind(site)))
        return Predict(site)

    def run(self, stage: Predict) -> Mapping[Index, Mapping[str, Any]]:
        """Every block; the summaries."""
        resample(stage)
        stage.prepare()
        summaries = {}
        for index in stage.sweep(BLOCKS).grid:
            if not stage.masked(BLOCKS, index):
                written = stage.write(BLOCKS, index, stage.compute(stage.read(BLOCKS, index)))
                assert written.parts == stage.reread(BLOCKS, index)
                summaries[index] = written.summary
        return summaries

    def codes(self, weights: str) -> np.ndarray:
        """What a network says about the whole layer, in one piece."""
        network, spec = load_network(weights)
        layer = mean_image(self.image, (1, 2, 2))
        return Engine(network, spec).predict(layer, origin=(0, 0, 0), begin=(0, 0, 0), end=LAYER, layer=LAYER)


def resample(stage: Predict, only: set[Index] | None = None) -> None:
    source = stage.site.find(Resample)
    source.prepare()
    for index in source.sweep("blocks").grid:
        if only is None or index in only:
            source.write("blocks", index, source.compute(source.read("blocks", index)))


def histogram(summaries: Mapping[Index, Mapping[str, Any]]) -> np.ndarray:
    return np.sum([summary["histogram"] for summary in summaries.values()], axis=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    image = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    np.save(folder / "image.npy", image)
    first = write_weights(folder / "first.safetensors", 1)
    second = write_weights(folder / "second.safetensors", 2, patch=(4, 24, 24), stride=(3, 16, 16))
    return World(folder, image, first, second)


def test_importing_the_stage_does_not_import_torch():
    code = "import sys, pipeline.stages.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_grid_stores_what_the_network_says_in_one_piece(world: World):
    expected = world.codes(world.first)
    for name, block in [("a", [8, 24, 24]), ("b", [4, 48, 16]), ("c", [16, 48, 56])]:
        stage = world.predict(name, predict={"block": block})
        summaries = world.run(stage)
        np.testing.assert_array_equal(stage.read_codes(Box.of_shape(LAYER)), expected)
        assert histogram(summaries).sum() == sum(np.prod(LAYER) // n * (n - 1) for n in LAYER)
    assert np.array_equal(stage.read_codes(Box((3, 5, 7), (9, 30, 50))), expected[:, 3:9, 5:30, 7:50])
    assert stage.code_table.shape == (256,)


def test_block_size_and_batch_are_not_the_identity_but_weights_and_regions_are(world: World):
    first = world.predict()
    assert world.predict(predict={"block": [4, 8, 8], "batch": 4}).identity == first.identity
    assert world.predict(predict={"block": [4, 8, 8]}).layout != first.layout
    assert world.predict(predict={"weights": world.second}).identity != first.identity
    assert world.predict(roi={"end": [8, 20, 20]}).identity != first.identity


def test_a_region_reads_around_itself_and_loses_the_edges_that_leave_it(world: World):
    roi = Box((3, 9, 10), (12, 33, 50))
    stage = world.predict("roi", roi={"begin": roi.begin, "end": roi.end})
    summaries = world.run(stage)
    expected = world.codes(world.first)[(..., *roi.slices())].copy()
    expected[0, 0], expected[1, :, 0], expected[2, :, :, 0] = 0, 0, 0
    np.testing.assert_array_equal(stage.read_codes(roi), expected)
    z, y, x = roi.shape
    assert histogram(summaries).sum() == 3 * z * y * x - y * x - z * x - z * y


def test_a_block_reads_no_more_than_it_says(world: World):
    stage = world.predict("needs", predict={"override": [override(world, (2, 30, 30), (9, 40, 45))]})
    for index in [(0, 0, 0), (1, 1, 2), (0, 1, 1)]:
        needs = set(stage.needs(BLOCKS, index))
        assert {ref.task for ref in needs} == {"resample/blocks"}
        fresh = world.predict(f"needs{index}", predict=stage.site.config.predict.model_dump())
        resample(fresh, only={ref.index for ref in needs})
        fresh.read(BLOCKS, index)


# ---- masks ----------------------------------------------------------------------------------------------------------
def masked_run(world: World, name: str, mask: np.ndarray, size: list[float], **config: Any) -> tuple[Predict, Any]:
    np.save(world.folder / f"{name}.npy", mask)
    entry = {"path": str(world.folder / f"{name}.npy"), "voxel_size_nm": size}
    stage = world.predict(name, mask=[entry], **config)
    return stage, world.run(stage)


def without_masked_edges(codes: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    expected, exists = codes.copy(), np.zeros(codes.shape, bool)
    for c, z, y, x in np.ndindex(*codes.shape):
        partner = tuple(i + o for i, o in zip((z, y, x), NEAREST[c], strict=True))
        exists[c, z, y, x] = min(partner) >= 0 and not absent[z, y, x] and not absent[partner]
    expected[~exists] = 0
    return expected, np.bincount(codes[exists], minlength=256)


@pytest.mark.parametrize("block", [[8, 24, 24], [4, 16, 56]])
def test_masked_voxels_lose_their_edges_whatever_the_grid(world: World, block: list[int]):
    mask = np.random.default_rng(1).random((14, 21, 25)) < 0.2
    mask[:8, :12, :12] = True  # covers the first block of one of the grids
    stage, summaries = masked_run(
        world, f"mask{block[0]}", mask.astype(np.uint8), [30, 24, 24], predict={"block": block}
    )
    absent = mask.repeat(2, 1).repeat(2, 2)
    expected, counts = without_masked_edges(world.codes(world.first), absent)
    np.testing.assert_array_equal(stage.read_codes(Box.of_shape(LAYER)), expected)
    np.testing.assert_array_equal(histogram(summaries), counts)
    assert stage.masked(BLOCKS, (0, 0, 0)) == (block[0] == 8)
    assert stage.identity != world.predict().identity


def test_a_mask_that_does_not_fit_is_refused(world: World):
    with pytest.raises(WrongShape, match="covers"):
        masked_run(world, "small", np.zeros((14, 20, 25), np.uint8), [30, 24, 24])
    with pytest.raises(WrongVoxelSize, match="no whole multiple"):
        masked_run(world, "fine", np.zeros((14, 84, 100), np.uint8), [30, 6, 6])


def test_an_accepted_hole_is_masked_and_its_neighbours_know(world: World):
    hole = (0, 1, 1)
    box = world.predict("whole").sweep(BLOCKS).grid.block_box(hole)
    stage = world.predict("hole", holes=[{"begin": box.begin, "end": box.end}])
    whole = world.predict("hole")
    assert stage.identity == whole.identity
    assert stage.masked(BLOCKS, hole)
    assert {i for i in stage.sweep(BLOCKS).grid if stage.block_content(BLOCKS, i) is not None} == {
        index for index in stage.sweep(BLOCKS).grid if all(0 <= a - b <= 1 for a, b in zip(index, hole, strict=True))
    }
    world.run(stage)
    absent = np.zeros(LAYER, bool)
    absent[stage.sweep(BLOCKS).grid.block_box(hole).slices()] = True
    expected, _ = without_masked_edges(world.codes(world.first), absent)
    np.testing.assert_array_equal(stage.read_codes(Box.of_shape(LAYER)), expected)


# ---- overrides ------------------------------------------------------------------------------------------------------
def override(world: World, begin: Index, end: Index, weights: str | None = None) -> dict[str, Any]:
    return {"roi": {"begin": begin, "end": end}, "weights": weights or world.second}


def test_an_override_replaces_voxel_by_voxel_and_the_later_one_holds(world: World):
    overrides = [override(world, (2, 5, 5), (9, 30, 31)), override(world, (6, 20, 0), (14, 42, 26), world.first)]
    stage = world.predict("override", predict={"override": overrides})
    world.run(stage)
    expected = world.codes(world.first)
    expected[:, 2:9, 5:30, 5:31] = world.codes(world.second)[:, 2:9, 5:30, 5:31]
    expected[:, 6:14, 20:42, 0:26] = world.codes(world.first)[:, 6:14, 20:42, 0:26]
    np.testing.assert_array_equal(stage.read_codes(Box.of_shape(LAYER)), expected)


def test_only_blocks_that_an_override_touches_change_their_identity(world: World):
    plain = world.predict()
    stage = world.predict(predict={"override": [override(world, (0, 0, 0), (8, 24, 25))]})
    assert stage.identity == plain.identity
    touched = {index for index in stage.sweep(BLOCKS).grid if stage.block_content(BLOCKS, index) is not None}
    assert touched == {(0, 0, 0), (0, 0, 1)}
    assert all(plain.block_content(BLOCKS, index) is None for index in plain.sweep(BLOCKS).grid)
    clipped = stage.block_content(BLOCKS, (0, 0, 1))["overrides"][0]
    assert clipped[:2] == [(0, 0, 24), (8, 24, 25)]
    further = world.predict(predict={"override": [override(world, (0, 0, 0), (8, 24, 26))]})
    assert further.block_content(BLOCKS, (0, 0, 0)) == stage.block_content(BLOCKS, (0, 0, 0))
    assert further.block_content(BLOCKS, (0, 0, 1)) != stage.block_content(BLOCKS, (0, 0, 1))


def test_an_override_with_other_codes_is_refused(world: World):
    table = tuple(round(65535 * code / 255) for code in range(256))
    other = write_weights(world.folder / "other.safetensors", 3, code_table=table)
    with pytest.raises(ConfigError, match="code_table"):
        world.predict(predict={"override": [override(world, (0, 0, 0), (8, 8, 8), other)]})


# ---- what goes wrong ------------------------------------------------------------------------------------------------
def test_weights_that_changed_since_the_run_began_are_refused(world: World):
    path = world.folder / "fickle.safetensors"
    write_weights(path, 5)
    stage = world.predict("fickle", predict={"weights": str(path)})
    resample(stage)
    write_weights(path, 6)
    with pytest.raises(BadWeights, match="begun with"):
        stage.compute(stage.read(BLOCKS, (0, 0, 0)))


def test_a_block_that_chunks_do_not_divide_is_refused(world: World):
    with pytest.raises(ConfigError, match="no multiple"):
        world.predict(predict={"block": [6, 24, 24]}).passes()


def test_a_block_is_chosen_when_none_is_given(world: World):
    stage = world.predict(predict={"block": None})
    assert stage.redundancy() < 1.25
    assert all(b % c == 0 for b, c in zip(stage.sweep(BLOCKS).grid.block, (4, 8, 8), strict=True))
    assert stage.memory_bytes(BLOCKS) < 1 << 30
    assert stage.stored_bytes() == 3 * np.prod(LAYER) + stage.shell_bytes(LAYER)


def test_a_network_that_takes_a_gigabyte_does_not_make_the_chosen_block_small(world: World):
    heads = {"name": "rsunet", "widths": [32, 64], "heads": {"affinity": 3}}
    large = {"architecture": heads, "patch": (20, 160, 160), "stride": (10, 112, 112)}
    weights = write_weights(world.folder / "large.safetensors", 3, **large)
    stage = world.predict(predict={"weights": weights, "block": None})
    assert stage.memory_bytes(BLOCKS) > 1 << 30
    assert stage.redundancy() < 1.25
