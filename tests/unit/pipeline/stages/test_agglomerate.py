"""The agglomerate stage: the merge tree is the same set of rows on every grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.stages.agglomerate import Agglomerate


def tree_of(done: Any) -> list[tuple[float, int, int]]:
    stage = done.stage(Agglomerate)
    rows = []
    for sweep in stage.passes():
        for index in sweep.grid:
            if not stage.masked(sweep.name, index):
                merges = stage.tables(sweep.name, index, "merges")["merges"]
                rows += zip(merges["score"].tolist(), merges["a"].tolist(), merges["b"].tolist(), strict=True)
    return sorted(rows)


@pytest.mark.parametrize("floor", [0.0, 0.45])
def test_the_merge_tree_is_the_same_on_every_grid(chain: Callable[..., Any], floor: float) -> None:
    trees = [tree_of(chain(b, agglomerate={"floor": floor}).run()) for b in ((24, 40, 40), (8, 16, 12), (5, 7, 40))]
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
