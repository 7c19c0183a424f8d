"""Relabel: from fragments and the merge tree to the segmentation at one threshold (ops/merge_tree.py).

`downL` .. `down1` carry the segments' names down the levels of the agglomeration: each chunk reads the merges that
agglomeration decided in it, and its parent's renames. `blocks` does the same for a block of level 0 and writes its
labels, and a table, fragment -> segment. Nothing holds the whole merge tree. Without agglomeration there is no tree:
fragments are segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index, parent_index
from pipeline.ops.merge_tree import Merges, Renames, cut, kept, unchanged
from pipeline.ops.objects import Objects, largest, list_objects
from pipeline.ops.relabel import rename
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.stages.agglomerate import EDGES_UP_PER_VOXEL, Agglomerate, edges_to_join
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, TabularStage, Work
from pipeline.tables import Table
from pipeline.volumes import Volume
from workers.block import BlockRef

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)
BLOCKS, OBJECTS = "blocks", "objects"

NAME_BYTES = 200  # a merge and its names while they are united and composed; measured: 120
VOXEL_BYTES = 32  # pieces, segments, their shard being encoded, a sorted copy of distinct names


@dataclass(frozen=True)
class _Merges:
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
        found, objects = self.renames()
        sections: dict[str, Table] = {"final": {"old": found.old, "new": found.new}, OBJECTS: objects.columns()}
        return Tables(sections, self.counts(found))


@dataclass(frozen=True)
class _Labels:
    """A block's pieces, their fragments, and its merges if there is a tree."""

    pieces_ZYX: U64
    names: tuple[U64, U64]
    merges: _Merges | None

    def compute(self) -> Tables:
        piece, fragment = self.names
        found = unchanged()
        merged, sections = {"merged": 0}, dict[str, Table]()
        if self.merges is not None:
            found, objects = self.merges.renames()
            merged, sections = self.merges.counts(found), {OBJECTS: objects.columns()}
        labels_ZYX = rename(self.pieces_ZYX, piece, rename(fragment, found.old, found.new))
        fragments = np.unique(fragment[fragment != 0])
        segments = rename(fragments, found.old, found.new)
        counts = {"segments": np.unique(segments).size, "voxels": int(np.count_nonzero(labels_ZYX))}
        sections["segments"] = {"fragment": fragments, "segment": segments}
        return Tables(sections, {**merged, **counts}, labels_ZYX)


class Relabel(TabularStage):
    """From fragments and merges to segments."""

    name = "relabel"
    schema = 2
    labelled = frozenset({BLOCKS})

    @cached_property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.site.find(FragmentSource)

    @cached_property
    def tree(self) -> Agglomerate | None:
        """The stage that made the merge tree; None if the run makes none."""
        agglomerate = self.site.find(Agglomerate)
        return agglomerate if agglomerate.active else None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments, and agglomerate if there is a tree."""
        return (self.fragments,) if self.tree is None else (self.fragments, self.tree)

    def content(self) -> dict[str, Any]:
        """The threshold and the guards, if there is something to cut."""
        return {} if self.tree is None else {"threshold": self.site.config.relabel.threshold, **self.tree.guards}

    def passes(self) -> tuple[Pass, ...]:
        """Down the levels, the last of which writes the labels."""
        top = 0 if self.tree is None else len(self.grids) - 1
        down = [Pass(f"down{level}", self.grids[level]) for level in range(top, 0, -1)]
        return (*down, Pass(BLOCKS, self.grids[0]))

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments' blocks."""
        return self.fragments.empty(_level(sweep), index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The chunk's own merges and its parent's renames; for a block of level 0 its fragments as well."""
        needs = self.fragments.label_refs(index) if sweep == BLOCKS else []
        if self.tree is not None:
            needs.append(BlockRef(self.tree.task(f"up{_level(sweep)}"), index))
            if _level(sweep) + 1 < len(self.grids):
                needs.append(BlockRef(self.task(_above(sweep)), parent_index(index)))
        return needs

    def read(self, sweep: str, index: Index) -> Work:
        """A chunk's merges; for a block its pieces as well."""
        merges = None if self.tree is None else self._merges(self.tree, sweep, index)
        if merges is not None and sweep != BLOCKS:
            return merges
        return _Labels(self.fragments.read_pieces(self.box(sweep, index)), self.fragments.fragment_names(index), merges)

    def _merges(self, tree: Agglomerate, sweep: str, index: Index) -> _Merges:
        stored = tree.tables(f"up{_level(sweep)}", index, "merges", "nodes", "fragments")
        threshold, parent = self.site.config.relabel.threshold * FULL_SCALE, unchanged()
        above = kept(Merges(**stored["merges"]), threshold=threshold)
        own = kept(above, threshold=threshold, **tree.guards)
        refused = above.conflicting.sum() if "one_class" in tree.guards else 0
        conflicting = None if above.kind is None else int(refused)
        if _level(sweep) + 1 < len(self.grids):
            final = self.tables(_above(sweep), parent_index(index), "final")["final"]
            parent = Renames(final["old"], final["new"], 0)
        fragments, handed_up = stored["fragments"], stored["nodes"]["name"]
        complete = (fragments["name"], fragments["voxels"], fragments.get("kind"))
        return _Merges(own, handed_up, *complete, parent, conflicting)

    # ---- what others read --------------------------------------------------------------------------------------
    @property
    def segmentation(self) -> Volume:
        """The stored labels; masked blocks have none."""
        return self.labels

    def read_segmentation(self, box: Box) -> U64:
        """Labels of a box inside the region of interest; 0 in masked blocks."""
        labels_ZYX = np.zeros(box.shape, np.uint64)
        for index in self.grids[0].touching(box):
            if not self.masked(BLOCKS, index):
                piece = self.grids[0].block_box(index).clip(box)
                labels_ZYX[piece.slices(box.begin)] = self.labels.read(piece)
        return labels_ZYX

    def largest_objects(self) -> Objects:
        """The largest of all objects, from the lists of all chunks; a run with a merge tree only."""
        return largest(
            Objects(**self.tables(task.name, index, OBJECTS)[OBJECTS])
            for task in self.passes()
            for index in task.grid
            if not self.masked(task.name, index)
        )

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By the faces of the children, whose clusters meet in a chunk; at level 0 by voxels, and the parent's."""
        if sweep != BLOCKS:
            return _joined_bytes(self.grids[_level(sweep) - 1])
        parents = _joined_bytes(self.grids[0]) if len(self.grids) > 1 else 0
        return int((VOXEL_BYTES + NAME_BYTES * FRAGMENTS_PER_VOXEL) * self.box(sweep, ONLY).voxels) + parents

    def stored_bytes(self) -> int:
        """Labels, and the table of every chunk."""
        names = EDGES_UP_PER_VOXEL * self.site.layer.roi.voxels * len(self.grids)
        return int((8 + 16 * FRAGMENTS_PER_VOXEL) * self.site.layer.roi.voxels + 16 * names)


def _level(sweep: str) -> int:
    return 0 if sweep == BLOCKS else int(sweep.removeprefix("down"))


def _above(sweep: str) -> str:
    return f"down{_level(sweep) + 1}"


def _joined_bytes(finer: Grid) -> int:
    """Names that meet in a chunk whose children are blocks of this grid."""
    return int(NAME_BYTES * edges_to_join(finer))
