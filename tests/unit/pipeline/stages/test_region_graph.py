"""The region graph stage: every voxel edge of the volume is in one row of one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.ops.edges import Edges, combine
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.stages.region_graph import RegionGraph

SECTIONS = ("inner", "low_z", "low_y", "low_x")


def test_blocks_together_are_the_graph_of_the_volume(chain: Callable[..., Any]) -> None:
    done = chain((8, 16, 12), hidden=((0, 1, 0),)).run()
    stage = done.stage(RegionGraph)
    layer, labels = stage.site.layer, done.fragments()
    place = Place(layer.roi.begin, layer.shape)
    whole = contacts(labels, done.predict.codes_CZYX, {}, code_table=done.predict.code_table, place=place)
    parts, volumes = [], {}
    for index in stage.grids[0]:
        if not stage.masked("blocks", index):
            stored = stage.tables("blocks", index)
            parts += [Edges.of_columns(stored[section]) for section in SECTIONS]
            assert all(index[axis] or not len(stored[SECTIONS[axis + 1]]["a"]) for axis in range(3))
            for name, volume in zip(stored["nodes"]["name"].tolist(), stored["nodes"]["volume"].tolist(), strict=True):
                volumes[name] = volumes.get(name, 0) + volume
    together = combine(parts)
    for column, values in whole["inner"].columns().items():
        np.testing.assert_array_equal(together.columns()[column], values, err_msg=column)
    own = nodes(labels, 0)
    assert volumes == dict(zip(own.name.tolist(), own.volume.tolist(), strict=True))


def test_content_names_what_decides_sums_and_ties(chain: Callable[..., Any]) -> None:
    content = chain((8, 16, 12)).stage(RegionGraph).content()
    assert content["layer_shape"] == [26, 44, 45]
    assert len(content["code_table"]) == 256
