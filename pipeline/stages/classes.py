"""Classes: which fragments are vessel, soma, glia, ..., by vote of a class mask (ops/classes.py). No mask, no passes.

`up0` counts every block's votes; `up1` .. `upL` add them up and decide the classes of fragments that are complete.
`down(L-1)` .. `down0` carry the classes back: the last of these tables lists those of a block's own fragments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index, parent_index
from pipeline.ops.classes import PARTS, Classes, Part, Tallied, count, descend, no_classes, tally
from pipeline.ops.evaluate import Pairs
from pipeline.ops.region_graph import lasting, nodes
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.masks import ClassMask, class_content, class_mask
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, TabularStage, Work, surface
from pipeline.tables import Table
from workers.block import BlockRef

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)

VOXEL_BYTES = 48  # pieces, fragments, classes, a mask of 64 bits; measured: 28
ROW_BYTES = 400  # a fragment's row and its votes while they are stacked and sorted; measured: 120 a vote
ROWS_PER_SURFACE_VOXEL = 0.5  # fragments that are handed up, and their votes


@dataclass(frozen=True)
class _Count:
    """A block's fragments and what class every voxel has."""

    labels_ZYX: U64
    classes_ZYX: NDArray[np.uint8]
    box: Box
    internal: int
    names: dict[str, NDArray[Any]]  # of pieces and fragments
    share: int

    def compute(self) -> Tables:
        own = nodes(self.labels_ZYX, self.internal)
        until = np.zeros(own.name.size, np.uint8)
        if "until" in self.names:
            until = lasting(own.name, self.names["fragment"], self.names["until"])
        part = Part(self.box, own.name, own.mask, until, count(self.labels_ZYX, self.classes_ZYX))
        return _sections(tally([part], self.box, share=self.share, level=0))


@dataclass(frozen=True)
class _Tally:
    """What the children of a chunk hand up."""

    children: tuple[Part, ...]
    box: Box
    share: int
    level: int

    def compute(self) -> Tables:
        return _sections(tally(self.children, self.box, share=self.share, level=self.level))


@dataclass(frozen=True)
class _Descend:
    """What a chunk decided itself and what it handed up, and what its parent knows."""

    own: Classes
    handed_up: U64
    parent: Classes

    def compute(self) -> Tables:
        return Tables({"classes": _table(descend(self.own, self.handed_up, self.parent))})


