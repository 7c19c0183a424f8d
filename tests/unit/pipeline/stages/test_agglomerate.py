"""The agglomerate stage: the merge tree is the same set of rows on every grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import OutOfMemory
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.region_graph import RegionGraph


def tree_of(done: Any) -> list[tuple[float, int, int]]:
    stage = done.stage(Agglomerate)
    rows = []
    for sweep in stage.passes():
        for index in sweep.grid:
            if not stage.masked(sweep.name, index):
                merges = stage.tables(sweep.name, index, "merges")["merges"]
                rows += zip(merges["score"].tolist(), merges["a"].tolist(), merges["b"].tolist(), strict=True)
    return sorted(rows)


@pytest.mark.parametrize(("score", "floor"), [("mean", 0.0), ("mean", 0.45), ("max", 0.45), ("quantile", 0.45)])
def test_the_merge_tree_is_the_same_on_every_grid(chain: Callable[..., Any], score: str, floor: float) -> None:
    settings = {"score": score, "floor": floor}
    trees = [tree_of(chain(block, agglomerate=settings).run()) for block in ((24, 40, 40), (8, 16, 12), (5, 7, 40))]
    assert trees[0]
    assert trees[0] == trees[1] == trees[2]
    assert all(score > floor * 65535 for score, _, _ in trees[0])


def test_nothing_is_left_at_the_top(chain: Callable[..., Any]) -> None:
    done = chain((6, 20, 10)).run()
    top = done.stage(Agglomerate).passes()[-1].name
    summary = next(s for ref, s in done.summaries.items() if ref.task == f"agglomerate/{top}")
    assert summary["nodes"] == summary["edges"] == 0


def test_content_is_the_score_and_the_floor(chain: Callable[..., Any]) -> None:
    assert chain((8, 16, 12)).stage(Agglomerate).content() == {"score": "mean", "floor": 0.3}
    settings = {"score": "quantile", "floor": 0.3, "quantile": 75}
    assert chain((8, 16, 12), agglomerate=settings).stage(Agglomerate).content() == settings


def test_histograms_are_kept_on_request_and_for_quantiles(chain: Callable[..., Any]) -> None:
    assert not chain((8, 16, 12)).stage(RegionGraph).content()["histograms"]
    assert chain((8, 16, 12), region_graph={"histograms": True}).stage(RegionGraph).content()["histograms"]
    assert chain((8, 16, 12), agglomerate={"score": "quantile", "floor": 0.3}).stage(RegionGraph).histograms


def test_a_root_that_does_not_fit_is_refused_with_numbers(chain: Callable[..., Any]) -> None:
    done = chain((6, 20, 10), workers={"cpu": {"memory_gb": 1e-5}})
    with pytest.raises(OutOfMemory, match=r"[0-9,]+ undecided edges .* GB, a worker has 1e-05 GB") as refused:
        done.run()
    assert "agglomerate.floor" in str(refused.value.way_out)
    assert "memory_gb" in str(refused.value.way_out)
    assert "blocks.shape" in str(refused.value.way_out)
