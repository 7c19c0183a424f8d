"""What the stages on fragments need of the stage that made them, whichever method that was.

Its labels are pieces of fragments, written block by block by one pass; a table of another pass says which fragment each
piece belongs to, and how far up the hierarchy it is still incomplete. There is one such stage that is active in a run.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.relabel import rename
from pipeline.stages.code_source import CodeSource
from pipeline.stages.tabular import TabularStage
from workers.block import BlockRef

U64 = NDArray[np.uint64]


class FragmentSource(TabularStage):
    """A stage that makes fragments over the levels of the block grid."""

    label_pass: ClassVar[str] = "up0"  # writes the label volume: names of pieces
    name_pass: ClassVar[str] = "down0"  # writes the section `names`: piece (ascending), fragment

    @cached_property
    def codes(self) -> CodeSource[Any, Any]:
        """The stage that made the codes."""
        return self.site.find(CodeSource)

    @property
    def exactness(self) -> str:
        """What the report says about the fragments, as a clause."""
        return "watershed basins are exact over the hierarchy"

    @abstractmethod
    def read_high_face(self, index: Index, side: str) -> U64:
        """The fragments on a high face of a level-0 block, from tables alone; only for faces with a block behind."""

    def empty(self, level: int, index: Index) -> bool:
        """Whether a block of a level holds no codes, hence no fragments: it then writes nothing."""
        return not any(True for _ in self.codes.code_refs(self.grids[level].block_box(index)))

    def children(self, level: int, index: Index) -> list[Index]:
        """The blocks of the level below that make up a block and hold something."""
        return [child for child in self.grids[level - 1].children(index) if not self.empty(level - 1, child)]

    def label_refs(self, index: Index) -> list[BlockRef]:
        """The blocks behind the fragments of one level-0 block; none if it is empty."""
        if self.empty(0, index):
            return []
        return [BlockRef(self.task(sweep), index) for sweep in dict.fromkeys((self.label_pass, self.name_pass))]

    def fragment_names(self, index: Index) -> tuple[U64, U64]:
        """The names of the pieces of a level-0 block, ascending, and the fragment each belongs to."""
        names = self.tables(self.name_pass, index, "names")["names"]
        return names["piece"], names["fragment"]

    def read_pieces(self, box: Box) -> U64:
        """The stored labels of a box inside one block: names of pieces."""
        return np.asarray(self.labels.read(box), np.uint64)

    def read_labels(self, box: Box) -> U64:
        """The fragments of any box in the region of interest; 0 where blocks are empty."""
        labels_ZYX = np.zeros(box.shape, np.uint64)
        for index in self.grids[0].touching(box):
            if not self.empty(0, index):
                part = self.grids[0].block_box(index).clip(box)
                labels_ZYX[part.slices(box.begin)] = rename(self.read_pieces(part), *self.fragment_names(index))
        return labels_ZYX
