"""Region graph: pairs of touching fragments and their affinity sums, block by block (ops/region_graph.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CannotWork
from pipeline.geometry import Index
from pipeline.ops import faces
from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.region_graph import Place, contacts, lasting, nodes
from pipeline.stages.code_source import CodeSource
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import EDGES_PER_FRAGMENT, FRAGMENTS_PER_VOXEL, Tables, TabularStage, faces_between
from pipeline.tables import Table
from workers.block import BlockRef

VOXEL_BYTES = 36  # codes, labels, renamed and padded labels
ROW_BYTES = 220  # a row while it is collected, in a table that may be half empty, and sorted; measured: 140
STORED_ROW_BYTES = 41


@dataclass(frozen=True)
class _Block:
    """A block's fragments and codes, and the fragments across its low faces."""

    labels_ZYX: NDArray[np.uint64]
    codes_CZYX: NDArray[Any]
    before: Mapping[str, faces.Slab]
    code_table: NDArray[np.integer]
    place: Place
    internal: int
    histograms: bool
    names: Mapping[str, NDArray[Any]]  # of pieces and fragments

    def compute(self) -> Tables:
        own = nodes(self.labels_ZYX, self.internal)
        found = contacts(
            self.labels_ZYX,
            self.codes_CZYX,
            self.before,
            code_table=self.code_table,
            place=self.place,
            histograms=self.histograms,
        )
        columns: dict[str, NDArray[Any]] = {"name": own.name, "volume": own.volume, "mask": own.mask}
        if "until" in self.names:
            columns["until"] = lasting(own.name, self.names["fragment"], self.names["until"])
        sections: dict[str, Table] = {"nodes": columns}
        for section, part in found.items():
            sections |= part.sections(section)
        inner = found["inner"].size
        crossing = sum(part.size for part in found.values()) - inner
        return Tables(sections, {"nodes": own.name.size, "edges": inner + crossing, "crossing": crossing})


class RegionGraph(TabularStage):
    """From fragments and codes to edges between fragments."""

    name = "region_graph"
    schema = 2

    @property
    def active(self) -> bool:
        """Whether anything is agglomerated."""
        return self.site.config.agglomerate.score != "none"

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @property
    def codes(self) -> CodeSource[Any, Any]:
        """The stage that made the codes."""
        return self.fragments.codes

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments and codes."""
        return (self.fragments, self.codes)

    def content(self) -> dict[str, Any]:
        """What codes mean, and the layer's extent, which numbers voxels in ties."""
        return {
            "code_table": [int(value) for value in self.codes.code_table],
            "layer_shape": list(self.site.layer.shape),
            "histograms": self.histograms,
        }

    @property
    def histograms(self) -> bool:
        """Whether every pair's histogram is kept: on request, or because the score needs it."""
        config = self.site.config
        return config.region_graph.histograms or config.agglomerate.score == "quantile"

    def passes(self) -> tuple[Pass, ...]:
        """One."""
        return (Pass("blocks", self.grids[0]),)

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.fragments.empty(0, index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Own fragments and codes, and the names on the high faces of the blocks before."""
        refs = self.fragments.label_refs(index)
        for _, before in self.before(index):
            refs += self.fragments.label_refs(before)
        return [*refs, *self.codes.code_refs(self.box(sweep, index))]

    def prepare(self) -> None:
        """Refuse a layer whose voxels do not fit into ties."""
        voxels = self.site.layer.box.voxels
        if voxels > 1 << CHANNEL_SHIFT:
            raise CannotWork(
                f"the layer has {voxels:,} voxels; the tie-breaker of edges counts up to {1 << CHANNEL_SHIFT:,}",
                way_out="segment the volume in parts, each a layer of its own",
            )

    def read(self, sweep: str, index: Index) -> _Block:
        """Fragments, codes and the slabs before."""
        box = self.box(sweep, index)
        before = {}
        for axis, neighbour in self.before(index):
            if not self.fragments.empty(0, neighbour):
                before[faces.LOW[axis]] = self.fragments.read_high_face(neighbour, faces.HIGH[axis])
        return _Block(
            self.fragments.read_labels(box),
            self.codes.read_codes(box),
            before,
            self.codes.code_table,
            Place(box.begin, self.site.layer.shape),
            self.grids[0].internal_faces(index),
            self.histograms,
            self.fragments.tables(self.fragments.name_pass, index, "names")["names"],
        )

    def memory_bytes(self, sweep: str) -> int:
        """Voxels, and rows at the density that estimates assume."""
        voxels = self.box(sweep, (0, 0, 0)).voxels
        return int(voxels * (VOXEL_BYTES + ROW_BYTES * FRAGMENTS_PER_VOXEL * EDGES_PER_FRAGMENT))

    def stored_bytes(self) -> int:
        """Edges and nodes; those cut by block faces count twice."""
        rows = FRAGMENTS_PER_VOXEL * EDGES_PER_FRAGMENT * self.site.layer.roi.voxels
        cut = faces_between(self.grids[0]) // 2
        return int(STORED_ROW_BYTES * (rows + cut))

    def before(self, index: Index) -> Iterable[tuple[int, Index]]:
        """The axes along which there is a block before this one, and that block."""
        for axis in range(3):
            if index[axis]:
                z, y, x = (i - (a == axis) for a, i in enumerate(index))
                yield axis, (z, y, x)
