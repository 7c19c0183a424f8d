"""Relabel: from fragments and the merge tree to the segmentation at one threshold (stages/cut.py).

`downL` .. `down1` carry the segments' names down the levels of the agglomeration. `blocks` does the same for a block of
level 0 and writes its labels, and a table, fragment -> segment. Nothing holds the whole merge tree. Without
agglomeration there is no tree: fragments are segments. Where self-touches are corrected, the names are made by cut and
self_touch, and `blocks` is the only pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.relabel import rename
from pipeline.stages.cut import OBJECTS, ONLY, ChunkMerges, Cut, TreeCut
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import Tables, Work
from pipeline.tables import Table
from pipeline.volumes import Volume
from workers.block import BlockRef

U64 = NDArray[np.uint64]
BLOCKS = "blocks"

VOXEL_BYTES = 32  # pieces, segments, their shard being encoded, a sorted copy of distinct names


@dataclass(frozen=True)
class _Labels:
    """A block's pieces, their fragments, and its merges if there is a tree; or what fragments become, step by step."""

    pieces_ZYX: U64
    names: tuple[U64, U64]
    merges: ChunkMerges | None
    renames: tuple[tuple[U64, U64], ...] = ()

    def compute(self) -> Tables:
        piece, fragment = self.names
        renames, counts, sections = self.renames, {"merged": 0}, dict[str, Table]()
        if self.merges is not None:
            found, objects = self.merges.renames()
            renames = ((found.old, found.new),)
            counts, sections = self.merges.counts(found), {OBJECTS: objects.columns()}
        segment = fragment
        for old, new in renames:
            segment = rename(segment, old, new)
        labels_ZYX = rename(self.pieces_ZYX, piece, segment)
        fragments, first = np.unique(fragment, return_index=True)
        there = fragments != 0
        table = {"fragment": fragments[there], "segment": segment[first[there]]}
        sections["segments"] = table
        counts |= {"segments": np.unique(table["segment"]).size, "voxels": int(np.count_nonzero(labels_ZYX))}
        return Tables(sections, counts, labels_ZYX)


class Relabel(TreeCut):
    """From fragments and merges to segments."""

    name = "relabel"
    schema = 2
    labelled = frozenset({BLOCKS})

    @cached_property
    def corrected(self) -> tuple[Cut, SelfTouch] | None:
        """The stages that make the names, if self-touches are corrected."""
        wanted = self.site.config.self_touch.enabled
        return (self.site.find(Cut), self.site.find(SelfTouch)) if wanted else None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments, and agglomerate if there is a tree; or fragments and what makes the names."""
        if self.corrected is not None:
            return (self.fragments, *(stage for stage in self.corrected if stage.active))
        return (self.fragments,) if self.tree is None else (self.fragments, self.tree)

    def content(self) -> dict[str, Any]:
        """The threshold and the guards, if there is something to cut here."""
        return self.tree_content() if self.corrected is None else {}

    def passes(self) -> tuple[Pass, ...]:
        """Down the levels, the last of which writes the labels."""
        down = () if self.tree is None or self.corrected is not None else self.down(1)
        return (*down, Pass(BLOCKS, self.grids[0]))

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The chunk's own merges and its parent's renames, or its names; for a block its fragments as well."""
        needs = self.fragments.label_refs(index) if sweep == BLOCKS else []
        if self.corrected is not None:
            cut, self_touch = self.corrected
            return [*needs, *cut.name_refs(index), *self_touch.united_refs()]
        return needs if self.tree is None else [*needs, *self.merge_refs(self.tree, sweep, index)]

    def read(self, sweep: str, index: Index) -> Work:
        """A chunk's merges; for a block its pieces as well."""
        merges: ChunkMerges | None = None
        renames: tuple[tuple[U64, U64], ...] = ()
        if self.corrected is not None:
            cut, self_touch = self.corrected
            renames = (cut.names(index), self_touch.united())
        elif self.tree is not None:
            merges = self.read_merges(self.tree, sweep, index)
            if sweep != BLOCKS:
                return merges
        pieces_ZYX = self.fragments.read_pieces(self.box(sweep, index))
        return _Labels(pieces_ZYX, self.fragments.fragment_names(index), merges, renames)

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

    @property
    def names_from(self) -> TreeCut:
        """The stage that cuts the tree, and so knows the largest objects: this one, or cut."""
        return self if self.corrected is None else self.corrected[0]

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """Names; at level 0 also voxels."""
        voxels = VOXEL_BYTES * self.box(sweep, ONLY).voxels if sweep == BLOCKS else 0
        return voxels + self.names_bytes(sweep)

    def stored_bytes(self) -> int:
        """Labels, and the table of every chunk."""
        return 8 * self.site.layer.roi.voxels + self.stored_names_bytes()
