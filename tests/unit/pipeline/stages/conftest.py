"""The stages from codes to labels, run block by block on files, with a stand-in for the network's stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import RunConfig, parse
from pipeline.geometry import Box, Grid, Index, Layer, VoxelSize
from pipeline.stages import shells, tabular
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.classes import ClassVotes
from pipeline.stages.contacts import Contacts
from pipeline.stages.cut import Cut
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.fragments import Fragments
from pipeline.stages.mutex_watershed import MutexWatershed
from pipeline.stages.predict import Predict
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.stage import Pass, Site, Stage
from pipeline.stages.tiled_fragments import Seeded, Waterz
from pipeline.tables import read_tables
from pipeline.volumes import Volume, digest
from workers.block import BlockRef

ROI = Box((1, 2, 3), (25, 42, 43))
LAYER = Layer((26, 44, 45), ROI, VoxelSize.from_nm([30, 6, 6]))
PREDICT_BLOCK = (12, 20, 20)
MAKERS = (Fragments, MutexWatershed, Seeded, Waterz)
KINDS = (*MAKERS, RegionGraph, Contacts, ClassVotes, Agglomerate, Cut, SelfTouch, Relabel)

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-2, 0, 0), (0, -4, 0), (0, 0, -4), (1, -3, 0), (0, 3, -3))


class StandIn(Predict):
    """Codes from memory, in blocks of their own grid, and their shells from files; some blocks are masked."""

    def __init__(self, site: Site, codes_CZYX: np.ndarray, hidden: tuple[Index, ...]) -> None:
        Stage.__init__(self, site)
        self.grid = Grid(site.layer.roi, PREDICT_BLOCK)
        self.hidden = hidden
        self.read_boxes: list[Box] = []
        self.codes_CZYX = codes_CZYX.copy()
        absent = np.zeros(ROI.shape, bool)
        for index in hidden:
            absent[self.grid.block_box(index).slices(ROI.begin)] = True
        self.exists = np.ones(codes_CZYX.shape, bool)
        for axis in range(3):
            edges, end = np.moveaxis(self.exists[axis], axis, 0), np.moveaxis(absent, axis, 0)
            edges[0] = False
            edges[1:] &= ~end[:-1]
            edges &= ~end
        self.codes_CZYX[~self.exists] = 0
        for ref in self.code_refs(ROI):
            box = self.grid.block_box(ref.index)
            nearest_CZYX = self.codes_CZYX[(slice(3), *box.slices(ROI.begin))]
            shells.store(self._shells(ref.index), nearest_CZYX, box, self._cells)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        return ()

    def content(self) -> dict[str, Any]:
        return {"codes": digest(self.codes_CZYX)}

    def passes(self) -> tuple[Pass, ...]:
        return (Pass("blocks", self.grid),)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        return []

    def masked(self, sweep: str, index: Index) -> bool:
        return index in self.hidden

    def summary(self, index: Index) -> dict[str, Any]:
        where = (slice(None), *self.grid.block_box(index).slices(ROI.begin))
        codes = self.codes_CZYX[where][self.exists[where]]
        return {"histogram": np.bincount(codes, minlength=256).tolist()}

    @property
    def code_table(self) -> np.ndarray:
        return np.arange(256) * 257

    @property
    def code_grid(self) -> Grid:
        return self.grid

    @property
    def offsets(self) -> tuple[Index, ...]:
        return OFFSETS[: len(self.codes_CZYX)]

    def _stored_codes(self, box: Box, channels: int) -> np.ndarray:
        assert ROI.contains(box)
        self.read_boxes.append(box)
        return self.codes_CZYX[(slice(channels), *box.slices(ROI.begin))].copy()


class StandInImage(Resample):
    """An image in memory."""

    def __init__(self, site: Site, image_ZYX: np.ndarray) -> None:
        Stage.__init__(self, site)
        self.image_ZYX = image_ZYX

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        return ()

    def content(self) -> dict[str, Any]:
        return {"image": digest(self.image_ZYX)}

    def passes(self) -> tuple[Pass, ...]:
        return (Pass("blocks", Grid(LAYER.box, PREDICT_BLOCK)),)

    @property
    def image(self) -> Any:
        return self

    def read(self, box: Box) -> np.ndarray:  # type: ignore[override]
        assert LAYER.box.contains(box)
        return self.image_ZYX[box.slices()]


@dataclass
class Chain:
    """The stages, and the receipts of what they did."""

    predict: StandIn
    stages: tuple[tabular.TabularStage, ...]
    parts: dict[BlockRef, Mapping[str, str]]
    summaries: dict[BlockRef, Mapping[str, Any]]
    asked: list[BlockRef] = field(default_factory=list)  # whose summaries were looked at

    def stage(self, kind: type[Any]) -> Any:
        return next(s for s in self.stages if isinstance(s, kind))

    def tasks(self) -> Iterator[tuple[tabular.TabularStage, str, Index]]:
        for stage in self.stages:
            for sweep in stage.passes():
                for index in sweep.grid:
                    yield stage, sweep.name, index

    def run(self, around: Callable[[Any, str, Index], Any] | None = None) -> Chain:
        for stage in self.stages:
            stage.prepare()
        for stage, sweep, index in self.tasks():
            ref = BlockRef(stage.task(sweep), index)
            if not stage.masked(sweep, index):
                inputs = around(stage, sweep, index) if around else stage.read(sweep, index)
                written = stage.write(sweep, index, stage.compute(inputs))
                self.parts[ref], self.summaries[ref] = written.parts, written.summary
        return self

    def fragments(self) -> np.ndarray:
        return self.stage(FragmentSource).read_labels(ROI)

    def segmentation(self) -> np.ndarray:
        return self.stage(Relabel).read_segmentation(ROI)


def random_codes(seed: int = 0) -> np.ndarray:
    """Coarse noise: fragments of some size, few levels, hence many ties."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, (3, 12, 10, 10)).repeat(2, 1).repeat(4, 2).repeat(4, 3)
    noise = rng.integers(0, 4, (3, *ROI.shape))
    return (coarse * 45 + noise * 9).astype(np.uint8)


