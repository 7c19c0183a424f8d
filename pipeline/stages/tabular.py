"""What the stages on fragments and their graph share: a block's work, and tables (sometimes labels) as its result.

The inputs of a block are a dataclass for each kind of pass: arrays and tables, and a `compute` that calls the op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.stages.stage import Stage, Written
from pipeline.tables import Table, digest_tables, read_tables, write_tables
from pipeline.volumes import ArraySpec, Volume, digest

FRAGMENTS_PER_VOXEL = 1 / 50  # assumed by estimates; measured: 1/240 to 1/85 (smooth), 1/4 (white noise)
EDGES_PER_FRAGMENT = 6  # measured: 2 to 2.6 (smooth), 5.3 (white noise)


@dataclass(frozen=True)
class Tables:
    """The result of a block: table sections, numbers for its receipt, and the labels of its voxels if it makes any."""

    sections: Mapping[str, Table]
    summary: Mapping[str, Any] = field(default_factory=dict)
    labels_ZYX: NDArray[np.uint64] | None = None


class Work(Protocol):
    """The inputs of a block."""

    def compute(self) -> Tables:
        """Call the op."""
        ...


class TabularStage(Stage[Work, Tables]):
    """A stage over the levels of the block grid that writes tables and, in some passes, labels."""

    labelled: ClassVar[frozenset[str]] = frozenset()  # the passes that write labels

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """The grid of blocks and its coarser levels."""
        return Grid(self.site.layer.roi, self.site.config.blocks.shape).levels

    @cached_property
    def labels(self) -> Volume:
        """The label volume, once prepared."""
        return Volume.open(self.folder / "labels")

    def prepare(self) -> None:
        """Create the label volume, if there is one."""
        if self.labelled:
            layer, blocks = self.site.layer, self.site.config.blocks
            spec = ArraySpec(
                shape=layer.roi.shape,
                dtype="uint64",
                block=blocks.shape,
                chunk=blocks.chunk,
                voxel_size=layer.voxel_size,
                offset=layer.roi.begin,
            )
            Volume.create(self.folder / "labels", spec)

    def compute(self, inputs: Work) -> Tables:
        """Call the op."""
        return inputs.compute()

    def write(self, sweep: str, index: Index, outputs: Tables) -> Written:
        """Labels first, then the tables."""
        parts = {}
        if outputs.labels_ZYX is not None:
            parts["labels"] = self.labels.write(self.box(sweep, index), outputs.labels_ZYX)
        parts["tables"] = write_tables(self.table_path(sweep, index), outputs.sections)
        return Written(parts, outputs.summary)

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digests of what is stored now."""
        parts = {}
        if sweep in self.labelled:
            parts["labels"] = digest(self.labels.read(self.box(sweep, index)))
        parts["tables"] = digest_tables(read_tables(self.table_path(sweep, index)))
        return parts

    def inodes(self) -> int:
        """Tables, and the shards and folders of the label volume."""
        z, y, _ = self.grids[0].shape
        shards = self.grids[0].count + z * (1 + y) + 5
        return super().inodes() + (shards if self.labelled else 0)

    def box(self, sweep: str, index: Index) -> Box:
        """The voxels of a block."""
        return self.sweep(sweep).grid.block_box(index)

    def tables(self, sweep: str, index: Index, *sections: str) -> dict[str, dict[str, NDArray[Any]]]:
        """Sections of a block's tables, all by default; writable copies, so that kernels see one kind of array."""
        stored = read_tables(self.table_path(sweep, index), sections or None)
        return {section: {name: column.copy() for name, column in table.items()} for section, table in stored.items()}


def surface(shape: Index) -> int:
    """Voxels on the six faces of a block."""
    z, y, x = shape
    return 2 * (z * y + y * x + z * x)


def faces_between(grid: Grid) -> int:
    """Voxels on the faces between the blocks of a grid, counted on both sides."""
    return sum(2 * (n - 1) * (grid.box.voxels // e) for n, e in zip(grid.shape, grid.box.shape, strict=True))


def faces_to_join(finer: Grid) -> int:
    """Voxels on the faces of the children of one block, of the next level, that another block of theirs lies behind."""
    parent = finer.coarser()
    box = parent.block_box((0, 0, 0))
    total = 0
    for along, blocks, inside in zip(box.shape, parent.shape, finer.block, strict=True):
        children = -(-along // inside)
        total += (2 * (children - 1) + min(2, blocks - 1)) * (box.voxels // along)
    return total