class ClassVotes(TabularStage):
    """From fragments and a class mask to the class of every fragment."""

    name = "classes"

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @property
    def active(self) -> bool:
        """Whether the config has a class mask."""
        return any(mask.role == "class" for mask in self.site.config.mask)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments; the mask is the user's."""
        return (self.fragments,)

    def content(self) -> dict[str, Any]:
        """The mask, and what share of a fragment must agree."""
        return {"mask": class_content(self.site), "share": self._share}

    def passes(self) -> tuple[Pass, ...]:
        """Up, down."""
        up = [Pass(f"up{level}", grid) for level, grid in enumerate(self.grids)]
        down = [Pass(f"down{level}", self.grids[level]) for level in reversed(range(self._top))]
        return (*up, *down)

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.fragments.empty(_level(sweep), index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """A block's fragments, the children's tables, or the chunk's own and its parent's."""
        level = _level(sweep)
        if sweep == "up0":
            return self.fragments.label_refs(index)
        if sweep.startswith("up"):
            return [BlockRef(self.task(f"up{level - 1}"), child) for child in self.fragments.children(level, index)]
        return [BlockRef(self.task(f"up{level}"), index), BlockRef(self.task(self._above(level)), parent_index(index))]

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Refuse a mask that does not fit before any block is read."""
        _ = self._mask

    def read(self, sweep: str, index: Index) -> Work:
        """Fetch what a block needs."""
        level, box = _level(sweep), self.box(sweep, index)
        if sweep == "up0":
            names = self.fragments.tables(self.fragments.name_pass, index, "names")["names"]
            labels_ZYX, internal = self.fragments.read_labels(box), self.grids[0].internal_faces(index)
            return _Count(labels_ZYX, self._mask.read(box), box, internal, names, self._share)
        if sweep.startswith("up"):
            children = tuple(self._part(level - 1, child) for child in self.fragments.children(level, index))
            return _Tally(children, box, self._share, level)
        own = self.tables(f"up{level}", index, "nodes", "classes")
        above = self.tables(self._above(level), parent_index(index), "classes")["classes"]
        return _Descend(Classes(**own["classes"]), own["nodes"]["name"], Classes(**above))

    def _part(self, level: int, index: Index) -> Part:
        """What a chunk of a level hands to its parent."""
        stored = self.tables(f"up{level}", index, "nodes", "votes")
        votes = stored["votes"]
        counted = Pairs(votes["kind"].astype(np.uint64), votes["fragment"], votes["voxels"])
        return Part(self.grids[level].block_box(index), **stored["nodes"], votes=counted)

    # ---- what others read --------------------------------------------------------------------------------------
    def class_refs(self, index: Index) -> list[BlockRef]:
        """The block behind the classes of one level-0 block; none if it is empty."""
        return [] if self.fragments.empty(0, index) else [BlockRef(self.task(self._last), index)]

    def read_classes(self, index: Index) -> Classes:
        """The classes of the fragments in a level-0 block."""
        if self.fragments.empty(0, index):
            return no_classes()
        return Classes(**self.tables(self._last, index, "classes")["classes"])

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0, by the surface of the children above."""
        box = self.box(sweep, ONLY)
        if sweep == "up0":
            return int((VOXEL_BYTES + ROW_BYTES * FRAGMENTS_PER_VOXEL) * box.voxels)
        own = ROW_BYTES * FRAGMENTS_PER_VOXEL * box.voxels if sweep == "down0" else 0
        parents = 2 if sweep.startswith("up") else 8  # eight children have at most twice their parent's surface
        return int(own + ROW_BYTES * ROWS_PER_SURFACE_VOXEL * parents * surface(box.shape)) + (1 << 20)

    def stored_bytes(self) -> int:
        """The classes twice; the rows and votes of every level's surface."""
        surfaces = sum(grid.count * surface(grid.block_box(ONLY).shape) for grid in self.grids)
        return int(20 * FRAGMENTS_PER_VOXEL * self.site.layer.roi.voxels + 28 * ROWS_PER_SURFACE_VOXEL * surfaces)

    # ---- derived -----------------------------------------------------------------------------------------------
    @cached_property
    def _mask(self) -> ClassMask:
        mask = class_mask(self.site)
        if mask is None:
            raise LookupError("this run has no class mask")
        return mask

    @property
    def _share(self) -> int:
        """In thousandths."""
        return next(round(mask.share * PARTS) for mask in self.site.config.mask if mask.role == "class")

    @property
    def _top(self) -> int:
        return len(self.grids) - 1

    @property
    def _last(self) -> str:
        """The pass that lists the classes of a block's own fragments."""
        return "down0" if self._top else "up0"

    def _above(self, level: int) -> str:
        """The pass that lists the classes of the fragments in the parents of a level's blocks."""
        return f"up{self._top}" if level + 1 == self._top else f"down{level + 1}"


def _level(sweep: str) -> int:
    return int(sweep.removeprefix("up").removeprefix("down"))


def _table(classes: Classes) -> Table:
    return {"name": classes.name, "kind": classes.kind}


def _sections(found: Tallied) -> Tables:
    part, votes = found.part, found.part.votes
    numbers, fragments = np.unique(found.decided.kind, return_counts=True)
    counts = {str(kind): n for kind, n in zip(numbers.tolist(), fragments.tolist(), strict=True)}
    sections: dict[str, Table] = {
        "nodes": {"name": part.name, "mask": part.mask, "until": part.until},
        "votes": {"kind": votes.truth.astype(np.uint8), "fragment": votes.segment, "voxels": votes.voxels},
        "classes": _table(found.decided),
    }
    return Tables(sections, {"nodes": part.name.size, "classes": counts})
