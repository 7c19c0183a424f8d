"""Fragments by methods of others, tile by tile: scikit-image's seeded watershed, or waterz (ops/tiles.py).

Neither is exact over the volume. Their tiles belong to the config, so their answer still does not depend on blocks
and workers; it depends on the tiles, and the report says so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tiles
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import faces
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Tables, Work
from workers.block import BlockRef

if TYPE_CHECKING:
    from pipeline.ops.tiles import Method

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)
BLOCKS = "blocks"

VOXEL_BYTES = 40  # of a block and its halo: codes, decoded, labels
TILE_BYTES = 80  # of a tile and its halo: float affinities, what the method keeps


@dataclass(frozen=True)
class _Block:
    """The codes of a block and its halo."""

    decoded_CZYX: NDArray[np.uint16]
    read: Box
    block: Box
    tiles: Grid
    halo: Index
    internal: int
    method: Method

    def compute(self) -> Tables:
        from pipeline.ops.tiles import tiled  # scikit-image: only where it is used

        labels_ZYX = tiled(
            self.decoded_CZYX, self.read, self.block, tiles=self.tiles, halo=self.halo, method=self.method
        )
        name = np.unique(labels_ZYX)
        name = name[name != 0]
        sections: dict[str, Mapping[str, NDArray[Any]]] = {"names": {"piece": name, "fragment": name}}
        for side in faces.names_of(self.internal):
            if side in faces.HIGH:
                sections[side] = {"label": faces.slab(labels_ZYX, side).reshape(-1)}
        return Tables(sections, {"closed": name.size}, labels_ZYX)


class TiledFragments(FragmentSource):
    """From codes to the fragments of one tile after the other."""

    labelled = frozenset({BLOCKS})
    label_pass: ClassVar[str] = BLOCKS
    name_pass: ClassVar[str] = BLOCKS

    @property
    @abstractmethod
    def settings(self) -> Tiles:
        """Its section of the config."""

    @property
    def exactness(self) -> str:
        """Not over the volume: the tiles show."""
        size = " x ".join(str(n) for n in self.settings.tile)
        return f"fragments were made in tiles of {size} voxels, which belong to the config and show in the answer"

    @abstractmethod
    def method(self) -> Method:
        """What is done with a tile."""

    @property
    def active(self) -> bool:
        """Whether the config chooses this method."""
        return self.site.config.fragments.method == self.name

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """What made the codes."""
        return (self.codes,)

    def content(self) -> dict[str, Any]:
        """All settings of the method, what codes mean, the voxel size, and where tiles are anchored."""
        roi = self.site.layer.roi
        return {
            **self.settings.model_dump(mode="json"),
            "code_table": [int(value) for value in self.codes.code_table],
            "voxel_size_pm": self.site.layer.voxel_size.pm,
            "roi": [roi.begin, roi.end],
            **self.codes.background_content(),
        }

    def passes(self) -> tuple[Pass, ...]:
        """One."""
        return (Pass(BLOCKS, self.grids[0]),) if self.active else ()

    def masked(self, sweep: str, index: Index) -> bool:
        """A block is masked if all codes in it are."""
        return self.empty(0, index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The codes of the block and of its tiles' halos."""
        return self.codes.code_refs(self._with_halo(index))

    def read(self, sweep: str, index: Index) -> Work:
        """Decoded codes."""
        roi, read = self.site.layer.roi, self._with_halo(index)
        decoded = self.codes.code_table.astype(np.uint16)[self.codes.read_codes(read)]
        return _Block(
            decoded,
            read,
            self.box(sweep, index),
            Grid(roi, self.settings.tile),
            self.settings.halo,
            self.grids[0].internal_faces(index),
            self.method(),
        )

    def read_high_face(self, index: Index, side: str) -> U64:
        """The fragments on a high face of a block, from its table."""
        labels = self.tables(BLOCKS, index, side)[side]["label"]
        return labels.reshape(faces.slab_shape(self.grids[0].block_box(index).shape, side))

    def memory_bytes(self, sweep: str) -> int:
        """The block with its halo, and one tile at a time."""
        halo = self.settings.halo
        tile = Box.of_shape(self.settings.tile).grow(halo).voxels
        return VOXEL_BYTES * self.box(sweep, ONLY).grow(halo).voxels + TILE_BYTES * tile

    def stored_bytes(self) -> int:
        """Labels and names."""
        return int((8 + 16 * FRAGMENTS_PER_VOXEL) * self.site.layer.roi.voxels) if self.active else 0

    def inodes(self) -> int:
        """None where it is not used."""
        return super().inodes() if self.active else 0

    def _with_halo(self, index: Index) -> Box:
        return self.grids[0].block_box(index).grow(self.settings.halo).clip(self.site.layer.roi)


class Seeded(TiledFragments):
    """The classical route (ops/seeded.py)."""

    name = "seeded"

    @property
    def settings(self) -> Tiles:
        """[seeded]."""
        return self.site.config.seeded

    def method(self) -> Method:
        """scikit-image's seeded watershed."""
        from pipeline.ops.seeded import seeded_watershed

        settings, size_nm = self.site.config.seeded, self.site.layer.voxel_size.nm
        return partial(seeded_watershed, threshold=settings.threshold, flat=settings.flat, voxel_size_nm=size_nm)


class Waterz(TiledFragments):
    """waterz's own segments as fragments (ops/waterz_backend.py)."""

    name = "waterz"

    @property
    def settings(self) -> Tiles:
        """[waterz]."""
        return self.site.config.waterz

    def method(self) -> Method:
        """waterz on one tile."""
        from pipeline.ops.waterz_backend import waterz_segments

        settings = self.site.config.waterz
        return partial(waterz_segments, low=settings.low, high=settings.high, threshold=settings.threshold)
