"""Codes of a part of another run's volume, copied: what `audit` segments as a volume of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index
from pipeline.stages.code_source import NEAREST_CHANNELS, CodeSource
from pipeline.stages.stage import Pass, Site, Stage, Written
from pipeline.volumes import ArraySpec, Volume
from workers.block import BlockRef

HISTOGRAM_BYTES = 8 * NEAREST_CHANNELS  # a voxel: numpy counts in 64 bits


@dataclass(frozen=True)
class Copied:
    """A block of codes."""

    codes_CZYX: NDArray[Any]
    histogram: NDArray[np.int64]


class BorrowedCodes(CodeSource[Copied, Copied]):
    """From the codes of one stage to codes of a part of its volume."""

    name = "borrowed"

    def __init__(self, site: Site, source: CodeSource[Any, Any]) -> None:
        super().__init__(site)
        self._source = source

    @property
    def offsets(self) -> tuple[Index, ...]:
        """The source's."""
        return self._source.offsets

    @property
    def code_table(self) -> NDArray[np.int64]:
        """The source's."""
        return self._source.code_table

    @property
    def code_grid(self) -> Grid:
        """The blocks of this volume."""
        return Grid(self.site.layer.roi, self.site.config.blocks.shape)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Nothing of this volume."""
        return ()

    def content(self) -> dict[str, Any]:
        """Whose codes, and which part."""
        roi = self.site.layer.roi
        return {"source": self._source.identity, "roi": [roi.begin, roi.end]}

    def passes(self) -> tuple[Pass, ...]:
        """One."""
        return (Pass(self.code_pass, self.code_grid),)

    def masked(self, sweep: str, index: Index) -> bool:
        """Where the source has no codes."""
        return not any(True for _ in self._source.code_refs(self.code_grid.block_box(index)))

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Nothing of this volume."""
        return ()

    def prepare(self) -> None:
        """Create the array."""
        roi, blocks = self.site.layer.roi, self.site.config.blocks
        spec = ArraySpec(
            shape=(len(self.offsets), *roi.shape),
            dtype=self.code_dtype.name,
            block=blocks.shape,
            chunk=blocks.chunk,
            voxel_size=self.site.layer.voxel_size,
            offset=roi.begin,
            channels=len(self.offsets),
        )
        Volume.create(self.folder / "affinities", spec)

    def read(self, sweep: str, index: Index) -> Copied:
        """The source's codes, without the edges that leave this volume, and the histogram of the nearest ones left."""
        box, roi = self.code_grid.block_box(index), self.site.layer.roi
        codes = self._source.read_codes(box, len(self.offsets))
        stays = np.stack([staying(box, roi, offset) for offset in self.offsets])
        codes[~stays] = 0
        nearest = codes[:NEAREST_CHANNELS][stays[:NEAREST_CHANNELS]]
        return Copied(codes, np.bincount(nearest >> (8 * nearest.itemsize - 8), minlength=256))

    def compute(self, inputs: Copied) -> Copied:
        """Nothing is left to do."""
        return inputs

    def write(self, sweep: str, index: Index, outputs: Copied) -> Written:
        """Codes, shells and histogram."""
        return self.store_codes(index, outputs.codes_CZYX, outputs.histogram)

    def memory_bytes(self, sweep: str) -> int:
        """Codes, three times, and which of their edges stay; the histogram's numbers; shells, until they are stored."""
        voxel = len(self.offsets) * (3 * self.code_dtype.itemsize + 2) + HISTOGRAM_BYTES
        return voxel * Box.of_shape(self.code_grid.block).voxels + 3 * self.shell_bytes(self.code_grid.block)


def staying(box: Box, roi: Box, offset: Index) -> NDArray[np.bool_]:
    """The voxels of a box whose edge along an offset ends inside the region."""
    z, y, x = offset
    stays = np.zeros(box.shape, np.bool_)
    stays[roi.shift((-z, -y, -x)).clip(box).slices(box.begin)] = True
    return stays
