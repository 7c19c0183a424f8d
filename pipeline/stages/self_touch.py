"""Self-touch: segments that are one object which touches itself are merged (ops/segment_pairs.py, ops/self_touch.py).

A round has these passes. `up0` .. `upL` count at how many places segments touch, from the contacts of fragments and the
names that the merge tree gives them; a pair is a row of the section `candidates` of the block, of whatever level, where
all of it is known. `decide` compares mean embeddings around the point of every candidate in a block. `unite` is one
block: it takes the decisions together, applies the guards, and says what segments become. Later rounds do the same with
the segments of the round before; their passes are `up0_2` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Grid, Index, VoxelSize
from pipeline.ops.candidate_views import COLUMNS, OTHER, Views, stacked
from pipeline.ops.patches import see, sides
from pipeline.ops.relabel import rename
from pipeline.ops.segment_pairs import Part, Reach, Stored, leaf
from pipeline.ops.self_touch import Candidates, Guard, in_order
from pipeline.stages.classes import ClassVotes
from pipeline.stages.contacts import Contacts
from pipeline.stages.cut import Cut
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.judge import Judge
from pipeline.stages.resample import BLOCKS, Resample
from pipeline.stages.self_touch_work import Count, Decide, Unite, part_of
from pipeline.stages.stage import Pass, Stage
from pipeline.stages.tabular import (
    EDGES_PER_FRAGMENT,
    FRAGMENTS_PER_VOXEL,
    Tables,
    TabularStage,
    Work,
    faces_between,
    faces_to_join,
)
from workers.block import BlockRef

U64 = NDArray[np.uint64]
Names = tuple[U64, U64]
ONLY: Index = (0, 0, 0)
DECIDE, UNITE, UP = "decide", "unite", "up"

CONTACT_BYTES = 900  # a contact while names are looked up and places joined, and its ten adjacent pairs
SURFACE_BYTES = 120  # a surface voxel of the children of a higher block: pairs, places and names that went up
STORED_SURFACE_BYTES = 24
CANDIDATES_PER_VOXEL = 1e-4  # assumed by estimates; published: 0.7e-6
DECISION_BYTES = 400  # a row while all are united
VIEW_COPIES = 4  # of views while they are made and stored
IMAGE_COPIES = 6  # of the image around a block: fine, coarse, what reading copies


class SelfTouch(TabularStage):
    """From contacts and the names of segments to segments that are merged."""

    name = "self_touch"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """If the config asks for it."""
        return self.site.config.self_touch.enabled

    def pool_of(self, sweep: str) -> Literal["cpu", "gpu"]:
        """Decisions are the network's."""
        return "gpu" if _kind(sweep) == DECIDE else "cpu"

    def device_class(self, sweep: str) -> str | None:
        """The device that the network runs on in this process, where it runs."""
        if _kind(sweep) != DECIDE:
            return None
        from models.engine import device_class

        return device_class(self.site.config.predict.device)

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """Contacts, fragments, what cuts the tree and knows classes if there is anything, and the image."""
        also = tuple(stage for stage in (self._cut, self._votes) if stage is not None and stage.active)
        return (self._contacts, self._fragments, self._resample, *also)

    def content(self) -> dict[str, Any]:
        """The network, thresholds and guards, and where the layer and its region end."""
        config, layer = self.site.config, self.site.layer
        keys = ("theta_self_contact", "theta_d", "min_contact_edges", "min_voxels", "rounds")
        guards = {"largest_vx": config.guards.largest_vx, "one_class": self._votes is not None}
        where = {"layer": layer.shape, "roi": [layer.roi.begin, layer.roi.end]}
        told = {key: getattr(config.self_touch, key) for key in keys}
        return {"weights": self._judge.identity, **told, **guards, **where}

    def passes(self) -> tuple[Pass, ...]:
        """Up the levels, decisions block by block, and all of them together; for every round."""
        if not self.active:
            return ()
        _ = self._judge  # refuses what cannot work
        one_round = [(f"up{level}", grid) for level, grid in enumerate(self.grids)]
        one_round += [(DECIDE, self.grids[0]), (UNITE, Grid(self.site.layer.roi, self.site.layer.roi.shape))]
        return tuple(Pass(_pass(kind, r), grid) for r in self._rounds for kind, grid in one_round)

    def masked(self, sweep: str, index: Index) -> bool:
        """Where there are no contacts. A point may lie where there are none, so decisions are left out only if there
        are no contacts anywhere."""
        level = _level(sweep)
        return self._contacts.empty(len(self.grids) - 1, ONLY) if level is None else self._contacts.empty(level, index)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """Contacts, names and children; candidates, image and labels; or all decisions and what guards ask."""
        refs, level = self.united_refs(_round(sweep) - 1), _level(sweep)
        if _kind(sweep) == DECIDE:
            refs += [ref for _, ref in self._candidate_refs(sweep, index)] + self._around_refs(index)
        elif _kind(sweep) == UNITE:
            decide = self.task(_pass(DECIDE, _round(sweep)))
            refs += [BlockRef(decide, block) for block in self.grids[0]]
            refs += self._guard_refs()
        elif level is not None:
            refs.append(BlockRef(self._contacts.task(f"up{level}"), index))
            if level:
                refs += [BlockRef(self.task(self._below(sweep)), child) for child in self._children(sweep, index)]
            else:
                refs += [ref for block in self._contacts.mentioned(index) for ref in self._cut_refs(block)]
        return list(dict.fromkeys(refs))

    # ---- the work ----------------------------------------------------------------------------------------------
    def read(self, sweep: str, index: Index) -> Work:
        """Fetch what a block needs."""
        if _kind(sweep) == DECIDE:
            return self._read_candidates(sweep, index)
        if _kind(sweep) == UNITE:
            return self._read_decisions(sweep)
        level = _level(sweep) or 0
        box, stored = self.box(sweep, index), Stored(*self._contacts.stored(level, index))
        if level:
            below, children = self._below(sweep), self._children(sweep, index)
            parts = tuple(part_of(self.tables(below, child), self.box(below, child)) for child in children)
        else:
            parts = (self._leaf(sweep, index, stored),)
        config = self.site.config.self_touch
        threshold = round(config.theta_self_contact * 1000)
        return Count(parts, stored, box, level, config.min_contact_edges, threshold)

    def compute(self, inputs: Work) -> Tables:
        """Call the op; decisions ask the network."""
        return inputs.compute_with(self._judge) if isinstance(inputs, Decide) else inputs.compute()

    def _leaf(self, sweep: str, index: Index, stored: Stored) -> Part:
        """The names that a block's contacts may mention, and who reaches its faces."""
        nodes = self._contacts.nodes(index)
        rows = (stored.closed.a, stored.closed.b, stored.growing.a, stored.growing.b)
        fragment = np.unique(np.concatenate([nodes["name"], *rows]))
        renames = [self._cut_names(block) for block in self._contacts.mentioned(index)]
        segment = _renamed(fragment, [*renames, self.united(_round(sweep) - 1)])
        own = segment[np.searchsorted(fragment, nodes["name"])]
        return leaf(self.box(sweep, index), (fragment, segment), Reach(own, nodes["mask"], nodes["until"]))

    def _read_candidates(self, sweep: str, index: Index) -> Decide:
        config, judge = self.site.config.self_touch, self._judge
        found = in_order(
            [self._candidates(name, ref.index) for name, ref in self._candidate_refs(sweep, index)]
        ).inside(self.box(sweep, index))
        rules = (config.theta_d, config.min_voxels, config.batch, _round(sweep))
        if not found.size:
            return Decide(found, None, (), (), *rules)
        points = [(z, y, x) for z, y, x in found.point.tolist()]
        patches = tuple(judge.coarse.around(point, judge.patch) for point in points)
        image = see(judge.coarse, list(patches), lambda box: np.asarray(self._resample.image.read(box), np.uint8))
        labels = _Labels(self, self.united(_round(sweep) - 1))
        sections = tuple(judge.coarse.around(point, judge.section) for point in points)
        windows, shown = [], []
        for point, section, *pair in zip(points, sections, found.s1.tolist(), found.s2.tolist(), strict=True):
            window, both = judge.coarse.around(point, judge.window), (pair[0], pair[1])
            windows.append(sides(judge.coarse, window, both, labels.read))
            shown.append(sides(judge.coarse, section, both, labels.read, other=OTHER))
        return Decide(found, image, patches, tuple(windows), *rules, sections, tuple(shown))

    def _candidates(self, sweep: str, index: Index) -> Candidates:
        return Candidates.of_columns(self.tables(sweep, index, "candidates")["candidates"])

    def _read_decisions(self, sweep: str) -> Unite:
        decide = _pass(DECIDE, _round(sweep))
        stored = tuple(self.tables(decide, block, "decisions")["decisions"] for block in self.grids[0])
        before = self.united(_round(sweep) - 1)
        found = Unite(stored, before, Guard(self.site.config.guards.largest_vx, {}, {}))
        return replace(found, guard=self._guard(found.accepted, before))

    def _guard(self, accepted: U64, before: Names) -> Guard:
        """Voxels and classes of segments, as far as guards ask: from the tables of all blocks, one after the other."""
        largest_vx, voxels, kinds = self.site.config.guards.largest_vx, dict[int, int](), dict[int, int]()
        for index in self._guarded:
            if not accepted.size:
                break
            nodes, kind = self._contacts.nodes(index), None
            segment = _renamed(nodes["name"], [self._cut_names(index), before])
            if self._votes is not None and not self._fragments.empty(0, index):
                kind = self._votes.read_classes(index).of(nodes["name"])
            for row in np.flatnonzero(np.isin(segment, accepted)).tolist():
                name = int(segment[row])
                voxels[name] = voxels.get(name, 0) + int(nodes["volume"][row])
                if kind is not None and kind[row]:
                    kinds[name] = max(kinds.get(name, 0), int(kind[row]))  # the merge tree has kept classes apart
        return Guard(largest_vx, voxels, kinds)

    # ---- what others read --------------------------------------------------------------------------------------
    def united_refs(self, number: int | None = None) -> list[BlockRef]:
        """The block that says what segments become after a round; by default after all. None after round 0."""
        last = self._rounds[-1] if number is None else number
        task = _pass(UNITE, last)
        return [] if last == 0 or self.masked(task, ONLY) else [BlockRef(self.task(task), ONLY)]

    def united(self, number: int | None = None) -> Names:
        """What segments become after a round: old (ascending), new."""
        if not self.united_refs(number):
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        found = self.tables(_pass(UNITE, self._rounds[-1] if number is None else number), ONLY, "final")["final"]
        return found["old"], found["new"]

    def decisions(self) -> dict[str, NDArray[Any]]:
        """Every candidate of every round and what became of it, by (round, s1, s2)."""
        rounds = [r for r in self._rounds if self.united_refs(r)]
        tables = [self.tables(_pass(UNITE, r), ONLY, "decisions")["decisions"] for r in rounds]
        return {name: np.concatenate([table[name] for table in tables]) for name in (tables[0] if tables else {})}

    def decision_refs(self) -> list[BlockRef]:
        """The blocks that hold the decisions of all rounds."""
        return [ref for number in self._rounds for ref in self.united_refs(number)]

    def views(self, table: Mapping[str, NDArray[Any]], rows: NDArray[np.integer]) -> Views:
        """What there is to see of some of the decisions."""
        shape_YX, found = self._judge.section[1:], [Views.none(self._judge.section[1:])]
        for row in rows.tolist():
            place = (int(table["z"][row]), int(table["y"][row]), int(table["x"][row]))
            block = next(iter(self.grids[0].touching(Box(place, (place[0] + 1, place[1] + 1, place[2] + 1)))))
            stored = self.tables(_pass(DECIDE, int(table["round"][row])), block, "decisions", "views")
            own = (stored["decisions"]["s1"] == table["s1"][row]) & (stored["decisions"]["s2"] == table["s2"][row])
            found.append(Views.of_columns(stored["views"], shape_YX).take(np.flatnonzero(own)))
        return stacked(found)

    @property
    def voxel_size(self) -> VoxelSize:
        """The voxels in which windows and views are."""
        return self._judge.voxel_size

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """By contacts in a block, by the surface above; the image around a block and a batch; or all candidates."""
        level, box = _level(sweep), self.box(sweep, ONLY)
        if level is not None:
            if level:
                return SURFACE_BYTES * faces_to_join(self.grids[level - 1]) + (1 << 20)
            return int(CONTACT_BYTES * EDGES_PER_FRAGMENT * FRAGMENTS_PER_VOXEL * box.voxels) + (1 << 20)
        if _kind(sweep) == UNITE:
            return int(DECISION_BYTES * CANDIDATES_PER_VOXEL * self.site.layer.roi.voxels) + (1 << 20)
        seen = self._seen(box, self._judge.patch)
        shown = VIEW_COPIES * self._view_bytes * CANDIDATES_PER_VOXEL * box.voxels
        return IMAGE_COPIES * seen.voxels + self._judge.working_bytes + int(shown)

    def stored_bytes(self) -> int:
        """What every level hands up, the decisions, twice, and their views."""
        if not self.active:
            return 0
        surfaces = STORED_SURFACE_BYTES * sum(faces_between(grid) for grid in self.grids)
        return len(self._rounds) * int(
            surfaces + (3 * 88 + self._view_bytes) * CANDIDATES_PER_VOXEL * self.site.layer.roi.voxels
        )

    @property
    def _view_bytes(self) -> int:
        _, height, width = self._judge.section
        return len(COLUMNS) * height * width

    # ---- where things are --------------------------------------------------------------------------------------
    @cached_property
    def _contacts(self) -> Contacts:
        return self.site.find(Contacts)

    @cached_property
    def _fragments(self) -> FragmentSource:
        return self.site.find(FragmentSource)

    @cached_property
    def _resample(self) -> Resample:
        return self.site.find(Resample)

    @cached_property
    def _cut(self) -> Cut:
        return self.site.find(Cut)

    @cached_property
    def _votes(self) -> ClassVotes | None:
        """The stage that says what class a fragment has, if that matters."""
        votes = self.site.find(ClassVotes)
        return votes if votes.active and self.site.config.guards.conflicting_classes else None

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.site)

    @property
    def _rounds(self) -> range:
        return range(1, self.site.config.self_touch.rounds + 1)

    @property
    def _guarded(self) -> list[Index]:
        """The blocks whose fragments guards must know."""
        if not self.site.config.guards.largest_vx and self._votes is None:
            return []
        return [index for index in self.grids[0] if not self._contacts.empty(0, index)]

    def _guard_refs(self) -> list[BlockRef]:
        refs = []
        for index in self._guarded:
            refs += [BlockRef(self._contacts.task("up0"), index), *self._cut_refs(index)]
            refs += [] if self._votes is None else self._votes.class_refs(index)
        return refs

    def _cut_refs(self, index: Index) -> list[BlockRef]:
        return self._cut.name_refs(index)

    def _cut_names(self, index: Index) -> Names:
        return self._cut.names(index)

    def _candidate_refs(self, sweep: str, index: Index) -> list[tuple[str, BlockRef]]:
        """The blocks of all levels that a block lies in: a pair's contacts all lie where it is complete."""
        z, y, x = index
        found = []
        for level in range(len(self.grids)):
            name, above = _pass(f"up{level}", _round(sweep)), (z >> level, y >> level, x >> level)
            if not self.masked(name, above):
                found.append((name, BlockRef(self.task(name), above)))
        return found

    def _around_refs(self, index: Index) -> list[BlockRef]:
        """The image and the labels that a decision in a block may look at."""
        box = self.grids[0].block_box(index)
        refs = list(self._resample.refs(BLOCKS, self._seen(box, self._judge.patch)))
        looked_at = np.maximum(self._judge.window, self._judge.section).tolist()
        for block in self.grids[0].touching(self._seen(box, (looked_at[0], looked_at[1], looked_at[2]))):
            refs += [*self._fragments.label_refs(block), *self._cut_refs(block)]
        return refs

    def _seen(self, box: Box, extent: Index) -> Box:
        """What patches of an extent show whose points lie in a box, in voxels of the layer."""
        z, y, x = ((n + 1) * f for n, f in zip(extent, self._judge.coarse.factor, strict=True))
        return box.grow((z, y, x)).clip(self.site.layer.box)

    def _below(self, sweep: str) -> str:
        return _pass(f"up{(_level(sweep) or 0) - 1}", _round(sweep))

    def _children(self, sweep: str, index: Index) -> list[Index]:
        return self._contacts.children(_level(sweep) or 0, index)


@dataclass(frozen=True)
class _Labels:
    """Segments, read from fragments and names."""

    stage: SelfTouch
    before: Names

    def read(self, box: Box) -> U64:
        """Labels of a box of the layer; 0 beyond the region of interest and in empty blocks."""
        stage, labels_ZYX = self.stage, np.zeros(box.shape, np.uint64)
        for index in stage.grids[0].touching(box):
            part = stage.grids[0].block_box(index).clip(box)
            found_ZYX = stage._fragments.read_labels(part)
            labels_ZYX[part.slices(box.begin)] = _renamed(found_ZYX, [stage._cut_names(index), self.before])
        return labels_ZYX


def _renamed(labels: U64, tables: list[Names]) -> U64:
    """Labels renamed by one table after the other."""
    for old, new in tables:
        labels = rename(labels, old, new)
    return labels


def _pass(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}_{number}"


def _kind(sweep: str) -> str:
    return sweep.partition("_")[0]


def _round(sweep: str) -> int:
    return int(sweep.partition("_")[2] or 1)


def _level(sweep: str) -> int | None:
    """The level of a pass up; None for the others."""
    return int(_kind(sweep).removeprefix(UP)) if sweep.startswith(UP) else None
