"""The mutex watershed's stage on files: one answer for every block grid, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse
from pipeline.errors import ConfigError, InputError
from pipeline.geometry import Box, Grid
from pipeline.ops.mutex_watershed import mutex_watershed, named
from pipeline.stages import mutex_watershed as module
from pipeline.stages.fragment_source import FragmentSource

TILES = {"tile": [6, 10, 10], "halo": [1, 4, 4]}
CHANNELS, SHAPE = 8, (24, 40, 40)
BLOCKS = ((24, 40, 40), (12, 20, 40), (6, 20, 10))
HIDDEN = ((1, 0, 1),)


def affinities(seed: int = 0) -> np.ndarray:
    """Cells with noise and few levels: affinities to voxels of the same cell are higher."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((30, 3)) * SHAPE
    at = np.indices(SHAPE).reshape(3, -1).T
    cells = (((at[:, None] - seeds) * (3, 1, 1)) ** 2).sum(-1).argmin(1).reshape(SHAPE)
    codes = np.zeros((CHANNELS, *SHAPE), np.uint8)
    for channel, offset in enumerate(_offsets()):
        same = cells == np.roll(cells, tuple(-o for o in offset), (0, 1, 2))
        codes[channel] = 70 * same + rng.integers(0, 12, SHAPE) * 14
    return codes


def _offsets() -> tuple[tuple[int, int, int], ...]:
    return ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-2, 0, 0), (0, -4, 0), (0, 0, -4), (1, -3, 0), (0, 3, -3))


def built(chain: Callable[..., Any], block: Any, codes: Any = None, hidden: Any = (), **settings: Any) -> Any:
    section = {**TILES, "low": 0.2, "dust_vx": 3, **settings}
    given = affinities() if codes is None else codes
    return chain(block, codes=given, hidden=hidden, fragments={"method": "mutex_watershed"}, mutex_watershed=section)


def ran(chain: Callable[..., Any], *given: Any, **settings: Any) -> Any:
    """The chain after the passes of the mutex watershed."""
    made = built(chain, *given, **settings)
    made.stages = (made.stage(FragmentSource),)
    return made.run()


def whole(codes: np.ndarray, roi: Box, strides: tuple[int, int, int]) -> np.ndarray:
    """All voxels at once; dust removed."""
    above = codes[:3] > 51
    foreground = np.zeros(SHAPE, bool)
    for axis in range(3):
        edge = np.moveaxis(above[axis], axis, 0)[1:]
        view = np.moveaxis(foreground, axis, 0)
        view[1:] |= edge
        view[:-1] |= edge
    table = np.arange(256) * 257
    found, _ = mutex_watershed(
        codes, _offsets(), attractive=3, code_table=table, strides=strides, mask_ZYX=foreground, origin=roi.begin
    )
    labels, name, volume = named(found, roi.begin)
    labels[np.isin(labels, name[volume < 3])] = 0
    return labels


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("hidden", [(), HIDDEN])
def test_exact_is_the_whole_for_every_grid(chain: Callable[..., Any], hidden: Any, strides: Any) -> None:
    for block in (*BLOCKS[: 1 if hidden else 3], (9, 16, 12)):
        done = ran(chain, block, None, hidden, mode="exact", strides=strides)
        stage = done.stage(FragmentSource)
        expected = whole(done.predict.codes_CZYX, stage.site.layer.roi, strides)
        assert len(np.unique(expected)) > 10
        np.testing.assert_array_equal(done.fragments(), expected)


@pytest.mark.parametrize("hidden", [(), HIDDEN])
def test_blocks_only_group_tiles(chain: Callable[..., Any], hidden: Any) -> None:
    found = []
    for block in BLOCKS:
        done = ran(chain, block, None, hidden)
        counts = [sum(s.get(key, 0) for s in done.summaries.values()) for key in ("overlap_edges", "disagreed")]
        found.append((done.fragments(), counts))
    assert len(np.unique(found[0][0])) > 10
    assert 0 < found[0][1][1] < 0.2 * found[0][1][0]
    for labels, counts in found[1:]:
        np.testing.assert_array_equal(labels, found[0][0])
        assert counts == found[0][1]


