"""Fragments by the mutex watershed, which uses repulsive edges to voxels further away (docs/design/mutex-watershed.md).

Passes: `pieces` cuts every block into pieces and writes their names voxel by voxel. In mode "tiles" these are the
fragments of tiles, and `up0` makes their graph; in mode "exact" `pieces` is the first chunk already. `up1` .. `upL`
decide what can be decided, with tables alone. `downL` .. `down0` carry final names back, and until which level of the
hierarchy a fragment, which need not be connected, is incomplete.

A chunk's tables grow with what its children could not decide. `memory_bytes` assumes a number of rows per voxel near
the children's faces; a chunk that meets more is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, InputError
from pipeline.geometry import Box, Grid, Index, parent_index
from pipeline.ops import faces
from pipeline.ops.mutex_graph import Final
from pipeline.ops.mutex_scan import Edges, Place
from pipeline.ops.mutex_tiles import Face, Tiling
from pipeline.ops.relabel import rename
from pipeline.ops.thresholds import absolute_codes
from pipeline.stages.code_source import NEAREST_CHANNELS
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.mutex_tables import (
    PART,
    Connect,
    CutTiles,
    CutVoxels,
    Join,
    Name,
    Rules,
    face_of,
    no_names,
    part_of,
)
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import FRAGMENTS_PER_VOXEL, Work
from workers.block import BlockRef

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)
PIECES = "pieces"

TILE_BYTES = 64  # a voxel of a tile and its halo: the mutex watershed's own, besides codes
VOXEL_BYTES = 64  # a voxel of a block and its halo: names, labels, their shard being encoded
EDGE_BYTES = 24  # an edge of a block of mode "exact": sort key, both ends, kind, what is pending
ROW_BYTES = 160  # a row of a chunk: as read, sorted, decided, written
STORED_ROW_BYTES = 29
ROWS = {"exact": 3.0, "tiles": 0.25}  # rows per channel and voxel near the children's faces


class MutexWatershed(FragmentSource):
    """From affinity codes, of near and far neighbours, to fragments."""

    name = "mutex_watershed"
    labelled = frozenset({PIECES})
    label_pass: ClassVar[str] = PIECES

    @property
    def active(self) -> bool:
        """Whether the config chooses this method."""
        return self.site.config.fragments.method == self.name

    @property
    def on_tiles(self) -> bool:
        """Whether the first step is taken tile by tile."""
        return self.site.config.mutex_watershed.mode == "tiles"

    @property
    def exactness(self) -> str:
        """In mode "tiles" the tiles are part of the answer."""
        if not self.on_tiles:
            return "the mutex watershed is exact over the hierarchy"
        size = " x ".join(str(n) for n in self.site.config.mutex_watershed.tile)
        return (
            f"the mutex watershed's first step runs on tiles of {size} voxels, which belong to the config and show in "
            "the answer; from their fragments on it is exact over the hierarchy"
        )

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.grids) - 1

    @cached_property
    def edges(self) -> Edges:
        """Which voxel edges there are."""
        settings = self.site.config.mutex_watershed
        return Edges(tuple(self.codes.offsets), settings.attractive, settings.strides)

    @cached_property
    def tiling(self) -> Tiling:
        """The tiles, from the corner of the region of interest on."""
        settings = self.site.config.mutex_watershed
        return Tiling(Grid(self.site.layer.roi, settings.tile), settings.halo)

    @cached_property
    def rules(self) -> Rules:
        """What all blocks need to know."""
        config, layer = self.site.config, self.site.layer
        settings = config.mutex_watershed
        code_table = self.codes.code_table.copy()
        low_code, _ = absolute_codes(code_table, settings.low, 1.0)
        code_table[0] = 0  # code 0 is no edge
        return Rules(
            self.edges,
            code_table,
            low_code,
            settings.dust_vx,
            layer.roi,
            layer.shape,
            config.blocks.shape,
        )

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """What made the codes."""
        return (self.codes,)

    def content(self) -> dict[str, Any]:
        """The settings, without tiles where there are none; channels, what codes mean, and the region."""
        roi = self.site.layer.roi
        settings = self.site.config.mutex_watershed.model_dump(mode="json")
        if not self.on_tiles:
            del settings["tile"], settings["halo"]
        return {
            **settings,
            "offsets": [list(offset) for offset in self.edges.offsets],
            "code_table": [int(value) for value in self.codes.code_table],
            "roi": [roi.begin, roi.end],
            **self.codes.background_content(),
        }

    def passes(self) -> tuple[Pass, ...]:
        """Pieces, up, down."""
        if not self.active:
            return ()
        up = [Pass(f"up{level}", grid) for level, grid in enumerate(self.grids) if level or self.on_tiles]
        down = [Pass(f"down{level}", self.grids[level]) for level in reversed(range(self.top + 1))]
        return (Pass(PIECES, self.grids[0]), *up, *down)

    def masked(self, sweep: str, index: Index) -> bool:
        """A block is masked if all codes in it are."""
        return self.empty(self._level(sweep), index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Codes, the labels around a block, the children's tables, or the block's own and its parent's."""
        level = self._level(sweep)
        if sweep == PIECES:
            return list(self.codes.code_refs(self._seen(index)))
        if sweep == "up0":
            around = self._around(index)
            pieces = [BlockRef(self.task(PIECES), other) for other in self._filled(around)]
            return [*self.codes.code_refs(around), *pieces]
        if sweep.startswith("up"):
            return [BlockRef(self.task(self._up(level - 1)), child) for child in self.children(level, index)]
        needs = [BlockRef(self.task(self._up(level)), index)]
        if level < self.top:
            needs.append(BlockRef(self.task(f"down{level + 1}"), parent_index(index)))
        return needs

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Refuse what cannot work; create the label volume."""
        channels, attractive = len(self.edges.offsets), self.edges.attractive
        if channels <= attractive:
            raise ConfigError(
                f"the mutex watershed needs repulsive channels: the affinities have {channels}, "
                f"mutex_watershed.attractive is {attractive}",
                way_out="use weights that predict affinities to neighbours further away, or another fragments.method",
            )
        super().prepare()

    def read(self, sweep: str, index: Index) -> Work:
        """Fetch what a block needs."""
        level = self._level(sweep)
        if sweep == PIECES:
            return self._read_codes(index)
        if sweep == "up0":
            return self._read_fragments(index)
        if sweep.startswith("down"):
            return self._read_names(level, index)
        boxes = {child: self.grids[level - 1].block_box(child) for child in self.children(level, index)}
        parts = [part_of(box, self.tables(self._up(level - 1), child, *PART)) for child, box in boxes.items()]
        self._refuse_too_many(sweep, sum(part.inner.size + part.outer.size for part in parts))
        return Join(tuple(parts), self.grids[level].block_box(index), self.rules)

    def _read_codes(self, index: Index) -> Work:
        box, seen = self.grids[0].block_box(index), self._seen(index)
        codes, internal = self._all_codes(seen), self.grids[0].internal_faces(index)
        if self.on_tiles:
            return CutTiles(codes, box, self.tiling, self.rules, internal)
        return CutVoxels(codes, Place(box, seen, self.site.layer.shape), self.rules, internal)

    def _read_fragments(self, index: Index) -> Connect:
        box, around = self.grids[0].block_box(index), self._around(index)
        labels_ZYX = np.zeros(around.shape, np.uint64)
        for other in self._filled(around):
            part = self.grids[0].block_box(other).clip(around)
            labels_ZYX[part.slices(around.begin)] = self.read_pieces(part)
        overlaps = []
        for axis, side in enumerate(faces.LOW):
            z, y, x = (i - (a == axis) for a, i in enumerate(index))
            if index[axis] and not self.empty(0, (z, y, x)):
                overlaps.append((self._face((z, y, x), faces.HIGH[axis]), self._face(index, side)))
        place = Place(box, around, self.site.layer.shape)
        return Connect(labels_ZYX, self._all_codes(around), place, self.rules, tuple(overlaps))

    def _face(self, index: Index, side: str) -> Face:
        return face_of(side, self.tables(PIECES, index, f"overlap_{side}", f"joined_{side}"))

    def _read_names(self, level: int, index: Index) -> Name:
        own = self.tables(self._up(level), index, "remap", "closed")
        parent = no_names()
        if level < self.top:
            above = self.tables(f"down{level + 1}", parent_index(index), "final")["final"]
            parent = Final(above["old"], above["new"], above["until"])
        closed = Final(own["closed"]["name"], own["closed"]["name"], own["closed"]["until"])
        return Name((own["remap"]["old"], own["remap"]["new"]), closed, parent, pieces=level == 0)

    def _refuse_too_many(self, sweep: str, rows: int) -> None:
        limit = int(self._rows(self._level(sweep)))
        if rows > limit:
            raise InputError(
                f"a block of {sweep} has {rows:,} rows to join, about {rows * ROW_BYTES / 1e9:.1f} GB; "
                f"the plan's memory allows {limit:,}",
                way_out='set mutex_watershed.mode = "tiles", larger strides, or larger blocks',
            )

    # ---- for the stages that follow ----------------------------------------------------------------------------
    def read_high_face(self, index: Index, side: str) -> U64:
        """The fragments on a high face of a level-0 block, from tables alone; only for faces with a block behind."""
        pieces = self.tables(PIECES, index, side)[side]["label"]
        shape = faces.slab_shape(self.grids[0].block_box(index).shape, side)
        return rename(pieces, *self.fragment_names(index)).reshape(shape)

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0, by rows above."""
        level = self._level(sweep)
        block, channels = Box.of_shape(self.box(sweep, ONLY).shape), len(self.edges.offsets)
        code = channels * self.codes.code_dtype.itemsize
        if sweep == PIECES and self.on_tiles:
            halo = self.tiling.halo
            tile = Box.of_shape(self.tiling.tiles.block).grow(halo).voxels
            return (2 * code + VOXEL_BYTES) * block.grow(halo).voxels + (code + TILE_BYTES) * tile
        around = block.grow(self.edges.reach).voxels
        if sweep == PIECES:
            pending = int(ROW_BYTES * self._rows(0))
            return (2 * code + VOXEL_BYTES) * around + EDGE_BYTES * channels * block.voxels + pending
        if sweep == "up0":
            return (2 * code + VOXEL_BYTES) * around + int(ROW_BYTES * self._rows(0))
        names = int(64 * FRAGMENTS_PER_VOXEL * block.voxels) if level == 0 else 0
        return names + int(ROW_BYTES * self._rows(level))

    def stored_bytes(self) -> int:
        """Labels, names of pieces, and the rows of every level."""
        if not self.active:
            return 0
        voxels = self.site.layer.roi.voxels
        rows = sum(grid.count * self._rows(level) for level, grid in enumerate(self.grids))
        return int(8 * voxels + 3 * 17 * FRAGMENTS_PER_VOXEL * voxels + STORED_ROW_BYTES * rows)

    def inodes(self) -> int:
        """None where it is not used."""
        return super().inodes() if self.active else 0

    # ---- derived -----------------------------------------------------------------------------------------------
    def _rows(self, level: int) -> float:
        """Rows that a block of a level may have to join: by the voxels near the faces of its children."""
        grid = self.grids[max(level - 1, 0)]
        box = grid.block_box(ONLY)
        reach = self.edges.reach
        inner = [max(0, s - 2 * r) for s, r in zip(box.shape, reach, strict=True)]
        near = box.voxels - inner[0] * inner[1] * inner[2]
        children = 8 if level else 1
        return ROWS[self.site.config.mutex_watershed.mode] * len(self.edges.offsets) * min(children, grid.count) * near

    def _level(self, sweep: str) -> int:
        return 0 if sweep == PIECES else int(sweep.removeprefix("up").removeprefix("down"))

    def _up(self, level: int) -> str:
        """The pass with the tables that a block of a level hands up."""
        return f"up{level}" if level or self.on_tiles else PIECES

    def _seen(self, index: Index) -> Box:
        """The codes that decide about the pieces of a block."""
        box = self.grids[0].block_box(index)
        return self.tiling.seen(box) if self.on_tiles else self.edges.seen(box, self.site.layer.roi)

    def _around(self, index: Index) -> Box:
        """A block with all voxels that its edges lead to."""
        return self.grids[0].block_box(index).grow(self.edges.reach).clip(self.site.layer.roi)

    def _filled(self, box: Box) -> list[Index]:
        """The level-0 blocks that touch a box and hold something."""
        return [index for index in self.grids[0].touching(box) if not self.empty(0, index)]

    def _all_codes(self, box: Box) -> NDArray[Any]:
        return self.codes.read_codes(box, max(len(self.edges.offsets), NEAREST_CHANNELS))
