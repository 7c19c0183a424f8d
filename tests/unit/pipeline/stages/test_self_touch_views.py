"""What there is to see of decisions: the section of the image through each point, and whose voxels are whose there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import LAYER, ROI
from touch_cases import FACTS, HIDDEN, IMAGE, ON, judge

from pipeline.ops.candidate_views import FIRST, NEITHER, OTHER, SECOND
from pipeline.ops.relabel import rename
from pipeline.ops.resample import mean_image
from pipeline.stages.cut import Cut
from pipeline.stages.judge import Judge
from pipeline.stages.self_touch import SelfTouch

HALF, AROUND = (8, 8), 30  # of the 16 x 16 voxels that are shown; more than that around the layer


@pytest.fixture
def decided(chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(Judge, "judge", judge)
    return lambda block: chain(block, hidden=HIDDEN, facts=FACTS, image=IMAGE, self_touch=ON).run()


def segments(made: Any) -> np.ndarray:
    """Of the layer, before anything is merged here."""
    cut, labels = made.stage(Cut), np.zeros(LAYER.shape, np.uint64)
    for block in cut.grids[0]:
        box = cut.grids[0].block_box(block)
        labels[box.slices()] = rename(made.fragments()[box.slices(ROI.begin)], *cut.names(block))
    return labels


def test_views_are_sections_of_whole_arrays_on_every_grid(decided: Callable[..., Any]) -> None:
    shown = []
    for block in ((24, 40, 40), (12, 20, 20)):
        made = decided(block)
        stage = made.stage(SelfTouch)
        table = stage.decisions()
        shown.append(stage.views(table, np.arange(table["s1"].size)))
    for name in ("image_NYX", "sides_NYX", "colours_NYXC"):
        np.testing.assert_array_equal(getattr(shown[0], name), getattr(shown[1], name))
    whole = (slice(None), slice(0, 44), slice(0, 44))  # coarse voxels are whole ones
    margins = ((0, 0), (AROUND, AROUND), (AROUND, AROUND))
    image = np.pad(mean_image(IMAGE[whole], (1, 2, 2)), margins, mode="reflect")
    labels = np.pad(segments(made)[whole][:, ::2, ::2], margins)
    for row in range(shown[0].size):
        z, *point = (int(table[axis][row]) for axis in "zyx")
        begin = [min(p // 2, 21) + AROUND - half for p, half in zip(point, HALF, strict=True)]
        section = (z, *(slice(b, b + 2 * half) for b, half in zip(begin, HALF, strict=True)))
        np.testing.assert_array_equal(shown[0].image_NYX[row], image[section])
        expected = np.where(labels[section] == 0, NEITHER, OTHER)
        expected[labels[section] == table["s1"][row]] = FIRST
        expected[labels[section] == table["s2"][row]] = SECOND
        np.testing.assert_array_equal(shown[0].sides_NYX[row], expected)
    assert shown[0].size > 8
    np.testing.assert_array_equal(shown[0].colours_NYXC.any(axis=-1), shown[0].sides_NYX != NEITHER)


def test_views_come_in_the_order_that_is_asked_for(decided: Callable[..., Any]) -> None:
    stage = decided((12, 20, 20)).stage(SelfTouch)
    table = stage.decisions()
    every, some = (stage.views(table, rows) for rows in (np.arange(table["s1"].size), np.array([5, 0, 3])))
    np.testing.assert_array_equal(some.image_NYX, every.image_NYX[[5, 0, 3]])
    assert stage.views(table, np.empty(0, np.int64)).image_NYX.shape == (0, 16, 16)
