"""The fragments stage: passes, thresholds, reading labels back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.geometry import Box
from pipeline.ops.fragments import watershed
from pipeline.ops.pieces import Rules, close
from pipeline.ops.relabel import rename
from pipeline.ops.thresholds import percentile_codes
from pipeline.stages.fragments import Fragments
from pipeline.tables import read_tables


def test_passes_go_up_and_down(chain: Callable[..., Any]) -> None:
    names = [p.name for p in chain((6, 20, 10)).stage(Fragments).passes()]
    assert names == ["thresholds", "up0", "up1", "up2", "down1", "down0"]
    assert [p.name for p in chain((24, 40, 40)).stage(Fragments).passes()] == ["thresholds", "up0", "down0"]


def test_identity_depends_on_the_answer_and_layout_on_the_grid(chain: Callable[..., Any]) -> None:
    one, other = chain((6, 20, 10)).stage(Fragments), chain((8, 16, 12)).stage(Fragments)
    assert one.identity == other.identity
    assert one.layout != other.layout
    for changed in ({"low": 0.2}, {"high": 0.9}, {"dust_vx": 9}, {"size_vx": 9}, {"thresholds": "percentile"}):
        settings = {"low": 0.1, "high": 0.95, "dust_vx": 4, **changed}
        assert chain((6, 20, 10), fragments=settings).stage(Fragments).identity != one.identity


def test_percentiles_come_from_all_existing_edges(chain: Callable[..., Any]) -> None:
    hidden = ((1, 1, 0),)
    settings = {"thresholds": "percentile", "low": 0.05, "high": 0.9}
    done = chain((12, 20, 20), hidden=hidden, fragments=settings).run()
    codes = done.predict.codes_CZYX[done.predict.exists]
    summary = next(s for ref, s in done.summaries.items() if ref.task == "fragments/thresholds")
    expected = percentile_codes(np.bincount(codes, minlength=256), 0.05, 0.9)
    assert (summary["low_code"], summary["high_code"]) == expected
    assert expected[0] < expected[1]


@pytest.mark.parametrize("hidden", [(), ((0, 0, 1),)])
def test_labels_of_any_box_are_the_crop_of_all(chain: Callable[..., Any], hidden: Any) -> None:
    done = chain((12, 20, 20), hidden=hidden).run()
    stage = done.stage(Fragments)
    roi = stage.site.layer.roi
    whole = stage.read_labels(roi)
    assert whole.any()
    for box in (Box((1, 2, 3), (2, 3, 4)), Box((5, 15, 20), (20, 42, 43)), Box((13, 22, 3), (14, 23, 43))):
        np.testing.assert_array_equal(stage.read_labels(box), whole[box.slices(roi.begin)])
    if hidden:
        assert not whole[stage.box("up0", (0, 0, 1)).slices(roi.begin)].any()


def test_high_faces_are_the_last_layer_of_the_labels(chain: Callable[..., Any]) -> None:
    done = chain((8, 16, 12)).run()
    stage = done.stage(Fragments)
    for axis, side in enumerate(("high_z", "high_y", "high_x")):
        for index in stage.grids[0]:
            if index[axis] + 1 < stage.grids[0].shape[axis]:
                labels = stage.read_labels(stage.box("up0", index))
                np.testing.assert_array_equal(stage.read_high_face(index, side), labels.take(-1, axis))


def test_fragments_are_named_after_their_first_voxel(chain: Callable[..., Any]) -> None:
    done = chain((6, 20, 10)).run()
    labels = done.fragments()
    names, first, volumes = np.unique(labels, return_index=True, return_counts=True)
    z, y, x = np.unravel_index(first, labels.shape)
    expected = 1 + ((z + 1) << 42 | (y + 2) << 21 | (x + 3))  # the region begins at (1, 2, 3)
    np.testing.assert_array_equal(names[names != 0], expected[names != 0].astype(np.uint64))
    assert volumes[names != 0].min() >= 4


def test_estimates_cover_what_is_stored(chain: Callable[..., Any]) -> None:
    done = chain((6, 20, 10)).run()
    for stage in done.stages:
        assert stage.stored_bytes() > 0
        for sweep in stage.passes():
            assert stage.memory_bytes(sweep.name) > 0
        files = sum(1 for p in stage.folder.rglob("*"))
        assert files <= stage.inodes()


@pytest.mark.parametrize("size_vx", [0, 30, 3000])
def test_estimates_cover_the_tables_of_noise(chain: Callable[..., Any], size_vx: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 40)).astype(np.uint8)
    settings = {"low": 0.02, "high": 0.98, "size_vx": size_vx, "dust_vx": 0}
    stage = chain((8, 16, 16), codes=noise, fragments=settings).stage(Fragments)
    stage.prepare()
    for sweep in stage.passes():
        for index in sweep.grid:
            stage.write(sweep.name, index, stage.compute(stage.read(sweep.name, index)))
    tables = [read_tables(path) for path in stage.folder.rglob("*.arrow")]
    stored = sum(column.nbytes for table in tables for section in table.values() for column in section.values())
    assert stored > 8 * noise[0].size
    assert 8 * noise[0].size + stored <= stage.stored_bytes()


@pytest.mark.parametrize("hidden", [(), ((0, 0, 1),)])
def test_linked_fragments_are_those_of_one_go_on_every_grid(chain: Callable[..., Any], hidden: Any) -> None:
    settings = {"low": 0.1, "high": 0.95, "size_vx": 30, "dust_vx": 4}
    for block in ((6, 20, 10), (24, 40, 40), (8, 16, 12)):
        done = chain(block, hidden=hidden, fragments=settings)
        for stage, sweep, index in done.tasks():
            if isinstance(stage, Fragments) and not stage.masked(sweep, index):
                stage.prepare()
                stage.write(sweep, index, stage.compute(stage.read(sweep, index)))
        roi = done.stage(Fragments).site.layer.roi
        whole = watershed(done.predict.codes_CZYX, roi, roi, codes=(25, 243), internal=0, size_vx=30)
        joined = close(whole.part, Rules(30, 4))
        np.testing.assert_array_equal(done.fragments(), rename(whole.labels_ZYX, joined.old, joined.new))
