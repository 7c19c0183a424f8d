"""Fragments: steepest-ascent watershed of blocks, joined and linked over the hierarchy (ops/fragments.py, pieces.py).

Passes: `thresholds` settles the two codes once for the volume. `up0` cuts every block into pieces and writes their
names voxel by voxel; `up1` .. `upL` join them, with tables and face slabs alone. `down(L-1)` .. `down0` carry final
names back. The label volume keeps the pieces' names: the table `names` of down0 says which fragment each belongs to.
A block where predict has masked everything holds no voxels and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Fragments as Settings
from pipeline.geometry import Box, Grid, Index, parent_index
from pipeline.ops import faces
from pipeline.ops.fragments import HALO, watershed
from pipeline.ops.pieces import Joined, Nodes, Part, Pending, Rules, close, compose, join
from pipeline.ops.relabel import rename
from pipeline.ops.thresholds import absolute_codes, percentile_codes
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import Tables, Work, faces_between, faces_to_join, surface
from pipeline.tables import Table
from workers.block import BlockRef

U64 = NDArray[np.uint64]
ONLY: Index = (0, 0, 0)

# Bounds on a worker's memory; measured on noise of 0.3 pieces a voxel, blocks of 32 x 128 x 128 and 64 x 256 x 256.
BLOCK_BYTES = 16 << 20  # whatever the block: buffers for reading, compressing, writing; measured: 9 to 15 MB
CUT_BYTES = 48  # a voxel of up0: codes, best edges, forest, labels, their shard being encoded; measured: 35
LINK_BYTES = 32  # what linking adds to that; measured: 24
NAME_BYTES = 48  # a voxel of down0; measured: 48 with what BLOCK_BYTES covers
JOIN_BYTES = 64  # a surface voxel of the children of a higher block: slabs, crossings, clusters; measured: 47
LINKED_JOIN_BYTES = 384  # the same with what is undecided; measured: 255 (size_vx 1,000), 318 (100,000)

# Bounds on what is stored, before compression.
PIECES_PER_VOXEL = 1 / 3  # measured: 0.30 (white noise), 0.11 to 0.17 (generated affinities)
PIECE_BYTES = 49  # its name, its final name, its row of `nodes` or `remap`
PENDING_BYTES = 20  # an undecided edge; there are fewer than clusters
SLAB_BYTES = 48  # a surface voxel of any level: slabs, crossings, above level 0 nodes and remap
LINKED_SLAB_BYTES = 192  # the same with what is undecided: 3 clusters a surface voxel


@dataclass(frozen=True)
class _Settle:
    """Thresholds as codes."""

    settings: Settings
    code_table: NDArray[np.integer]
    histogram: NDArray[np.int64]

    def compute(self) -> Tables:
        low, high = self.settings.low, self.settings.high
        if self.settings.thresholds == "percentile":
            codes = percentile_codes(self.histogram, low, high, codes=self.code_table.size)
        else:
            codes = absolute_codes(self.code_table, low, high)
        columns = {name: np.array([code], np.int64) for name, code in zip(("low", "high"), codes, strict=True)}
        return Tables({"codes": columns}, {"low_code": codes[0], "high_code": codes[1]})


@dataclass(frozen=True)
class _Cut:
    """A block of codes, with its halo."""

    codes_CZYX: NDArray[Any]
    block: Box
    roi: Box
    codes: tuple[int, int]
    internal: int
    rules: Rules

    def compute(self) -> Tables:
        found = watershed(
            self.codes_CZYX,
            self.block,
            self.roi,
            codes=self.codes,
            internal=self.internal,
            size_vx=self.rules.size_vx,
        )
        joined = close(found.part, self.rules)
        sections = {"pieces": {"name": found.name}, **_sections(joined)}
        return Tables(sections, {"pieces": found.name.size, **_counts(joined)}, found.labels_ZYX)


@dataclass(frozen=True)
class _Join:
    """What the children of a block hand up."""

    children: tuple[Part, ...]
    block: Box
    internal: int
    roi: Box
    rules: Rules

    def compute(self) -> Tables:
        joined = join(self.children, self.block, internal=self.internal, roi=self.roi, rules=self.rules)
        return Tables(_sections(joined), _counts(joined))


@dataclass(frozen=True)
class _Name:
    """A block's own renaming and growing clusters, its parent's final names, and at level 0 all its pieces."""

    own: tuple[U64, U64]
    growing: U64
    parent: tuple[U64, U64]
    pieces: U64 | None

    def compute(self) -> Tables:
        old, new = compose(*self.own, self.growing, parent=self.parent)
        if self.pieces is None:
            return Tables({"final": {"old": old, "new": new}})
        fragment = rename(self.pieces, old, new)
        return Tables({"names": {"piece": self.pieces, "fragment": fragment}})


class Fragments(FragmentSource):
    """From affinity codes to fragments."""

    name = "fragments"
    labelled = frozenset({"up0"})

    @property
    def active(self) -> bool:
        """Whether the config chooses the watershed."""
        return self.site.config.fragments.method == "watershed"

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.grids) - 1

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """What made the codes."""
        return (self.codes,)

    def content(self) -> dict[str, Any]:
        """Thresholds, sizes, what codes mean, and the region: edges that leave it do not exist."""
        roi = self.site.layer.roi
        settings = self.site.config.fragments
        return {
            "thresholds": settings.thresholds,
            "low": settings.low,
            "high": settings.high,
            "size_vx": settings.size_vx,
            "dust_vx": settings.dust_vx,
            "code_table": [int(value) for value in self.codes.code_table],
            "roi": [roi.begin, roi.end],
            **self.codes.background_content(),
        }

    def passes(self) -> tuple[Pass, ...]:
        """Thresholds, up, down."""
        whole = Pass("thresholds", Grid(self.site.layer.roi, self.site.layer.roi.shape))
        up = [Pass(f"up{level}", grid) for level, grid in enumerate(self.grids)]
        down = [Pass(f"down{level}", self.grids[level]) for level in reversed(range(max(self.top, 1)))]
        return (whole, *up, *down)

    def masked(self, sweep: str, index: Index) -> bool:
        """A block is masked if all codes in it are."""
        return sweep != "thresholds" and self.empty(self._level(sweep)[1], index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Codes, the children's tables, or the block's own and its parent's."""
        if sweep == "thresholds":
            percentile = self.site.config.fragments.thresholds == "percentile"
            return list(self.codes.code_refs(self.site.layer.roi)) if percentile else []
        direction, level = self._level(sweep)
        if sweep == "up0":
            return [BlockRef(self.task("thresholds"), ONLY), *self.codes.code_refs(self._with_halo(index))]
        if direction == "up":
            return [BlockRef(self.task(f"up{level - 1}"), child) for child in self.children(level, index)]
        needs = [BlockRef(self.task(f"up{level}"), index)]
        if self.top:
            needs.append(BlockRef(self.task(self._above(level)), parent_index(index)))
        return needs

    # ---- the work ----------------------------------------------------------------------------------------------
    def read(self, sweep: str, index: Index) -> Work:
        """Fetch what a block needs."""
        if sweep == "thresholds":
            return self._read_histograms()
        direction, level = self._level(sweep)
        if sweep == "up0":
            return self._read_codes(index)
        if direction == "down":
            return self._read_names(level, index)
        children = tuple(self._part(level - 1, child) for child in self.children(level, index))
        grid = self.grids[level]
        return _Join(children, grid.block_box(index), grid.internal_faces(index), self.site.layer.roi, self._rules)

    def _read_histograms(self) -> _Settle:
        histogram = np.zeros(256, np.int64)
        for ref in self.needs("thresholds", ONLY):
            histogram += np.asarray(self.site.summary(ref)["histogram"], np.int64)
        return _Settle(self.site.config.fragments, self.codes.code_table, histogram)

    def _read_codes(self, index: Index) -> _Cut:
        thresholds, block = self.tables("thresholds", ONLY, "codes")["codes"], self.grids[0].block_box(index)
        return _Cut(
            self.codes.read_around(block),
            block,
            self.site.layer.roi,
            (int(thresholds["low"][0]), int(thresholds["high"][0])),
            self.grids[0].internal_faces(index),
            self._rules,
        )

    def _read_names(self, level: int, index: Index) -> _Name:
        own = self.tables(f"up{level}", index, "remap", "nodes", *(["pieces"] if level == 0 else []))
        above = {"old": np.empty(0, np.uint64), "new": np.empty(0, np.uint64)}
        if self.top:
            section = "remap" if level + 1 == self.top else "final"
            above = self.tables(self._above(level), parent_index(index), section)[section]
        pieces = own["pieces"]["name"] if level == 0 else None
        renamed = (own["remap"]["old"], own["remap"]["new"])
        return _Name(renamed, own["nodes"]["name"], (above["old"], above["new"]), pieces)

    def _part(self, level: int, index: Index) -> Part:
        """What a block of a level hands to its parent."""
        grid = self.grids[level]
        box, sides = grid.block_box(index), faces.names_of(grid.internal_faces(index))
        stored = self.tables(f"up{level}", index, "nodes", "pending", *sides)
        shaped = {
            side: {name: column.reshape(faces.slab_shape(box.shape, side)) for name, column in stored[side].items()}
            for side in sides
        }
        return Part(
            box,
            Nodes(**stored["nodes"]),
            Pending(**stored["pending"]),
            {side: shaped[side]["node"] for side in sides},
            {side: shaped[side]["crossing"] for side in sides if side in faces.LOW},
        )

    # ---- for the stages that follow ----------------------------------------------------------------------------
    def read_high_face(self, index: Index, side: str) -> U64:
        """The fragments on a high face of a level-0 block, from tables alone; only for faces with a block behind."""
        stored = self.tables("up0", index, "nodes", side)
        names = np.concatenate([np.zeros(1, np.uint64), stored["nodes"]["name"]])
        shape = faces.slab_shape(self.grids[0].block_box(index).shape, side)
        return rename(names[stored[side]["node"]], *self.fragment_names(index)).reshape(shape)

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0, by the faces of the children above."""
        if sweep == "thresholds":
            return 1 << 20
        level = self._level(sweep)[1]
        box, linked = self.box(sweep, ONLY), self._rules.size_vx > 0
        if sweep == "up0":
            return BLOCK_BYTES + (CUT_BYTES + LINK_BYTES * linked) * box.grow(HALO).voxels
        names = NAME_BYTES * box.voxels if level == 0 else 0
        joined = faces_to_join(self.grids[level - 1]) if level else 2 * surface(box.shape)
        return BLOCK_BYTES + names + (LINKED_JOIN_BYTES if linked else JOIN_BYTES) * joined

    def stored_bytes(self) -> int:
        """Labels, what pieces take in tables, and for every level what its surface does."""
        voxels, linked = self.site.layer.roi.voxels, self._rules.size_vx > 0
        surfaces = sum(faces_between(grid) for grid in self.grids)
        pieces = (PIECE_BYTES + PENDING_BYTES * linked) * PIECES_PER_VOXEL * voxels
        return int(8 * voxels + pieces + (LINKED_SLAB_BYTES if linked else SLAB_BYTES) * surfaces)

    # ---- derived -----------------------------------------------------------------------------------------------
    @property
    def _rules(self) -> Rules:
        settings = self.site.config.fragments
        return Rules(settings.size_vx, settings.dust_vx)

    def _level(self, sweep: str) -> tuple[str, int]:
        direction = "up" if sweep.startswith("up") else "down"
        return direction, int(sweep.removeprefix(direction))

    def _above(self, level: int) -> str:
        """The pass that holds the final names for the blocks of a level."""
        return f"up{self.top}" if level + 1 == self.top else f"down{level + 1}"

    def _with_halo(self, index: Index) -> Box:
        return self.grids[0].block_box(index).grow(HALO).clip(self.site.layer.roi)


def _sections(joined: Joined) -> dict[str, Table]:
    part = joined.part
    slabs: dict[str, dict[str, NDArray[Any]]] = {side: {"node": slab.reshape(-1)} for side, slab in part.slabs.items()}
    for side, crossing in part.crossings.items():
        slabs[side]["crossing"] = crossing.reshape(-1)
    remap = {"old": joined.old, "new": joined.new}
    return {"nodes": part.nodes._asdict(), "pending": part.pending._asdict(), "remap": remap, **slabs}


def _counts(joined: Joined) -> dict[str, int]:
    part = joined.part
    return {
        "growing": part.nodes.name.size,
        "pending": part.pending.a.size,
        "closed": joined.closed,
        "dust": joined.dust,
    }
