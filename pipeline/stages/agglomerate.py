"""Agglomeration: the merge tree of the region graph, chunk by chunk and level by level (ops/agglomerate.py).

If fragments have classes, level 0 drops the edges between different ones, and every row says its class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutOfMemory
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.ops.agglomerate import Part, Sizes, agglomerate
from pipeline.ops.classes import Classes, separate, together
from pipeline.ops.edges import HISTOGRAMS, Edges
from pipeline.ops.scores import Score
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.classes import ClassVotes
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import (
    EDGES_PER_FRAGMENT,
    FRAGMENTS_PER_VOXEL,
    Tables,
    TabularStage,
    faces_between,
    faces_to_join,
)
from pipeline.tables import Table
from workers.block import BlockRef

EDGE_BYTES = 300  # an edge while chunks are gathered, combined and merged; measured: 150 to 205
HISTOGRAM_BYTES = 400  # its histogram, at eight bins
STORED_EDGE_BYTES = 40
EDGES_PER_SURFACE_VOXEL = 0.5  # what a small chunk hands up; measured: 0.28 with a fragment to 85 voxels
EDGES_UP_PER_VOXEL = 0.01  # what a large one does; measured: 0.001 (a fragment to 1,800 voxels) to 0.009 (one to 190)


@dataclass(frozen=True)
class _Chunk:
    """The graphs of a chunk's children; at level 0 the block's own, and its fragments' classes if there are any."""

    children: tuple[Part, ...]
    box: Box
    floor: float
    score: Score
    level: int
    classes: Classes | None = None

    def compute(self) -> Tables:
        children, apart = self.children, {}
        if self.classes is not None:
            parts, dropped = zip(*(_separated(part, self.classes) for part in children), strict=True)
            children, apart = parts, {"apart": sum(dropped)}
        found = agglomerate(children, self.box, floor=self.floor, score=self.score, level=self.level)
        part, tree = found.part, found.tree
        until = np.zeros(part.name.size, np.uint8) if part.until is None else part.until
        sizes = {"tie": found.sizes.tie, "voxels_a": found.sizes.voxels_a, "voxels_b": found.sizes.voxels_b}
        tables: dict[str, dict[str, NDArray[Any]]] = {
            "nodes": {"name": part.name, "mask": part.mask, "until": until, "volume": part.volume},
            "merges": {"a": tree.a, "b": tree.b, "score": tree.score, **sizes},
            "fragments": {"name": found.sizes.fragment, "voxels": found.sizes.voxels},
        }
        for section, kind in _kinds(part, found.sizes).items():
            tables[section]["kind"] = kind
        sections: dict[str, Table] = {**tables, **part.edges.sections("edges")}
        for side, crossing in zip(faces.LOW, part.low, strict=True):
            sections |= crossing.sections(side)
        left = {"nodes": part.name.size, "edges": part.edges.size, "crossing": sum(e.size for e in part.low)}
        counts = {"merges": tree.a.size, "closed": found.closed, "fragments": found.sizes.fragment.size}
        return Tables(sections, {**counts, **left, **apart})


def edges_to_join(finer: Grid) -> float:
    """Edges that meet in a chunk whose children are blocks of this grid, as estimates assume."""
    voxels = finer.coarser().block_box((0, 0, 0)).voxels
    return max(EDGES_PER_SURFACE_VOXEL * faces_to_join(finer), EDGES_UP_PER_VOXEL * voxels)


def _separated(part: Part, classes: Classes) -> tuple[Part, int]:
    """A block's graph without edges between classes, and how many voxel edges were dropped; the nodes get classes."""
    (edges, dropped), *low = (separate(edges, classes) for edges in (part.edges, *part.low))
    crossing = (low[0][0], low[1][0], low[2][0])
    found = replace(part, edges=edges, low=crossing, kind=classes.of(part.name))
    return found, dropped + sum(count for _, count in low)


def _kinds(part: Part, sizes: Sizes) -> dict[str, NDArray[Any]]:
    """The columns of classes, by section; none if fragments have no classes."""
    if part.kind is None or sizes.merged_kind is None or sizes.kind is None:
        return {}
    return {"nodes": part.kind, "merges": sizes.merged_kind, "fragments": sizes.kind}


