"""Cut: what every fragment is called once the merge tree is cut, chunk by chunk, down the levels (ops/merge_tree.py).

Each chunk reads the merges that agglomeration decided in it, and its parent's renames. Relabel does this on its way to
the labels. Only where something comes between the names and the labels (self_touch) is it a stage of its own, whose
last pass, `down0`, lists the names in every block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Grid, Index, parent_index
from pipeline.ops.merge_tree import Merges, Renames, cut, kept, unchanged
from pipeline.ops.objects import Objects, largest, list_objects
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.agglomerate import EDGES_UP_PER_VOXEL, Agglomerate, edges_to_join
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, TabularStage, Work
from pipeline.tables import Table
from workers.block import BlockRef

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)
OBJECTS, LOWEST = "objects", "down0"

NAME_BYTES = 200  # a merge and its names while they are united and composed; measured: 120


@dataclass(frozen=True)
class ChunkMerges:
    """The merges that a chunk kept, the clusters it handed up, its complete fragments, and its parent's renames."""

    own: Merges
    handed_up: U64
    fragment: U64
    voxels: NDArray[np.int64]
    kind: NDArray[np.uint16] | None
    parent: Renames
    conflicting: int | None  # merges that were refused for their classes

    def renames(self) -> tuple[Renames, Objects]:
        """What the chunk's names become, and its largest objects."""
        found = cut(self.own, handed_up=self.handed_up, parent=self.parent)
        return found, list_objects(self.own, self.fragment, self.voxels, found, self.kind)

    def counts(self, found: Renames) -> dict[str, int]:
        """How many merges there are, and how many were refused for their classes if there are any."""
        counts = {"merged": found.kept}
        return counts if self.conflicting is None else {**counts, "conflicting": self.conflicting}

    def compute(self) -> Tables:
        """The names as a table."""
        found, objects = self.renames()
        sections: dict[str, Table] = {"final": {"old": found.old, "new": found.new}, OBJECTS: objects.columns()}
        return Tables(sections, self.counts(found))


class TreeCut(TabularStage):
    """A stage whose passes go down the merge tree: `downL` and so on; it says which is the last."""

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @cached_property
    def tree(self) -> Agglomerate | None:
        """The stage that made the merge tree; None if the run makes none."""
        agglomerate = self.site.find(Agglomerate)
        return agglomerate if agglomerate.active else None

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.fragments.empty(level_of(sweep), index)

    def tree_content(self) -> dict[str, Any]:
        """The threshold and the guards, if there is something to cut."""
        return {} if self.tree is None else {"threshold": self.site.config.relabel.threshold, **self.tree.guards}

    def down(self, lowest: int) -> tuple[Pass, ...]:
        """The passes from the top to a level."""
        top = len(self.grids) - 1
        return tuple(Pass(f"down{level}", self.grids[level]) for level in range(top, lowest - 1, -1))

    def merge_refs(self, tree: Agglomerate, sweep: str, index: Index) -> list[BlockRef]:
        """The chunk's own merges and its parent's renames."""
        needs = [BlockRef(tree.task(f"up{level_of(sweep)}"), index)]
        if level_of(sweep) + 1 < len(self.grids):
            needs.append(BlockRef(self.task(_above(sweep)), parent_index(index)))
        return needs

    def read_merges(self, tree: Agglomerate, sweep: str, index: Index) -> ChunkMerges:
        """What decides the names in a chunk."""
        stored = tree.tables(f"up{level_of(sweep)}", index, "merges", "nodes", "fragments")
        threshold, parent = self.site.config.relabel.threshold * FULL_SCALE, unchanged()
        above = kept(Merges(**stored["merges"]), threshold=threshold)
        own = kept(above, threshold=threshold, **tree.guards)
        refused = above.conflicting.sum() if "one_class" in tree.guards else 0
        conflicting = None if above.kind is None else int(refused)
        if level_of(sweep) + 1 < len(self.grids):
            final = self.tables(_above(sweep), parent_index(index), "final")["final"]
            parent = Renames(final["old"], final["new"], 0)
        fragments, handed_up = stored["fragments"], stored["nodes"]["name"]
        complete = (fragments["name"], fragments["voxels"], fragments.get("kind"))
        return ChunkMerges(own, handed_up, *complete, parent, conflicting)

    def largest_objects(self) -> Objects:
        """The largest of all objects, from the lists of all chunks; a run with a merge tree only."""
        return largest(
            Objects(**self.tables(task.name, index, OBJECTS)[OBJECTS])
            for task in self.passes()
            for index in task.grid
            if not self.masked(task.name, index)
        )

    def names_bytes(self, sweep: str) -> int:
        """By the faces of the children, whose clusters meet in a chunk; at level 0 by fragments, and the parent's."""
        if level_of(sweep):
            return _joined_bytes(self.grids[level_of(sweep) - 1])
        parents = _joined_bytes(self.grids[0]) if self.tree is not None and len(self.grids) > 1 else 0
        return int(NAME_BYTES * FRAGMENTS_PER_VOXEL * self.box(sweep, ONLY).voxels) + parents

    def stored_names_bytes(self) -> int:
        """The table of every chunk."""
        voxels = self.site.layer.roi.voxels
        return int(16 * FRAGMENTS_PER_VOXEL * voxels + 16 * EDGES_UP_PER_VOXEL * voxels * len(self.grids))


class Cut(TreeCut):
    """From the merge tree to the names of segments."""

    name = "cut"

    @property
    def active(self) -> bool:
        """If self-touches are corrected, and there is a tree."""
        return self.site.config.self_touch.enabled and self.tree is not None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments, and agglomerate."""
        return (self.fragments,) if self.tree is None else (self.fragments, self.tree)

    def content(self) -> dict[str, Any]:
        """The threshold and the guards."""
        return self.tree_content()

    def passes(self) -> tuple[Pass, ...]:
        """Down the levels."""
        return self.down(0) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The chunk's own merges and its parent's renames."""
        return [] if self.tree is None else self.merge_refs(self.tree, sweep, index)

    def read(self, sweep: str, index: Index) -> Work:
        """A chunk's merges."""
        if self.tree is None:
            raise LookupError("this run has no merge tree")
        return self.read_merges(self.tree, sweep, index)

    # ---- what others read --------------------------------------------------------------------------------------
    def name_refs(self, index: Index) -> list[BlockRef]:
        """The block behind the names in a block of level 0; none if it is empty, or there is no tree."""
        return [] if not self.active or self.masked(LOWEST, index) else [BlockRef(self.task(LOWEST), index)]

    def names(self, index: Index) -> tuple[U64, U64]:
        """What the fragments in a block of level 0 become: old (ascending), new."""
        if not self.name_refs(index):
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        final = self.tables(LOWEST, index, "final")["final"]
        return final["old"], final["new"]

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """Names."""
        return self.names_bytes(sweep)

    def stored_bytes(self) -> int:
        """Names."""
        return self.stored_names_bytes() if self.active else 0


def level_of(sweep: str) -> int:
    """The level of a pass down; passes of another name belong to blocks."""
    return int(sweep.removeprefix("down")) if sweep.startswith("down") else 0


def _above(sweep: str) -> str:
    return f"down{level_of(sweep) + 1}"


def _joined_bytes(finer: Grid) -> int:
    """Names that meet in a chunk whose children are blocks of this grid."""
    return int(NAME_BYTES * edges_to_join(finer))