def test_fragments_in_several_parts_give_one_segmentation_for_every_grid(chain: Callable[..., Any]) -> None:
    one, other = (built(chain, block).run() for block in ((24, 40, 40), (6, 20, 10)))
    assert len(np.unique(one.segmentation())) < len(np.unique(one.fragments()))
    np.testing.assert_array_equal(other.segmentation(), one.segmentation())


@pytest.mark.parametrize("mode", ["tiles", "exact"])
def test_until_and_faces(chain: Callable[..., Any], mode: str) -> None:
    done = ran(chain, (6, 20, 10), mode=mode)
    stage, labels = done.stage(FragmentSource), done.fragments()
    roi = stage.site.layer.roi
    for index in stage.grids[0]:
        names = stage.tables("down0", index, "names")["names"]
        for name, until in list(zip(names["fragment"].tolist(), names["until"].tolist(), strict=True))[:20]:
            if name:
                at = np.argwhere(labels == name)
                box = Box(tuple(at.min(0)), tuple(at.max(0) + 1)).shift(roi.begin).grow((1, 1, 1)).clip(roi)
                assert until == [any(_holds(g, i, box) for i in g.touching(box)) for g in stage.grids].index(True)
        for axis, side in enumerate(("high_z", "high_y", "high_x")):
            if index[axis] + 1 < stage.grids[0].shape[axis]:
                block = labels[stage.grids[0].block_box(index).slices(roi.begin)]
                np.testing.assert_array_equal(stage.read_high_face(index, side), np.take(block, -1, axis=axis))


def _holds(grid: Grid, index: Any, box: Box) -> bool:
    return grid.block_box(index).contains(box)


@pytest.mark.parametrize("mode", ["tiles", "exact"])
def test_a_block_reads_what_it_says(chain: Callable[..., Any], reads: Callable[..., Any], mode: str) -> None:
    made = built(chain, (6, 20, 20), None, HIDDEN, mode=mode)
    made.stages = (made.stage(FragmentSource),)

    def checked(stage: Any, sweep: str, index: Any) -> Any:
        inputs, touched = reads(made, stage, sweep, index)
        assert touched == set(stage.needs(sweep, index))
        return inputs

    made.run(checked)


def test_memory_bounds_rows(chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ROWS, "exact", 1e-4)
    with pytest.raises(InputError, match="rows to join"):
        ran(chain, (6, 20, 10), mode="exact")


def test_what_cannot_work_is_refused(chain: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="repulsive channels"):
        ran(chain, (24, 40, 40), affinities()[:3])
    given = {"input": {"synthetic": {}}, "fragments": {"method": "mutex_watershed"}}
    with pytest.raises(ConfigError, match="multiple of the tile"):
        parse({**given, "mutex_watershed": {"tile": [5, 5, 5]}}, where="here")
    parse({**given, "mutex_watershed": {"tile": [5, 5, 5], "mode": "exact"}}, where="here")


def test_what_decides_the_answer_is_in_the_identity(chain: Callable[..., Any]) -> None:
    def identity(block: Any = (24, 40, 40), **settings: Any) -> str:
        return str(built(chain, block, **settings).stage(FragmentSource).identity)

    assert identity() == identity((6, 20, 10))
    changes = ({"tile": [6, 10, 20]}, {"halo": [1, 4, 5]}, {"strides": [1, 2, 2]}, {"low": 0.3}, {"mode": "exact"})
    assert len({identity(), *(identity(**change) for change in changes)}) == 6
    assert identity(mode="exact") == identity(mode="exact", tile=[6, 10, 20], halo=[0, 0, 0])