class Agglomerate(TabularStage):
    """From the region graph to the merge tree."""

    name = "agglomerate"
    schema = 2

    @cached_property
    def graph(self) -> RegionGraph:
        """The stage that made the region graph."""
        return self.site.find(RegionGraph)

    @cached_property
    def votes(self) -> ClassVotes | None:
        """The stage that says what class a fragment has; None if the run has no classes."""
        votes = self.site.find(ClassVotes)
        return votes if votes.active else None

    @property
    def active(self) -> bool:
        """Whether fragments are agglomerated at all."""
        return self.site.config.agglomerate.score != "none"

    @property
    def exactness(self) -> str:
        """What the report says about it, as a clause."""
        return f"{self.site.config.agglomerate.score}-affinity agglomeration is exact over the hierarchy"

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The region graph, and the classes if there are any."""
        return (self.graph,) if self.votes is None else (self.graph, self.votes)

    def content(self) -> dict[str, Any]:
        """The score, and where the tree begins."""
        settings = self.site.config.agglomerate
        content = {"score": settings.score, "floor": settings.floor}
        return {**content, "quantile": settings.quantile} if settings.score == "quantile" else content

    def passes(self) -> tuple[Pass, ...]:
        """One a level, up."""
        return tuple(Pass(f"up{level}", grid) for level, grid in enumerate(self.grids))

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.graph.fragments.empty(_level(sweep), index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The block's region graph, and the classes in it and before it; or its children."""
        level = _level(sweep)
        if level == 0:
            refs = [BlockRef(self.graph.task("blocks"), index)]
            if self.votes is not None:
                refs += [ref for block in self._with_before(index) for ref in self.votes.class_refs(block)]
            return refs
        return [BlockRef(self.task(f"up{level - 1}"), child) for child in self.graph.fragments.children(level, index)]

    def read(self, sweep: str, index: Index) -> _Chunk:
        """The graphs of the children; at level 0 the block's own."""
        level, settings, classes = _level(sweep), self.site.config.agglomerate, None
        if level == 0:
            parts = [self._part(self.graph, "blocks", "inner", index)]
            if self.votes is not None:
                classes = together([self.votes.read_classes(block) for block in self._with_before(index)])
        else:
            self._refuse_beyond_limit(sweep, index)
            children = self.graph.fragments.children(level, index)
            parts = [self._part(self, f"up{level - 1}", "edges", child) for child in children]
        return _Chunk(tuple(parts), self.box(sweep, index), settings.floor * FULL_SCALE, self._score, level, classes)

    def _with_before(self, index: Index) -> list[Index]:
        """A block and those before it: all fragments that its edges touch are in one of them."""
        return [index, *(before for _, before in self.graph.before(index))]

    @property
    def guards(self) -> dict[str, Any]:
        """Which merges are refused at any threshold: arguments of `kept`, those that matter here."""
        guards, found = self.site.config.guards, {}
        if guards.largest_vx:
            found["largest_vx"] = guards.largest_vx
        return found if self.votes is None or not guards.conflicting_classes else {**found, "one_class": True}

    @property
    def _score(self) -> Score:
        settings = self.site.config.agglomerate
        if settings.score == "none":
            raise LookupError("this run has no agglomeration")
        return Score(settings.score, settings.quantile)

    def _refuse_beyond_limit(self, sweep: str, index: Index) -> None:
        """What the children hand up is known before it is read: it must fit into a worker."""
        summaries = [self.site.summary(ref) for ref in self.needs(sweep, index)]
        rows = sum(int(summary["edges"]) + int(summary["crossing"]) for summary in summaries)
        limit_gb = self.site.config.workers.cpu.memory_gb
        need_gb = rows * self._edge_bytes / 1e9
        if need_gb > limit_gb:
            raise OutOfMemory(
                f"{rows:,} undecided edges meet in one chunk: {need_gb:.1f} GB, a worker has {limit_gb} GB",
                where=f"{self.task(sweep)} {index}",
                way_out="raise workers.cpu.memory_gb, raise agglomerate.floor, or make blocks.shape larger: "
                "fewer fragments are then cut by faces",
            )

    @property
    def _edge_bytes(self) -> int:
        """Of an edge, with its histogram if the score is a quantile."""
        return EDGE_BYTES + (HISTOGRAM_BYTES if self.site.config.agglomerate.score == "quantile" else 0)

    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0; above, by the faces of the children."""
        level = _level(sweep)
        if level == 0:
            voxels = self.box(sweep, (0, 0, 0)).voxels
            return int(self._edge_bytes * EDGES_PER_FRAGMENT * FRAGMENTS_PER_VOXEL * voxels)
        return int(self._edge_bytes * edges_to_join(self.grids[level - 1]))

    def stored_bytes(self) -> int:
        """What every chunk hands up, and the merge tree."""
        voxels = self.site.layer.roi.voxels
        rows = sum(
            max(EDGES_PER_SURFACE_VOXEL * faces_between(g), EDGES_UP_PER_VOXEL * voxels) for g in self.grids[:-1]
        )
        return int(STORED_EDGE_BYTES * rows + 24 * FRAGMENTS_PER_VOXEL * voxels)

    def _part(self, stage: TabularStage, sweep: str, inner: str, index: Index) -> Part:
        settings = self.site.config.agglomerate
        wanted = (inner, *faces.LOW)
        also = [section + HISTOGRAMS for section in wanted] if settings.score == "quantile" else []
        stored = stage.tables(sweep, index, "nodes", *wanted, *also)
        nodes = stored["nodes"]
        edges = [Edges.of_columns(stored[section], stored.get(section + HISTOGRAMS)) for section in wanted]
        low = (edges[1], edges[2], edges[3])
        later = (nodes.get("until"), nodes["volume"], nodes.get("kind"))
        return Part(stage.box(sweep, index), nodes["name"], nodes["mask"], edges[0], low, *later)


def _level(sweep: str) -> int:
    return int(sweep.removeprefix("up"))
