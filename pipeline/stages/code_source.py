"""What the stages on affinities need of the stage that made them, whichever that was.

Codes are whole numbers; a table says which integer affinity (0 to 65535) each stands for. Channel c at voxel p is the
edge from p to p + offsets[c]; the first three channels are the nearest neighbours, and their code 0 is no edge at all.
Every block's receipt has a `histogram` of 256 bins: the nearest edges that exist, by code (16-bit codes: by its upper
byte). There is one such stage that is active in a run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.stages.stage import Stage
from pipeline.volumes import Volume
from workers.block import BlockRef

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")

NEAREST_CHANNELS = 3


class CodeSource(Stage[Inputs, Outputs]):
    """A stage with one pass, `blocks`, that stores codes, channel by channel; its results have `codes_CZYX`."""

    code_pass: ClassVar[str] = "blocks"

    @property
    @abstractmethod
    def offsets(self) -> tuple[Index, ...]:
        """Where the edges of every channel lead; the nearest three first."""

    @property
    @abstractmethod
    def code_table(self) -> NDArray[np.int64]:
        """The integer behind every code, ascending: 256 entries for uint8, 65536 for uint16."""

    @property
    @abstractmethod
    def code_grid(self) -> Grid:
        """The blocks that the codes are stored in."""

    @cached_property
    def affinities(self) -> Volume:
        """The stored codes, CZYX."""
        return Volume.open(self.folder / "affinities")

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(np.uint8 if self.code_table.size == 256 else np.uint16)

    def code_refs(self, box: Box) -> Iterable[BlockRef]:
        """The blocks with codes in a box; masked ones have none."""
        return (ref for ref in self.refs(self.code_pass, box) if not self.masked(self.code_pass, ref.index))

    def read_codes(self, box: Box, channels: int = NEAREST_CHANNELS) -> NDArray[Any]:
        """The first channels of a box inside the region of interest; 0 in masked blocks."""
        codes = np.zeros((channels, *box.shape), self.code_dtype)
        for ref in self.code_refs(box):
            piece = self.code_grid.block_box(ref.index).clip(box)
            codes[(..., *piece.slices(box.begin))] = self.affinities.read(piece, channels=channels)
        return codes
