"""Agglomeration: the merge tree of the region graph, chunk by chunk and level by level (ops/agglomerate.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.agglomerate import Part, agglomerate
from pipeline.ops.edges import Edges
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import EDGES_PER_FRAGMENT, FRAGMENTS_PER_VOXEL, Tables, TabularStage, surface
from pipeline.tables import Table
from workers.block import BlockRef

EDGE_BYTES = 300  # an edge while chunks are gathered, combined and merged; measured: 150 to 200
STORED_EDGE_BYTES = 40
EDGES_PER_SURFACE_VOXEL = 0.5  # what a chunk hands up; measured: 0.28 with a fragment to 85 voxels


@dataclass(frozen=True)
class _Chunk:
    """The graphs of a chunk's children."""

    children: tuple[Part, ...]
    box: Box
    floor: float

    def compute(self) -> Tables:
        found = agglomerate(self.children, self.box, floor=self.floor)
        part, tree = found.part, found.tree
        low = {side: edges.columns() for side, edges in zip(faces.LOW, part.low, strict=True)}
        sections: dict[str, Table] = {
            "nodes": {"name": part.name, "mask": part.mask},
            "edges": part.edges.columns(),
            **low,
            "merges": {"a": tree.a, "b": tree.b, "score": tree.score},
        }
        left = {"nodes": part.name.size, "edges": part.edges.size}
        return Tables(sections, {"merges": tree.a.size, "closed": found.closed, **left})


class Agglomerate(TabularStage):
    """From the region graph to the merge tree."""

    name = "agglomerate"

    @cached_property
    def graph(self) -> RegionGraph:
        """The stage that made the region graph."""
        return self.site.find(RegionGraph)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The region graph."""
        return (self.graph,)

    def content(self) -> dict[str, Any]:
        """The score, and where the tree begins."""
        settings = self.site.config.agglomerate
        return {"score": settings.score, "floor": settings.floor}

    def passes(self) -> tuple[Pass, ...]:
        """One a level, up."""
        return tuple(Pass(f"up{level}", grid) for level, grid in enumerate(self.grids))

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.graph.fragments.empty(_level(sweep), index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The block's region graph, or its children."""
        level = _level(sweep)
        if level == 0:
            return [BlockRef(self.graph.task("blocks"), index)]
        return [BlockRef(self.task(f"up{level - 1}"), child) for child in self.graph.fragments.children(level, index)]

    def read(self, sweep: str, index: Index) -> _Chunk:
        """The graphs of the children; at level 0 the block's own."""
        level = _level(sweep)
        if level == 0:
            parts = [self._part(self.graph, "blocks", "inner", index)]
        else:
            children = self.graph.fragments.children(level, index)
            parts = [self._part(self, f"up{level - 1}", "edges", child) for child in children]
        return _Chunk(tuple(parts), self.box(sweep, index), self.site.config.agglomerate.floor * FULL_SCALE)

    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0; above, by the surface of the children."""
        box = self.box(sweep, (0, 0, 0))
        if _level(sweep) == 0:
            return int(EDGE_BYTES * EDGES_PER_FRAGMENT * FRAGMENTS_PER_VOXEL * box.voxels)
        return int(EDGE_BYTES * EDGES_PER_SURFACE_VOXEL * 2 * surface(box.shape))

    def stored_bytes(self) -> int:
        """What every chunk hands up, and the merge tree."""
        rows = EDGES_PER_SURFACE_VOXEL * sum(g.count * surface(g.block_box((0, 0, 0)).shape) for g in self.grids)
        return int(STORED_EDGE_BYTES * rows + 24 * FRAGMENTS_PER_VOXEL * self.site.layer.roi.voxels)

    def _part(self, stage: TabularStage, sweep: str, inner: str, index: Index) -> Part:
        stored = stage.tables(sweep, index, "nodes", inner, *faces.LOW)
        low_z, low_y, low_x = (Edges.of_columns(stored[side]) for side in faces.LOW)
        nodes = stored["nodes"]
        box = stage.box(sweep, index)
        return Part(box, nodes["name"], nodes["mask"], Edges.of_columns(stored[inner]), (low_z, low_y, low_x))


def _level(sweep: str) -> int:
    return int(sweep.removeprefix("up"))
