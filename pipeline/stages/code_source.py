"""What the stages on affinities need of the stage that made them, whichever that was.

Codes are whole numbers; a table says which integer affinity (0 to 65535) each stands for. Channel c at voxel p is the
edge from p to p + offsets[c]; the first three channels are the nearest neighbours, and their code 0 is no edge at all.
Every block's receipt has a `histogram` of 256 bins: the nearest edges that exist, by code (16-bit codes: by its upper
byte). There is one such stage that is active in a run.

Beside every block of codes lie its shells: whoever needs one voxel around a block reads those of the neighbours.

Background masks are applied to what is read and not to what is stored: another mask needs no other codes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.ops.affinities import keep_existing_edges, reach
from pipeline.ops.shells import needs
from pipeline.stages import shells
from pipeline.stages.masks import SkipMask, background_content, background_masks, skipped
from pipeline.stages.stage import Stage, Written
from pipeline.volumes import Volume, digest
from workers.block import BlockRef

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")

NEAREST_CHANNELS = 3
ONE: Index = (1, 1, 1)


class CodeSource(Stage[Inputs, Outputs]):
    """A stage with one pass, `blocks`, that stores codes, channel by channel; its results have `codes_CZYX`."""

    storage: ClassVar[int] = 2  # with shells
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

    # ---- what is stored ----------------------------------------------------------------------------------------
    @cached_property
    def affinities(self) -> Volume:
        """The stored codes, CZYX."""
        return Volume.open(self.folder / "affinities")

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(np.uint8 if self.code_table.size == 256 else np.uint16)

    def store_codes(self, index: Index, codes_CZYX: NDArray[Any], histogram: NDArray[np.int64]) -> Written:
        """One shard, its shells, and the histogram for percentile thresholds."""
        box = self.code_grid.block_box(index)
        nearest = codes_CZYX[:NEAREST_CHANNELS]
        parts = {
            "affinities": self.affinities.write(box, codes_CZYX),
            "shells": shells.store(self._shells(index), nearest, box, self._cells),
        }
        return Written(parts, {"histogram": [int(count) for count in histogram]})

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digests of the shard and its shells as they are now."""
        codes_CZYX = self.affinities.read(self.code_grid.block_box(index))
        return {"affinities": digest(codes_CZYX), "shells": shells.stored_digest(self._shells(index))}

    def inodes(self) -> int:
        """As many files and folders of shells as of shards; an array's own folders and metadata."""
        return 2 * super().inodes() + (2 if self.active else 0)

    def stored_bytes(self) -> int:
        """A byte or two per edge, and the shells."""
        if not self.active:
            return 0
        roi = self.site.layer.roi
        return len(self.offsets) * int(self.code_dtype.itemsize) * roi.voxels + self.shell_bytes(roi.shape)

    def shell_bytes(self, shape: Index) -> int:
        """A bound on the bytes of the shells of a box of whole blocks."""
        return shells.bytes_bound(shape, self.site.config.blocks.chunk, NEAREST_CHANNELS * self.code_dtype.itemsize)

    # ---- what others read --------------------------------------------------------------------------------------
    def code_refs(self, box: Box) -> Iterable[BlockRef]:
        """The blocks with codes in a box; masked ones have none."""
        return (ref for ref in self.refs(self.code_pass, box) if not self.masked(self.code_pass, ref.index))

    def read_codes(self, box: Box, channels: int = NEAREST_CHANNELS) -> NDArray[Any]:
        """The first channels of a box inside the region of interest; 0 in masked blocks and in the background."""
        return self._in_foreground(self._stored_codes(box, channels), box)

    def _stored_codes(self, box: Box, channels: int) -> NDArray[Any]:
        codes = np.zeros((channels, *box.shape), self.code_dtype)
        for ref in self.code_refs(box):
            piece = self.code_grid.block_box(ref.index).clip(box)
            codes[(..., *piece.slices(box.begin))] = self.affinities.read(piece, channels=channels)
        return codes

    def read_around(self, block: Box) -> NDArray[Any]:
        """The nearest channels of a later stage's block and, from shells alone, of one voxel around it."""
        read = block.grow(ONE).clip(self.site.layer.roi)
        codes_CZYX = np.zeros((NEAREST_CHANNELS, *read.shape), self.code_dtype)
        codes_CZYX[(..., *block.slices(read.begin))] = self._stored_codes(block, NEAREST_CHANNELS)
        for ref in self.code_refs(read):
            wanted = needs(block, self.code_grid.block_box(ref.index), self._cells)
            if wanted:
                shells.fill(codes_CZYX, read.begin, self._shells(ref.index), wanted)
        return self._in_foreground(codes_CZYX, read)

    def background_content(self) -> dict[str, Any]:
        """What decides, besides the stored codes, which are read: nothing, if no mask says what is background."""
        content = background_content(self.site)
        return {"background": content} if content else {}

    @cached_property
    def _background(self) -> tuple[SkipMask, ...]:
        return background_masks(self.site)

    def _in_foreground(self, codes_CZYX: NDArray[Any], box: Box) -> NDArray[Any]:
        """The codes of a box without the edges that end in the background, in place."""
        if self._background:
            offsets = self.offsets[: len(codes_CZYX)]
            around = box.grow(*reach(offsets))
            inside = around.clip(self.site.layer.box)
            absent_ZYX = np.ones(around.shape, np.bool_)
            absent_ZYX[inside.slices(around.begin)] = skipped(self._background, inside)
            keep_existing_edges(codes_CZYX, absent_ZYX, offsets)
        return codes_CZYX

    @property
    def _cells(self) -> Grid:
        return Grid(self.site.layer.roi, self.site.config.blocks.chunk)

    def _shells(self, index: Index) -> Path:
        return self.table_path("shells", index)