def config_of(block: Index, **sections: Mapping[str, Any]) -> RunConfig:
    settings: dict[str, Any] = {
        "fragments": {"low": 0.1, "high": 0.95, "dust_vx": 4},
        "agglomerate": {"floor": 0.3},
        "relabel": {"threshold": 0.55},
    }
    settings.update(sections)
    layout = {"shape": block, "chunk": block}
    return parse({"input": {"synthetic": {}}, "blocks": layout, **settings}, where="test")


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Chain]:
    """Build the stages over codes: `chain(block, codes=..., hidden=..., fragments={...})`. Nothing is synced."""
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def build(
        block: Index,
        *,
        codes: np.ndarray | None = None,
        hidden: tuple[Index, ...] = (),
        facts: Mapping[str, Any] | None = None,
        image: np.ndarray | None = None,
        **sections: Any,
    ) -> Chain:
        summaries: dict[BlockRef, Mapping[str, Any]] = {}
        config = config_of(block, **sections)
        before: tuple[Stage[Any, Any], ...] = ()

        asked: list[BlockRef] = []

        def summary(ref: BlockRef) -> Mapping[str, Any]:
            asked.append(ref)
            return summaries[ref]

        def site() -> Site:
            return Site(config, LAYER, facts or {}, tmp_path / "data", before, summary)

        predict = StandIn(site(), random_codes() if codes is None else codes, hidden)
        before = (predict,) if image is None else (StandInImage(site(), image), predict)
        made = len(before)
        for index in predict.grid:
            if not predict.masked("blocks", index):
                summaries[BlockRef("predict/blocks", index)] = predict.summary(index)
        for kind in KINDS:
            before = (*before, kind(site()))
        active = tuple(stage for stage in before[made:] if stage.active)
        return Chain(predict, active, {}, summaries, asked)  # type: ignore[arg-type]

    return build


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Chain, Any, str, Index], tuple[Any, set[BlockRef]]]:
    """Read a block's inputs and tell which blocks' output that took, from the files and boxes touched."""
    tables: list[Path] = []
    volumes: list[tuple[Path, Box]] = []
    read = Volume.read

    def reading_tables(path: Path, sections: Any = None) -> Any:
        tables.append(path)
        return read_tables(path, sections)

    def reading_volume(self: Volume, box: Box) -> Any:
        volumes.append((self.path, box))
        return read(self, box)

    monkeypatch.setattr(tabular, "read_tables", reading_tables)
    monkeypatch.setattr(shells, "read_tables", reading_tables)
    monkeypatch.setattr(Volume, "read", reading_volume)

    def take(chain: Chain, stage: Any, sweep: str, index: Index) -> tuple[Any, set[BlockRef]]:
        for found in (tables, volumes, chain.asked, chain.predict.read_boxes):
            found.clear()
        inputs = stage.read(sweep, index)
        refs = set(chain.asked)
        folders = {other.folder: other for other in (chain.predict, *chain.stages)}
        for path in tables:
            z, y, x = int(path.parent.parent.name), int(path.parent.name), int(path.stem)
            sweep = path.parents[2].name.replace("shells", "blocks")
            refs.add(BlockRef(folders[path.parents[3]].task(sweep), (z, y, x)))
        for path, box in volumes:
            refs.update(folders[path.parent].refs(*folders[path.parent].labelled, box))
        for box in chain.predict.read_boxes:
            near = chain.predict.refs("blocks", box)
            refs.update(ref for ref in near if not chain.predict.masked("blocks", ref.index))
        return inputs, refs

    return take
