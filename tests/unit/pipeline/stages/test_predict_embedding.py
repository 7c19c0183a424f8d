"""Predict with a network that puts out vectors and background; and what the mutex watershed makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoint import load_network, save_weights
from models.engine import Answer, predict_volume
from models.levels import Manner
from models.networks import build as build_network
from models.offsets import METRIC
from models.spec import WeightsSpec
from pipeline.config import parse
from pipeline.errors import ConfigError
from pipeline.facts import resolve
from pipeline.figures import cuts, figures
from pipeline.geometry import Box
from pipeline.ops import mutex_watershed
from pipeline.outcome import Outcome
from pipeline.pictures import nearest
from pipeline.plan import Plan, build
from pipeline.rundir import RunFolder
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.predict import BLOCKS, Predict
from pipeline.stages.resample import Resample
from pipeline.work import Survey
from workers.block import BlockRef

LAYER = (8, 28, 30)
WHOLE = Box.of_shape(LAYER)
FIELDS: dict[str, Any] = {
    "architecture": {
        "name": "rsunet",
        "widths": [4, 6],
        "heads": {"embedding": 5, "background": 1},
        "crop": [1, 2, 2],
    },
    "offsets": METRIC,
    "voxel_size_nm": (30.0, 12.0, 12.0),
    "patch": (8, 20, 20),
    "stride": (4, 10, 10),
    "delta": 1.5,
}


@dataclass
class Made:
    """A plan, and the summaries of the blocks that were made."""

    plan: Plan
    summaries: dict[BlockRef, Any]

    def stage(self, kind: type[Any]) -> Any:
        return self.plan.stage(kind)

    def run(self, *kinds: type[Any]) -> Made:
        """The stages of some kinds, block by block."""
        for stage in self.plan.stages:
            if not isinstance(stage, kinds):
                continue
            stage.prepare()
            for sweep in stage.passes():
                for index in sweep.grid:
                    if not stage.masked(sweep.name, index):
                        written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
                        assert written.parts == stage.reread(sweep.name, index)
                        self.summaries[BlockRef(stage.task(sweep.name), index)] = written.summary
        return self


class World:
    """An image and weights that nobody trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 200, [n // 2 for n in LAYER]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        self.image = (coarse + rng.integers(0, 55, LAYER)).astype(np.uint8)
        np.save(folder / "image.npy", self.image)
        self.weights = self.write("embedding")
        whole = self.answer()
        assert whole.background_ZYX is not None
        code = int(np.quantile(whole.background_ZYX, 0.8))
        self.table = np.array(load_network(self.weights)[1].code_table)
        self.threshold = int(self.table[code]) / 65535
        self.is_background = self.table[whole.background_ZYX] >= round(self.threshold * 65535)
        assert 0.05 < self.is_background.mean() < 0.5

    def write(self, name: str, **changes: Any) -> str:
        torch.manual_seed(2)
        spec = WeightsSpec(**{**FIELDS, **changes})
        network = build_network(spec.architecture)
        if "embedding" in spec.network.heads:
            network.heads.scale.data.fill_(0.4)
        path = self.folder / f"{name}.safetensors"
        save_weights(network, spec, path)
        return str(path)

    def answer(self, **manner: Any) -> Answer:
        return predict_volume(*load_network(self.weights), self.image, manner=Manner("all", **manner))

    def plan(self, name: str, block=(8, 16, 16), predict: dict[str, Any] | None = None, **sections: Any) -> Made:
        config = parse(
            {
                "input": {"image": str(self.folder / "image.npy"), "voxel_size_nm": [30, 12, 12]},
                "blocks": {"shape": block, "chunk": [4, 8, 8]},
                "predict": {
                    "weights": self.weights,
                    "block": block,
                    "background_threshold": self.threshold,
                    **(predict or {}),
                },
                "fragments": {"method": "mutex_watershed"},
                "mutex_watershed": {"mode": "exact"},
                **sections,
            },
            where="test",
        )
        summaries: dict[BlockRef, Any] = {}
        return Made(build(config, resolve(config), self.folder / name, summaries.__getitem__), summaries)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def restricted(answer: Answer, background: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxel by voxel: the codes without edges to what is not there or background, and the histogram."""
    out, histogram = np.zeros_like(answer.codes_CZYX), np.zeros(256, int)
    for channel, offset in enumerate(METRIC):
        for here in np.ndindex(*LAYER):
            there = tuple(a + o for a, o in zip(here, offset, strict=True))
            if any(not 0 <= a < n for a, n in zip(there, LAYER, strict=True)) or absent[here] or absent[there]:
                continue
            if background[here] or (channel < 3 and background[there]):
                continue
            code = out[(channel, *here)] = answer.codes_CZYX[(channel, *here)]
            if channel < 3:
                histogram[code] += 1
    return out, histogram


@pytest.mark.parametrize("block", [(8, 16, 16), (4, 8, 32)])
def test_edges_to_background_are_left_out_on_every_grid(world: World, block):
    absent = np.zeros(LAYER, bool)
    absent[:, :17, :18], absent[3:, 20:, 5] = True, True
    np.save(world.folder / "mask.npy", absent.astype(np.uint8))
    mask = [{"path": str(world.folder / "mask.npy"), "voxel_size_nm": [30, 12, 12]}]
    plan = world.plan(f"codes{block[0]}", block, mask=mask).run(Resample, Predict)
    stage, answer = plan.stage(Predict), world.answer()
    expected, histogram = restricted(answer, world.is_background, absent)
    np.testing.assert_array_equal(stage.read_codes(WHOLE, len(METRIC)), expected)
    stored = np.zeros(LAYER, np.uint8)
    for index in stage.sweep(BLOCKS).grid:
        if not stage.masked(BLOCKS, index):
            box = stage.code_grid.block_box(index)
            stored[box.slices()] = stage.background.read(box)
    np.testing.assert_array_equal(stored, np.where(absent, 0, answer.background_ZYX))
    told = [summary for ref, summary in plan.summaries.items() if ref.task == stage.task(BLOCKS)]
    np.testing.assert_array_equal(np.sum([one["histogram"] for one in told], axis=0), histogram)
    assert sum(one["patches_skipped"] for one in told) > 0
    assert stage.stored_bytes() == (len(METRIC) + 1) * WHOLE.voxels + stage.shell_bytes(LAYER)


def slow_mutex_watershed(world: World, answer: Answer) -> np.ndarray:
    """In one array: foreground has a nearest edge above `low` to foreground; the mask drops all edges to the rest."""
    nothing = np.zeros(LAYER, bool)
    codes, _ = restricted(answer, world.is_background, nothing)
    low = round(0.02 * 65535)
    strong = world.table[codes[:3]] > low
    inside = strong.any(0)
    for axis in range(3):
        ahead = np.moveaxis(strong[axis], axis, 0)[1:]
        np.moveaxis(inside, axis, 0)[:-1] |= ahead
    assert not inside[world.is_background].any()
    labels, _ = mutex_watershed.mutex_watershed(
        answer.codes_CZYX, METRIC, attractive=3, code_table=world.table, mask_ZYX=inside
    )
    return labels


def test_mutex_watershed_is_the_same_on_two_grids_and_in_one_array(world: World):
    expected = slow_mutex_watershed(world, world.answer())
    hashes = {}
    for mode in ("exact", "tiles"):
        for block in [(8, 16, 16), (4, 32, 8)]:
            settings = {"mode": mode, "tile": [4, 8, 8], "halo": [2, 4, 4]}
            plan = world.plan(f"{mode}{block[0]}", block, mutex_watershed=settings)
            plan.run(Resample, Predict, FragmentSource)
            labels = plan.stage(FragmentSource).read_labels(WHOLE)
            hashes.setdefault(mode, set()).add(hashlib.sha256(labels.tobytes()).hexdigest())
            assert not labels[world.is_background].any()
            if mode == "exact":
                pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
                count = np.unique(labels).size
                assert pairs.shape[1] == count == np.unique(expected).size
                assert 20 < count < WHOLE.voxels / 4
    assert [len(found) for found in hashes.values()] == [1, 1]


def test_the_manner_is_the_identity_where_it_is_not_the_usual_one(world: World):
    first = world.plan("plan").stage(Predict)
    assert first.offsets == METRIC
    assert world.plan("plan", (4, 8, 8), {"batch": 3}).stage(Predict).identity == first.identity
    others = [
        {"augment": "flips16"},
        {"precision": "bfloat16"},
        {"skip_empty": True},
        {"offsets": "nearest"},
        {"background_threshold": 0.9},
        {"keep_embeddings": True},
    ]
    identities = {world.plan("plan", predict=other).stage(Predict).identity for other in others}
    assert len(identities | {first.identity}) == 1 + len(others)
    off = world.plan("plan", predict={"keep_embeddings": False}).stage(Predict)
    assert off.identity == first.identity
    assert "keep_embeddings" not in off.content()
    assert "predict" not in json.dumps(world.plan("plan").stage(Predict).content())


def test_where_the_threshold_comes_from(world: World):
    def threshold(weights: str, own: float | None) -> float | None:
        plan = world.plan("plan", predict={"weights": weights, "background_threshold": own})
        return plan.stage(Predict).background_threshold

    stated = world.write("stated", background_threshold=0.3)
    assert threshold(world.weights, None) == 0.6
    assert threshold(stated, None) == 0.3
    assert threshold(stated, 0.7) == 0.7


def test_what_cannot_work_is_refused_by_the_plan(world: World):
    sparse = world.write("sparse", stride=(4, 13, 10))
    with pytest.raises(ConfigError, match="lie in no patch"):
        world.plan("plan", predict={"weights": sparse}).stage(Predict).content()
    oblong = world.write("oblong", patch=(8, 20, 24))
    with pytest.raises(ConfigError, match="exchanges y and x"):
        world.plan("plan", predict={"weights": oblong, "augment": "flips16"}).stage(Predict).content()
    heads = {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": len(METRIC)}}
    other = world.write("affinity", architecture=heads, delta=None)
    override = [{"roi": {"begin": [0, 0, 0], "end": [4, 8, 8]}, "weights": other}]
    with pytest.raises(ConfigError, match="has_background"):
        world.plan("plan", predict={"override": override}).stage(Predict).content()


def test_vectors_are_stored_alike_on_every_grid_and_change_nothing_else(world: World):
    absent = np.zeros(LAYER, bool)
    absent[:, :17, :18], absent[3:, 20:, 5] = True, True
    np.save(world.folder / "holes.npy", absent.astype(np.uint8))
    mask = [{"path": str(world.folder / "holes.npy"), "voxel_size_nm": [30, 12, 12]}]
    expected = world.answer(vectors=True).vectors_CZYX
    assert expected is not None
    expected[:, absent] = 0
    for block, batch in [((8, 16, 16), 1), ((4, 8, 32), 2), ((8, 32, 32), 4)]:
        own = {"keep_embeddings": True, "batch": batch}
        made = world.plan(f"kept{batch}", block, own, mask=mask).run(Resample, Predict)
        stage, stored = made.stage(Predict), np.zeros_like(expected)
        assert stage.vectors.spec.dtype == "float16"
        for index in stage.sweep(BLOCKS).grid:
            if not stage.masked(BLOCKS, index):
                box = stage.code_grid.block_box(index)
                stored[(..., *box.slices())] = stage.vectors.read(box)
        np.testing.assert_array_equal(stored, expected)
        assert len(list(stage.folder.rglob("*"))) <= stage.inodes()
    plain = world.plan("plain", (8, 32, 32), mask=mask).run(Resample, Predict).stage(Predict)
    np.testing.assert_array_equal(plain.read_codes(WHOLE, len(METRIC)), stage.read_codes(WHOLE, len(METRIC)))
    assert not (plain.folder / "embeddings").exists()
    assert stage.stored_bytes() - plain.stored_bytes() == 2 * 5 * WHOLE.voxels
    assert stage.memory_bytes(BLOCKS) - plain.memory_bytes(BLOCKS) >= 3 * 2 * 5 * WHOLE.voxels
    assert stage.inodes() > plain.inodes()


def test_which_patch_a_vector_is_of(world: World):
    """Patches of 6 x 16 x 16 that are 4, 10 and 10 apart; an override counts its own."""
    numbers = world.plan("plan", predict={"keep_embeddings": True}).stage(Predict).vector_patches(WHOLE)
    cuts = [np.flatnonzero(np.diff(np.moveaxis(numbers, axis, 0).reshape(n, -1)[:, 0])) for axis, n in enumerate(LAYER)]
    assert [(1 + cut).tolist() for cut in cuts] == [[5], [13, 23], [13, 23]]
    assert len(np.unique(numbers)) == 2 * 3 * 3
    override = [{"roi": {"begin": [0, 0, 0], "end": [4, 8, 8]}, "weights": world.weights}]
    plan = world.plan("plan", predict={"keep_embeddings": True, "override": override})
    corner = plan.stage(Predict).vector_patches(Box((0, 0, 0), (4, 10, 10)))
    assert len(np.unique(corner)) == 2
    assert len(np.unique(corner[:, :8, :8])) == 1


def pictures(page: str) -> dict[str, np.ndarray]:
    found = re.findall(r'<img alt="(\w+), (\w\w) [^"]*"[^>]*src="data:image/png;base64,([^"]*)"', page)
    drawn = {f"{name} {plane}": Image.open(BytesIO(base64.b64decode(data))) for name, plane, data in found}
    return {name: np.asarray(picture.convert("RGB")) for name, picture in drawn.items()}


def test_the_report_shows_vectors_as_colours_background_as_black_and_seams(world: World):
    made = world.plan("shown", predict={"keep_embeddings": True}).run(Resample, Predict)
    outcome = Outcome(RunFolder(world.folder / "shown"), made.plan)
    for task in made.plan.tasks:
        outcome.surveys[task.name] = Survey(task)
        outcome.surveys[task.name].current = {index: "digest" for index in task.sweep.grid}
    page = figures(outcome)
    shown = pictures(page)
    for name in ("Image", "Affinities", "Boundaries", "Background", "Embedding"):
        assert {f"{name} xy", f"{name} xz"} <= set(shown), name
    assert "no boundaries" in page
    cut = cuts(made.plan.layer.roi, made.plan.layer.voxel_size)[0]
    colours, background = (shown[f"{name} xy"].astype(int) for name in ("Embedding", "Background"))
    parts = nearest(made.stage(Predict).vector_patches(cut.box)[0], colours.shape[:2])
    seam = np.zeros(parts.shape, bool)
    seam[:-1] |= parts[:-1] != parts[1:]
    seam[:, :-1] |= parts[:, :-1] != parts[:, 1:]
    black, white = (colours == 0).all(-1), background[..., 0] == 255
    np.testing.assert_array_equal(black[~seam], white[~seam])
    assert 0 < black.mean() < 0.5
    assert (colours[seam] == 255).all()
    assert len(np.unique(colours[~seam & ~white], axis=0)) > 100
    plain = figures(Outcome(RunFolder(world.folder / "shown"), world.plan("shown").plan))
    assert "Embedding" not in plain


def test_an_embedding_that_cannot_be_kept_is_refused(world: World):
    heads = {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": len(METRIC), "background": 1}}
    affinities = world.write("affinities", architecture=heads, delta=None)
    with pytest.raises(ConfigError, match="have none") as refused:
        world.plan("plan", predict={"weights": affinities, "keep_embeddings": True}).stage(Predict).content()
    assert "set it to false" in (refused.value.way_out or "")
    longer = {**FIELDS["architecture"], "heads": {"embedding": 6, "background": 1}}
    override = [{"roi": {"begin": [0, 0, 0], "end": [4, 8, 8]}, "weights": world.write("longer", architecture=longer)}]
    with pytest.raises(ConfigError, match="one of 5 channels and one of 6 channels"):
        world.plan("plan", predict={"override": override, "keep_embeddings": True}).stage(Predict).content()
    world.plan("plan", predict={"override": override}).stage(Predict).content()
