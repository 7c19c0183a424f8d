"""Contacts: connected places where two fragments touch, level by level (ops/contacts.py, ops/contact_join.py).

`up0` finds the contacts of every block; `up1` .. `upL` join those that go on beyond faces, edges and corners. A contact
is a row of the section `contacts` of the block, of whatever level, where it is complete, and a pair of adjacent ones
stands in `adjacency` where both are: all tables together are the answer, and nothing has to come back down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops import faces
from pipeline.ops.contact_join import Joined, Part, join
from pipeline.ops.contact_table import Adjacency, ContactRows, stack
from pipeline.ops.contacts import contacts
from pipeline.ops.grow import Grown, grown_block, halo
from pipeline.ops.region_graph import Place, lasting, nodes
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import (
    EDGES_PER_FRAGMENT,
    FRAGMENTS_PER_VOXEL,
    Tables,
    TabularStage,
    faces_between,
    faces_to_join,
)
from pipeline.tables import Table
from workers.block import BlockRef

VOXEL_BYTES = 28  # codes, labels, renamed labels
GROWN_BYTES = 48  # labels before and after a step, the nearest ones, and what they are compared by
CONTACT_BYTES = 1200  # a contact and its ten adjacent pairs while they are collected and sorted
STORED_CONTACT_BYTES = 18 * 8 + 10 * 16
NODE_BYTES = 18
SHELL_BYTES = 200  # a surface voxel of the children of a higher block: its entries, contacts, waiting pairs
STORED_SHELL_BYTES = 40


@dataclass(frozen=True)
class _Block:
    """A block's fragments and codes, and the fragments across its low faces."""

    labels_ZYX: NDArray[np.uint64]
    codes_CZYX: NDArray[Any]
    before: Mapping[str, faces.Slab]
    code_table: NDArray[np.integer]
    place: Place
    internal: int
    names: Mapping[str, NDArray[Any]]  # of pieces and fragments
    grown: Grown | None = None

    def compute(self) -> Tables:
        found = contacts(
            self.labels_ZYX,
            self.codes_CZYX,
            self.before,
            code_table=self.code_table,
            place=self.place,
            internal=self.internal,
            grown_ZYX=None if self.grown is None else self.grown.edges_ZYX,
        )
        made = _tables(found)
        return Tables({**made.sections, "nodes": self._nodes()}, made.summary)

    def _nodes(self) -> Table:
        """The block's fragments: voxels before they grew, faces reached, the level at which they are complete."""
        here = nodes(self.labels_ZYX, self.internal)
        until, volume = np.zeros(here.name.size, np.uint8), here.volume
        if "until" in self.names:
            until = lasting(here.name, self.names["fragment"], self.names["until"])
        if self.grown is not None:
            own = nodes(self.grown.own_ZYX, 0)
            volume = np.zeros_like(here.volume)
            volume[np.searchsorted(here.name, own.name)] = own.volume
        return {"name": here.name, "mask": here.mask, "until": until, "volume": volume}


@dataclass(frozen=True)
class _Join:
    """What the children of a block hand up."""

    children: tuple[Part, ...]
    box: Box
    internal: int

    def compute(self) -> Tables:
        return _tables(join(self.children, self.box, internal=self.internal))


