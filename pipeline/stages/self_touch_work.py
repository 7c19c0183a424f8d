"""What a block of self_touch works on: counting pairs, deciding on candidates, uniting segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.candidate_views import Views, stacked, views
from pipeline.ops.contact_table import ContactRows
from pipeline.ops.patches import Seen
from pipeline.ops.segment_pairs import PairRows, Part, Reach, Stored, step
from pipeline.ops.self_touch import APART, MERGE, Candidates, Guard, after, candidates, decide, unite
from pipeline.stages.tabular import Tables
from pipeline.tables import Table

if TYPE_CHECKING:
    from models.mean_embeddings import Judged
    from pipeline.stages.judge import Judge

U64 = NDArray[np.uint64]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Count:
    """What the children of a chunk hand up, and its own contacts."""

    children: tuple[Part, ...]
    stored: Stored
    box: Box
    level: int
    least_edges: int
    threshold: int

    def compute(self) -> Tables:
        """The candidates that are final, and what goes up."""
        found = step(self.children, self.stored, self.box, level=self.level, least_edges=self.least_edges)
        part, chosen = found.part, candidates(found.final, threshold=self.threshold)
        sections: dict[str, Table] = {
            "candidates": chosen.columns(),
            "pairs": part.pairs.columns(),
            "places": part.places.columns(),
            "waiting": {"contact": part.contact, "place": part.place},
            "names": {"fragment": part.fragment, "segment": part.segment},
            "reach": {"segment": part.reach.segment, "mask": part.reach.mask, "until": part.reach.until},
        }
        left = {"open": part.pairs.size, "places": part.places.size}
        return Tables(sections, {"pairs": found.final.size, "candidates": chosen.size, **left})


def part_of(stored: Mapping[str, dict[str, NDArray[Any]]], box: Box) -> Part:
    """What a block of a lower level hands up."""
    names, reach, waiting = stored["names"], stored["reach"], stored["waiting"]
    return Part(
        box,
        names["fragment"],
        names["segment"],
        Reach(reach["segment"], reach["mask"], reach["until"]),
        PairRows.of_columns(stored["pairs"]),
        ContactRows.of_columns(stored["places"]),
        waiting["contact"],
        waiting["place"],
    )


@dataclass(frozen=True)
class Decide:
    """The candidates of a block, the image that they show, and whose voxels are whose around them."""

    candidates: Candidates
    image: Seen | None
    patches: tuple[Box, ...]
    sides: tuple[NDArray[np.uint8], ...]
    theta_d: float
    least_voxels: int
    batch: int
    round: int
    sections: tuple[Box, ...] = ()  # what is shown of the candidates
    shown: tuple[NDArray[np.uint8], ...] = ()  # whose voxels are whose in them

    def compute(self) -> Tables:
        """Nothing is decided without a network."""
        raise LookupError("decisions are made with a network")

    def compute_with(self, judge: Judge) -> Tables:
        """Compare, a batch at a time, and decide; what there is to see is kept beside the decisions."""
        count = self.candidates.size
        voxels, distance = np.zeros((count, 2), np.int64), np.full(count, np.nan)
        seen = [Views.none(judge.section[1:])]
        for start in range(0, count, self.batch):
            here = slice(start, start + self.batch)
            found, image = self._judged(judge, here)
            voxels[here], distance[here] = found.voxels, found.distance
            drawn = [image.patch(section)[0] for section in self.sections[here]]
            seen.append(views(np.stack(drawn), np.stack(self.shown[here])[:, 0], found.sections_NDYX))
        decision = decide(voxels, distance, largest=self.theta_d, least_voxels=self.least_voxels)
        table: Table = {
            **self.candidates.columns(),
            "voxels_1": voxels[:, 0].copy(),
            "voxels_2": voxels[:, 1].copy(),
            "distance": distance,
            "decision": decision,
            "round": np.full(count, self.round, np.uint8),
        }
        sections = {"decisions": table, "views": stacked(seen).columns()}
        return Tables(sections, {"candidates": count, "accepted": int((decision == MERGE).sum())})

    def _judged(self, judge: Judge, here: slice) -> tuple[Judged, Seen]:
        from models.mean_embeddings import Candidate

        if self.image is None:
            raise LookupError("there is nothing to decide")
        pairs = zip(self.patches[here], self.sides[here], strict=True)
        return judge.judge([Candidate(self.image.patch(patch), sides) for patch, sides in pairs]), self.image


@dataclass(frozen=True)
class Unite:
    """The decisions of all blocks, what segments became before, and what guards must know."""

    decisions: Sequence[Columns]
    before: tuple[U64, U64]
    guard: Guard

    @property
    def _rows(self) -> dict[str, NDArray[Any]]:
        rows = {name: np.concatenate([part[name] for part in self.decisions]) for name in self.decisions[0]}
        order = np.lexsort((rows["s2"], rows["s1"]))
        return {name: column[order] for name, column in rows.items()}

    @property
    def accepted(self) -> U64:
        """The segments of which something may be merged."""
        rows = self._rows
        merged = rows["decision"] == MERGE
        return np.unique(np.concatenate([rows["s1"][merged], rows["s2"][merged]]))

    def compute(self) -> Tables:
        """Every decision, as it holds, and what segments become by this round and those before."""
        rows = self._rows
        decided, united = unite(rows["s1"], rows["s2"], rows["distance"], rows["decision"], self.guard)
        old, new = after(self.before, united)
        counts = np.bincount(decided, minlength=4).tolist()
        told = {"merged": united[0].size, "apart": counts[APART], "abstained": counts[2], "refused": counts[3]}
        sections: dict[str, Table] = {
            "final": {"old": old, "new": new},
            "decisions": {**rows, "decision": decided},
        }
        return Tables(sections, {"candidates": decided.size, **told})
