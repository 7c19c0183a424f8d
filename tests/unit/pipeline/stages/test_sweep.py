"""The sweep stage: at the run's own threshold the scores of evaluate, on every grid the same table, honest needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse
from pipeline.sources import open_source
from pipeline.stages.evaluate import TOTAL, Evaluate
from pipeline.stages.stage import Site
from pipeline.stages.sweep import Sweep
from pipeline.stages.synthesize import Synthesize
from workers.block import BlockRef

HIDDEN = ((0, 1, 0), (1, 0, 1))
OWN = 0.55
MEASURES = ("voi_split", "voi_merge", "voi", "arand", "segments")


def judged(made: Any, folder: Path, **sections: Any) -> tuple[Evaluate, Sweep]:
    """Evaluate and sweep behind a chain of stages, with a truth in a file."""
    site: Site = made.stages[0].site
    z, y, x = np.indices(site.layer.shape)
    truth = (1 + z // 9 * 20 + y // 15 * 5 + x // 13).astype(np.uint64)
    truth[:, ::11] = 0
    np.save(folder / "truth.npy", truth)
    given = {"image": "none", "truth": str(folder / "truth.npy"), "truth_voxel_size_nm": [30, 6, 6]}
    settings = {"agglomerate": {"floor": 0.3}, "relabel": {"threshold": OWN}, **sections}
    layout = site.config.blocks.model_dump()
    config = parse({"input": given, "blocks": layout, **settings}, where="test")
    fingerprint = open_source(given["truth"]).fingerprint()
    size = list(site.layer.voxel_size.pm)
    facts = {"masks": [], "truth": {"fingerprint": fingerprint, "shape": list(truth.shape), "voxel_size_pm": size}}
    before = (made.predict, *made.stages)
    for kind in (Synthesize, Evaluate, Sweep):
        before = (*before, kind(replace(site, config=config, facts=facts, before=before)))
    return before[-2], before[-1]


def carried_out(stage: Any) -> dict[BlockRef, Any]:
    """The summaries of all blocks."""
    summaries = {}
    for sweep in stage.passes():
        for index in sweep.grid:
            written = stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
            assert dict(stage.reread(sweep.name, index)) == dict(written.parts)
            summaries[BlockRef(stage.task(sweep.name), index)] = written.summary
    return summaries


@pytest.mark.parametrize("ignore_zero", [True, False])
def test_at_its_own_threshold_it_is_evaluate_on_every_grid(
    chain: Callable[..., Any], tmp_path: Path, ignore_zero: bool
) -> None:
    tables = []
    for block in ((24, 40, 40), (8, 16, 12)):
        made = chain(block, hidden=HIDDEN).run()
        evaluate, sweep = judged(made, tmp_path, evaluate={"ignore_truth_zero": ignore_zero})
        scores = carried_out(evaluate)[BlockRef(evaluate.task(TOTAL), (0, 0, 0))]
        carried_out(sweep)
        points = sweep.stored_points()
        assert [point.threshold for point in points] == [round(0.05 * n, 2) for n in range(6, 19)]
        own = next(point for point in points if point.threshold == OWN)
        assert {name: getattr(own, name) for name in MEASURES} == {name: scores[name] for name in MEASURES}
        tables.append(points)
    assert tables[0] == tables[1]
    assert len({point.segments for point in tables[0]}) > 3
    assert tables[0][0].segments < tables[0][-1].segments


def test_needs_are_the_tables_that_are_read(
    chain: Callable[..., Any], reads: Callable[..., Any], tmp_path: Path
) -> None:
    made = chain((8, 16, 12), hidden=HIDDEN).run()
    _, sweep = judged(made, tmp_path)
    made.stages = (*made.stages, sweep)
    for kind in sweep.passes():
        for index in kind.grid:
            inputs, found = reads(made, sweep, kind.name, index)
            assert sorted(sweep.needs(kind.name, index)) == sorted(found)
            sweep.write(kind.name, index, sweep.compute(inputs))


def test_it_does_not_depend_on_the_threshold_of_the_run(chain: Callable[..., Any], tmp_path: Path) -> None:
    made = chain((24, 40, 40))
    _, sweep = judged(made, tmp_path)
    _, other = judged(made, tmp_path, relabel={"threshold": 0.7})
    assert sweep.folder == other.folder
    _, fewer = judged(made, tmp_path, sweep={"thresholds": [0.1, 0.5]})
    assert fewer.thresholds == (0.5,)
    assert fewer.folder != sweep.folder
    _, none = judged(made, tmp_path, sweep={"thresholds": []})
    assert sweep.active
    assert not none.active