class Contacts(TabularStage):
    """From fragments and codes to contacts and their adjacency."""

    name = "contacts"
    schema = 2
    storage = 2

    @cached_property
    def graph(self) -> RegionGraph:
        """The stage that reads the same: its inputs are those of level 0 here."""
        return self.site.find(RegionGraph)

    @property
    def fragments(self) -> FragmentSource:
        """The stage that made the fragments."""
        return self.graph.fragments

    @property
    def active(self) -> bool:
        """If the config asks for contacts, or for what is made of them."""
        return self.site.config.contacts.enabled or self.site.config.self_touch.enabled

    @property
    def steps(self) -> int:
        """How far segments grow first."""
        return self.site.config.contacts.expand_xy

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Fragments and codes."""
        return (self.fragments, self.fragments.codes)

    def content(self) -> dict[str, Any]:
        """What codes mean, and the layer's extent, which numbers voxels in names; whatever else pairs carry."""
        told = {name: value for name, value in self.graph.content().items() if name != "histograms"}
        return {**told, "expand_xy": self.steps} if self.steps else told

    def passes(self) -> tuple[Pass, ...]:
        """One a level, up."""
        return tuple(Pass(f"up{level}", grid) for level, grid in enumerate(self.grids)) if self.active else ()

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no fragments, and none can grow to."""
        return self.empty(_level(sweep), index)

    def empty(self, level: int, index: Index) -> bool:
        """Whether a block of a level has no contacts for want of fragments in it, or as near as they grow."""
        near = self.grids[level].block_box(index).grow((0, self.steps, self.steps)).clip(self.site.layer.roi)
        return not any(True for _ in self.fragments.codes.code_refs(near))

    def children(self, level: int, index: Index) -> list[Index]:
        """The blocks of the level below that make up a block and are not empty."""
        return [child for child in self.grids[level - 1].children(index) if not self.empty(level - 1, child)]

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """What the region graph of a block needs, or the children."""
        level = _level(sweep)
        if level == 0:
            return self._needs_grown(index) if self.steps else self.graph.needs("blocks", index)
        return [BlockRef(self.task(f"up{level - 1}"), child) for child in self.children(level, index)]

    def _needs_grown(self, index: Index) -> list[BlockRef]:
        """The fragments of the blocks around, and the block's own codes."""
        near = self.grids[0].touching(self._seen(index))
        refs = [ref for block in near for ref in self.fragments.label_refs(block)]
        return [*refs, *self.fragments.codes.code_refs(self.box("up0", index))]

    def _seen(self, index: Index) -> Box:
        return self.box("up0", index).grow(*halo(self.steps)).clip(self.site.layer.roi)

    def read(self, sweep: str, index: Index) -> _Block | _Join:
        """Voxels at level 0, the children's tables above."""
        level = _level(sweep)
        if level == 0:
            return self._read_grown(index) if self.steps else self._read_block(index)
        children = tuple(self._part(level - 1, child) for child in self.children(level, index))
        return _Join(children, self.box(sweep, index), self.grids[level].internal_faces(index))

    def _read_block(self, index: Index) -> _Block:
        given = self.graph.read("blocks", index)
        labels_ZYX, codes_CZYX, place = given.labels_ZYX, given.codes_CZYX, given.place
        return _Block(labels_ZYX, codes_CZYX, given.before, given.code_table, place, given.internal, given.names)

    def _read_grown(self, index: Index) -> _Block:
        box, seen, fragments = self.box("up0", index), self._seen(index), self.fragments
        grown = grown_block(fragments.read_labels(seen), seen, box, self.steps)
        place, internal = Place(box.begin, self.site.layer.shape), self.grids[0].internal_faces(index)
        names: Mapping[str, NDArray[Any]] = {}
        if not fragments.empty(0, index):
            names = fragments.tables(fragments.name_pass, index, "names")["names"]
        codes_CZYX, code_table = fragments.codes.read_codes(box), fragments.codes.code_table
        return _Block(grown.labels_ZYX, codes_CZYX, grown.before, code_table, place, internal, names, grown)

    def _part(self, level: int, index: Index) -> Part:
        sweep = f"up{level}"
        stored = self.tables(sweep, index, "open", "shell", "waiting")
        shell = stored["shell"]
        return Part(
            self.box(sweep, index),
            ContactRows.of_columns(stored["open"]),
            shell["voxel"],
            shell["row"],
            Adjacency.of_columns(stored["waiting"]),
        )

    # ---- for the stages that follow ----------------------------------------------------------------------------
    def stored(self, level: int, index: Index) -> tuple[ContactRows, Adjacency, ContactRows, Adjacency]:
        """What is final in a block of a level, contacts and pairs, and what goes up from it."""
        found = self.tables(f"up{level}", index, "contacts", "adjacency", "open", "waiting")
        closed, growing = (ContactRows.of_columns(found[section]) for section in ("contacts", "open"))
        final, waiting = (Adjacency.of_columns(found[section]) for section in ("adjacency", "waiting"))
        return closed, final, growing, waiting

    def mentioned(self, index: Index) -> list[Index]:
        """The blocks of level 0 whose fragments a block's contacts may mention."""
        if self.steps:
            return list(self.grids[0].touching(self._seen(index)))
        return [index, *(before for _, before in self.graph.before(index))]

    def nodes(self, index: Index) -> Table:
        """The fragments in a block of level 0, as large as they are grown."""
        return self.tables("up0", index, "nodes")["nodes"]

    def read_all(self) -> tuple[ContactRows, Adjacency]:
        """All contacts of the volume and their adjacency: the final rows of every block of every level."""
        rows, pairs = [], []
        for sweep in self.passes():
            for index in sweep.grid:
                if not self.masked(sweep.name, index):
                    stored = self.tables(sweep.name, index, "contacts", "adjacency")
                    rows.append(ContactRows.of_columns(stored["contacts"]))
                    pairs.append(Adjacency.of_columns(stored["adjacency"]))
        none = np.empty(0, np.uint64)
        first, second = (np.concatenate([none, *(getattr(p, side) for p in pairs)]) for side in ("first", "second"))
        return stack(rows), Adjacency(first, second)

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By voxels at level 0, by the faces of the children above."""
        level = _level(sweep)
        if level == 0:
            voxels = self.box(sweep, (0, 0, 0)).voxels
            grown = GROWN_BYTES * self.box(sweep, (0, 0, 0)).grow(*halo(self.steps)).voxels if self.steps else 0
            return grown + int(voxels * (VOXEL_BYTES + CONTACT_BYTES * FRAGMENTS_PER_VOXEL * EDGES_PER_FRAGMENT))
        return SHELL_BYTES * faces_to_join(self.grids[level - 1])

    def stored_bytes(self) -> int:
        """Contacts with their adjacent pairs, and what every level hands up."""
        if not self.active:
            return 0
        rows = FRAGMENTS_PER_VOXEL * EDGES_PER_FRAGMENT * self.site.layer.roi.voxels
        shells = sum(faces_between(grid) for grid in self.grids)
        fragments = NODE_BYTES * FRAGMENTS_PER_VOXEL * self.site.layer.roi.voxels
        return int(STORED_CONTACT_BYTES * rows + STORED_SHELL_BYTES * shells + fragments)


def _tables(found: Joined) -> Tables:
    part = found.part
    sections: dict[str, Table] = {
        "contacts": found.closed.columns(),
        "adjacency": found.adjacency.columns(),
        "open": part.contacts.columns(),
        "shell": {"voxel": part.shell_voxel, "row": part.shell_row},
        "waiting": part.waiting.columns(),
    }
    counts = {"contacts": found.closed.size, "adjacent": found.adjacency.size}
    return Tables(sections, {**counts, "open": part.contacts.size, "waiting": part.waiting.size})


def _level(sweep: str) -> int:
    return int(sweep.removeprefix("up"))
