"""What the blocks of the mutex watershed hand to each other, as tables, and the work of one block of every pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.mutex_graph import Alias, Final, Joined, Nodes, Part, closed_here, finish, join
from pipeline.ops.mutex_rows import Rows
from pipeline.ops.mutex_scan import Edges, Place, Strengths
from pipeline.ops.mutex_tiles import Face, Tiling, cut_tiles, disagreement, fragment_chunk
from pipeline.ops.mutex_voxels import voxel_chunk
from pipeline.stages.tabular import Tables
from pipeline.tables import Table

U64 = NDArray[np.uint64]
Stored = Mapping[str, Mapping[str, NDArray[Any]]]

PART = ("nodes", "inner", "outer", "alias")


@dataclass(frozen=True)
class Rules:
    """What does not change from block to block."""

    edges: Edges
    code_table: NDArray[np.int64]
    low_code: int
    dust_vx: int
    roi: Box
    layer: Index
    block: Index  # shape of the blocks of level 0


@dataclass(frozen=True)
class CutTiles:
    """Pieces of a block, tile by tile."""

    codes_CZYX: NDArray[Any]
    box: Box
    tiling: Tiling
    rules: Rules
    internal: int

    def compute(self) -> Tables:
        """The fragments of tiles, and what its neighbours need to know about overlaps."""
        rules = self.rules
        cut = cut_tiles(
            self.codes_CZYX, self.box, self.tiling, rules.edges, code_table=rules.code_table, low=rules.low_code
        )
        sections: dict[str, Table] = _high_faces(cut.labels_ZYX, self.internal)
        for side, face in cut.outside.items():
            sections[f"overlap_{side}"] = {"size": face.size, "edges": face.edges}
            sections[f"joined_{side}"] = {"bits": face.bits}
        return Tables(sections, {"overlap_edges": cut.edges, "disagreed": cut.disagreed}, cut.labels_ZYX)


@dataclass(frozen=True)
class CutVoxels:
    """Pieces of a block, from its voxels."""

    codes_CZYX: NDArray[Any]
    place: Place
    rules: Rules
    internal: int

    def compute(self) -> Tables:
        """The chunk of level 0."""
        rules = self.rules
        strengths = Strengths.of_codes(self.codes_CZYX, rules.code_table, rules.low_code)
        joined, pieces_ZYX = voxel_chunk(strengths, rules.edges, self.place, rules.roi, dust_vx=rules.dust_vx)
        sections = {**_high_faces(pieces_ZYX, self.internal), **_sections(joined, rules)}
        return Tables(sections, _counts(joined), pieces_ZYX)


@dataclass(frozen=True)
class Connect:
    """The graph of a block's fragments, and the overlaps with the blocks before it."""

    labels_ZYX: U64
    codes_CZYX: NDArray[Any]
    place: Place
    rules: Rules
    overlaps: tuple[tuple[Face, Face], ...]

    def compute(self) -> Tables:
        """The chunk of level 0."""
        rules = self.rules
        strengths = Strengths.of_codes(self.codes_CZYX, rules.code_table, rules.low_code)
        joined = fragment_chunk(self.labels_ZYX, strengths, rules.edges, self.place, dust_vx=rules.dust_vx)
        edges, disagreed = np.array([disagreement(*pair) for pair in self.overlaps], int).reshape(-1, 2).sum(axis=0)
        counts = {"overlap_edges": int(edges), "disagreed": int(disagreed)}
        return Tables(_sections(joined, rules), {**_counts(joined), **counts})


@dataclass(frozen=True)
class Join:
    """What the children of a block hand up."""

    children: tuple[Part, ...]
    box: Box
    rules: Rules

    def compute(self) -> Tables:
        """The chunk of a higher level."""
        joined = join(self.children, self.box, dust_vx=self.rules.dust_vx)
        return Tables(_sections(joined, self.rules), _counts(joined))


@dataclass(frozen=True)
class Name:
    """A block's own rename table and closed clusters, and what its parent knows of the others."""

    renamed: tuple[U64, U64]
    closed: Final
    parent: Final
    pieces: bool

    def compute(self) -> Tables:
        """What became of all that came into the block."""
        found = finish(*self.renamed, self.closed, parent=self.parent)
        if self.pieces:
            return Tables({"names": {"piece": found.old, "fragment": found.new, "until": found.until}})
        return Tables({"final": {"old": found.old, "new": found.new, "until": found.until}})


def part_of(box: Box, stored: Stored) -> Part:
    """What a block hands to its parent, from its tables."""
    nodes, alias = stored["nodes"], stored["alias"]
    return Part(
        box,
        Nodes(nodes["name"], nodes["volume"], nodes["low"], nodes["high"]),
        Rows.of_columns(stored["inner"]),
        Rows.of_columns(stored["outer"]),
        Alias(alias["node"], alias["name"], alias["low"], alias["high"]),
    )


def face_of(side: str, stored: Stored) -> Face:
    """The overlaps at a face of a block, from its tables."""
    overlap = stored[f"overlap_{side}"]
    return Face(stored[f"joined_{side}"]["bits"], overlap["size"], overlap["edges"])


def no_names() -> Final:
    """The parent of the highest block."""
    none = np.empty(0, np.uint64)
    return Final(none, none, np.empty(0, np.uint8))


def _high_faces(labels_ZYX: U64, internal: int) -> dict[str, Table]:
    sides = (side for side in faces.names_of(internal) if side in faces.HIGH)
    return {side: {"label": faces.slab(labels_ZYX, side).reshape(-1)} for side in sides}


def _sections(joined: Joined, rules: Rules) -> dict[str, Table]:
    part = joined.part
    nodes, alias = part.nodes, part.alias
    closed = closed_here(joined.closed, rules.roi, rules.block)
    return {
        "nodes": {"name": nodes.name, "volume": nodes.volume, "low": nodes.low, "high": nodes.high},
        "inner": part.inner.columns(),
        "outer": part.outer.columns(),
        "alias": {"node": alias.node, "name": alias.name, "low": alias.low, "high": alias.high},
        "remap": {"old": joined.old, "new": joined.new},
        "closed": {"name": closed.new, "until": closed.until},
    }


def _counts(joined: Joined) -> dict[str, int]:
    """Numbers for the receipt."""
    part = joined.part
    return {
        "nodes": part.nodes.name.size,
        "rows": part.inner.size + part.outer.size,
        "closed": joined.closed.name.size,
        "dust": joined.dust,
    }
