"""The contacts stage: the same rows on every grid, equal to those of the whole volume in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.ops.contacts import contacts
from pipeline.ops.region_graph import Place
from pipeline.stages.contacts import Contacts
from pipeline.stages.region_graph import RegionGraph

ON = {"enabled": True}


def rows_of(columns: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return sorted(zip(*(column.tolist() for column in columns.values()), strict=True))


@pytest.mark.parametrize("block", [(24, 40, 40), (8, 16, 12), (5, 7, 40)])
def test_every_grid_stores_the_contacts_of_the_volume(chain: Callable[..., Any], block: tuple[int, int, int]) -> None:
    done = chain(block, hidden=((0, 1, 0),), contacts=ON).run()
    stage = done.stage(Contacts)
    layer = stage.site.layer
    whole = contacts(
        done.fragments(),
        done.predict.codes_CZYX,
        {},
        code_table=done.predict.code_table,
        place=Place(layer.roi.begin, layer.shape),
        internal=0,
    )
    found, adjacency = stage.read_all()
    assert found.size > 100
    assert rows_of(found.columns()) == rows_of(whole.closed.columns())
    assert rows_of(adjacency.columns()) == rows_of(whole.adjacency.columns())


def test_contacts_of_all_pairs_add_up_to_the_region_graph(chain: Callable[..., Any]) -> None:
    done = chain((8, 16, 12), contacts=ON).run()
    found, _ = done.stage(Contacts).read_all()
    graph = done.stage(RegionGraph)
    stored = [graph.tables("blocks", index) for index in graph.grids[0]]
    for column, total in (("count", found.sums[:, :3].sum()), ("sum", found.sums[:, 3].sum())):
        sections = ("inner", "low_z", "low_y", "low_x")
        assert sum(int(table[s][column].sum()) for table in stored for s in sections) == total


def test_a_block_needs_what_it_reads(chain: Callable[..., Any], reads: Callable[..., Any]) -> None:
    done = chain((8, 16, 12), hidden=((0, 1, 0),), contacts=ON)
    done.run()
    stage = done.stage(Contacts)
    for sweep in stage.passes():
        for index in sweep.grid:
            if not stage.masked(sweep.name, index):
                _, refs = reads(done, stage, sweep.name, index)
                assert refs <= set(stage.needs(sweep.name, index))


def test_off_unless_asked_for(chain: Callable[..., Any]) -> None:
    assert not [stage for stage in chain((8, 16, 12)).stages if isinstance(stage, Contacts)]
