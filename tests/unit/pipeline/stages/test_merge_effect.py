"""The merge effect stage: at the run's own threshold the scores of evaluate, on every grid the same, honest needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LAYER, ROI
from touch_cases import FACTS, HIDDEN, IMAGE, ON, OWN, judge

from pipeline.config import parse
from pipeline.geometry import Index
from pipeline.ops.evaluate import pairs
from pipeline.ops.merge_effect import effect_by_round
from pipeline.ops.relabel import rename
from pipeline.ops.self_touch import MERGE
from pipeline.sources import open_source
from pipeline.stages.cut import Cut
from pipeline.stages.evaluate import BLOCKS, TOTAL, Evaluate
from pipeline.stages.judge import Judge
from pipeline.stages.merge_effect import MergeEffect
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.synthesize import Synthesize


@pytest.fixture
def touched(chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """A chain of stages that has been run, with evaluate and merge effect behind it, and a truth in a file."""
    monkeypatch.setattr(Judge, "judge", judge)

    def build(block: Index, rounds: int = 1) -> tuple[Any, Evaluate, MergeEffect]:
        on = {**ON, "rounds": rounds}
        made = chain(block, hidden=HIDDEN, facts=FACTS, image=IMAGE, self_touch=on).run()
        np.save(tmp_path / "truth.npy", truth_of())
        given = {
            "synthetic": None,
            "image": "image.npy",
            "truth": str(tmp_path / "truth.npy"),
            "truth_voxel_size_nm": [30, 6, 6],
        }
        site = made.stages[0].site
        config = parse({**site.config.model_dump(), "input": given}, where="test")
        known = {"fingerprint": open_source(given["truth"]).fingerprint(), "shape": list(LAYER.shape)}
        told = {**FACTS, "masks": [], "truth": {**known, "voxel_size_pm": list(LAYER.voxel_size.pm)}}
        before = (made.predict, *made.stages)
        for kind in (Synthesize, Evaluate, MergeEffect):
            before = (*before, kind(replace(site, config=config, facts=told, before=before)))
        return made, before[-2], before[-1]  # type: ignore[return-value]

    return build


def truth_of() -> np.ndarray:
    z, y, x = np.indices(LAYER.shape)
    truth = (1 + z // 9 * 20 + y // 15 * 5 + x // 13).astype(np.uint64)
    truth[:, ::11] = 0
    return truth


def carried_out(stage: Any) -> dict[str, Any]:
    """The summary of the last block."""
    for sweep in stage.passes():
        for index in sweep.grid:
            written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
            assert dict(stage.reread(sweep.name, index)) == dict(written.parts)
    return dict(written.summary)


def test_at_its_own_threshold_it_is_evaluate_on_every_grid(touched: Callable[..., Any]) -> None:
    tables = []
    for block in ((24, 40, 40), (12, 20, 20)):
        _, evaluate, judged = touched(block)
        scores, told = carried_out(evaluate), carried_out(judged)
        points = {point.threshold: point for point in judged.points()}
        assert {name: getattr(points[OWN], name) for name in ("voi_split", "voi_merge", "voi", "arand")} == {
            name: scores[name] for name in ("voi_split", "voi_merge", "voi", "arand")
        }
        assert points[OWN].accepted == told["merged"] > 2
        assert points[3.0].accepted > points[OWN].accepted > points[0.0].accepted == 0
        tables.append((judged.points(), judged.effect().sum.tolist()))
    assert tables[0] == tables[1]


def test_every_decision_has_the_effect_that_whole_arrays_give(touched: Callable[..., Any]) -> None:
    made, _, judged = touched((12, 20, 20), rounds=2)
    carried_out(judged)
    table, cut = made.stage(SelfTouch).decisions(), made.stage(Cut)
    before = np.zeros(ROI.shape, np.uint64)
    for block in cut.grids[0]:
        box = cut.grids[0].block_box(block)
        inside = box.slices(ROI.begin)
        before[inside] = rename(made.fragments()[inside], *cut.names(block))
    counted = pairs(truth_of()[ROI.slices()], before)
    merged = table["decision"] == MERGE
    expected = effect_by_round(counted, (table["s1"], table["s2"]), table["round"], merged)
    found = judged.effect()
    np.testing.assert_array_equal(found.split, expected.split)
    np.testing.assert_array_equal(found.merge, expected.merge)
    assert set(table["round"].tolist()) == {1, 2}
    assert (found.sum < 0).any()
    assert (found.sum > 0).any()


def test_needs_are_the_tables_that_are_read(touched: Callable[..., Any], reads: Callable[..., Any]) -> None:
    made, _, judged = touched((12, 20, 20), rounds=2)
    made.stages = (*made.stages, judged)
    for kind in judged.passes():
        for index in kind.grid:
            inputs, found = reads(made, judged, kind.name, index)
            assert sorted(judged.needs(kind.name, index)) == sorted(found)
            judged.write(kind.name, index, judged.compute(inputs))


def test_without_a_truth_or_decisions_it_has_no_passes(touched: Callable[..., Any]) -> None:
    _, _, judged = touched((24, 40, 40))
    assert [sweep.name for sweep in judged.passes()] == [BLOCKS, TOTAL]
    site = judged.site
    off = parse({**site.config.model_dump(), "self_touch": {"enabled": False}}, where="test")
    assert SelfTouch(replace(site, config=off)).active is False
