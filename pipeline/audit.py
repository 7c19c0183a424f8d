"""Proves the one answer on the user's own data, over a part of a finished run.

1. The region is made of whole blocks of the run, so that the run's block faces lie inside it.
2. Affinities: every block of codes that touches the region is computed once more and compared with the stored bytes.
3. Labels: the region, with the stored codes, is segmented as a volume of its own twice: as one block, and on the run's
   grid of blocks. Fragments and segments must be equal voxel by voxel.
4. If they are not, every block face inside the region is measured: pairs of voxels across it that one result joins and
   the other parts. This is what a method that is cut at blocks looks like.

The region is a problem of its own, not a crop of the run: at its border its labels may differ from the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig, parse
from pipeline.errors import CannotWork
from pipeline.geometry import AXES, Box, Grid, Index, Layer
from pipeline.plan import INTERPRETER_BYTES, Plan
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.borrowed_codes import BorrowedCodes
from pipeline.stages.classes import ClassVotes
from pipeline.stages.code_source import CodeSource
from pipeline.stages.contacts import Contacts
from pipeline.stages.cut import Cut
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.self_touch import SelfTouch
from pipeline.stages.stage import Site, Stage
from workers.block import BlockRef

U64 = NDArray[np.uint64]
AnyStage = Stage[Any, Any]
Tell = Callable[[str], None]

AFTER_FRAGMENTS = (RegionGraph, Contacts, ClassVotes, Agglomerate, Cut, SelfTouch, Relabel)


@dataclass(frozen=True)
class CodesCompared:
    """What computing the codes again gave."""

    blocks: int = 0
    edges: int = 0
    differing: int = 0
    largest: int = 0  # difference of two codes


@dataclass(frozen=True)
class Face:
    """A plane between blocks: pairs of voxels across it, and those that one result joins and the other parts."""

    axis: int
    position: int  # of the first voxel behind the plane
    pairs: int
    differing: int

    def __str__(self) -> str:
        return f"{AXES[self.axis]} = {self.position}: {self.differing:,} of {self.pairs:,} pairs of voxels differ"


@dataclass(frozen=True)
class Audit:
    """The findings."""

    region: Box
    codes: CodesCompared | None
    blocks: int  # of the run's grid in the region
    fragments: int
    segments: int
    differing_fragments_vx: int
    differing_segments_vx: int
    faces: tuple[Face, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether everything is equal."""
        same_codes = self.codes is None or not self.codes.differing
        return same_codes and not self.differing_fragments_vx and not self.differing_segments_vx


def audit(plan: Plan, region: Box, scratch: Path, *, recompute: bool = True, tell: Tell = lambda _: None) -> Audit:
    """Audit a region (of whole blocks) of a finished run; `scratch` is a folder for what is made on the way."""
    source = plan.stage(CodeSource)
    codes = None
    if recompute:
        tell("affinities: computing them again")
        codes = _compare_codes(source, region)
    shape = plan.config.blocks.shape
    grid = Grid(region, shape)
    z, y, x = (n * s for n, s in zip(grid.shape, shape, strict=True))
    results = []
    for name, block in (("one block", (z, y, x)), (f"{grid.count} blocks", shape)):
        tell(f"labels: as {name}")
        results.append(_segment(plan, region, block, scratch / name.replace(" ", "-")))
    (fragments, segments), (other_fragments, other_segments) = results
    differs = not np.array_equal(segments, other_segments)
    return Audit(
        region,
        codes,
        grid.count,
        _count(fragments),
        _count(segments),
        int(np.count_nonzero(fragments != other_fragments)),
        int(np.count_nonzero(segments != other_segments)),
        tuple(compare_faces(segments, other_segments, grid)) if differs else (),
    )


def whole_blocks(plan: Plan, box: Box | None) -> Box:
    """The blocks of the run that a box touches; without a box, two blocks along every axis in the middle."""
    grid = Grid(plan.layer.roi, plan.config.blocks.shape)
    if box is None:
        first = [max(0, n // 2 - 1) for n in grid.shape]
        chosen = [range(f, min(f + 2, n)) for f, n in zip(first, grid.shape, strict=True)]
        low, high = ([r[side] for r in chosen] for side in (0, -1))
    else:
        touched = list(grid.touching(box))
        if not touched:
            raise CannotWork(
                f"the region {box} lies outside the run's {plan.layer.roi}", way_out="choose one inside of it"
            )
        low, high = list(touched[0]), list(touched[-1])
    corner, end = grid.block_box((low[0], low[1], low[2])), grid.block_box((high[0], high[1], high[2]))
    return Box(corner.begin, end.end)


def compare_faces(one_ZYX: U64, other_ZYX: U64, grid: Grid) -> Iterator[Face]:
    """Every plane between blocks, the worst first."""
    faces = []
    for axis in range(3):
        for behind in range(grid.block[axis], grid.box.shape[axis], grid.block[axis]):
            joined = [_joined(labels, axis, behind) for labels in (one_ZYX, other_ZYX)]
            differing = int(np.count_nonzero(joined[0] != joined[1]))
            faces.append(Face(axis, grid.box.begin[axis] + behind, joined[0].size, differing))
    yield from sorted(faces, key=lambda face: -face.differing)


def _joined(labels_ZYX: U64, axis: int, behind: int) -> NDArray[np.bool_]:
    before, after = (labels_ZYX.take(position, axis) for position in (behind - 1, behind))
    return np.asarray((before == after) & (before != 0))


def _compare_codes(source: CodeSource[Any, Any], region: Box) -> CodesCompared:
    """Compute every block of codes that touches the region again."""
    blocks = edges = differing = largest = 0
    for ref in source.code_refs(region):
        box = source.code_grid.block_box(ref.index)
        again = source.compute(source.read(source.code_pass, ref.index)).codes_CZYX
        stored = source.affinities.read(box)
        apart = np.abs(again.astype(np.int32) - stored)
        blocks, edges, differing = blocks + 1, edges + apart.size, differing + int(np.count_nonzero(apart))
        largest = max(largest, int(apart.max()))
    return CodesCompared(blocks, edges, differing, largest)


def _segment(plan: Plan, region: Box, block: Index, data: Path) -> tuple[U64, U64]:
    """Fragments and segments of the region as a volume of its own, in this process."""
    summaries: dict[BlockRef, Mapping[str, Any]] = {}
    config = _recut(plan.config, block)
    layer = Layer(plan.layer.shape, region, plan.layer.voxel_size)
    site = Site(config, layer, plan.facts, data, (), summaries.__getitem__)
    stages: list[AnyStage] = [BorrowedCodes(site, plan.stage(CodeSource))]
    image = plan.find(Resample)  # stored already
    known = () if image is None else (image,)
    for kind in (type(plan.stage(FragmentSource)), *AFTER_FRAGMENTS):
        stages.append(kind(replace(site, before=(*known, *stages))))
    stages = [stage for stage in stages if stage.active]
    _refuse_beyond_memory(plan, stages)
    for stage in stages:
        stage.prepare()
        for sweep, index in _blocks(stage):
            if not stage.masked(sweep, index):
                written = stage.write(sweep, index, stage.compute(stage.read(sweep, index)))
                summaries[BlockRef(stage.task(sweep), index)] = written.summary
    fragments = next(s for s in stages if isinstance(s, FragmentSource))
    relabel = next(s for s in stages if isinstance(s, Relabel))
    return fragments.read_labels(region), relabel.read_segmentation(region)


def _recut(config: RunConfig, block: Index) -> RunConfig:
    """The config with other blocks, each one chunk."""
    data = config.model_dump()
    data["blocks"] = {"shape": block, "chunk": block}
    data["roi"] = None
    return parse(data, where="the run's config")


def _blocks(stage: AnyStage) -> Iterable[tuple[str, Index]]:
    return ((sweep.name, index) for sweep in stage.passes() for index in sweep.grid)


def _refuse_beyond_memory(plan: Plan, stages: list[AnyStage]) -> None:
    limit = int(plan.config.workers.cpu.memory_gb * 1e9)
    for stage in stages:
        needed = max(stage.memory_bytes(sweep.name) for sweep in stage.passes()) + INTERPRETER_BYTES["cpu"]
        if needed > limit:
            raise CannotWork(
                f"{stage.name} of the region needs up to {needed / 1e9:.2f} GB, a worker has {limit / 1e9:.2f} GB",
                where="audit",
                way_out="choose a smaller --roi, or raise workers.cpu.memory_gb",
            )


def _count(labels_ZYX: U64) -> int:
    return int(np.unique(labels_ZYX[labels_ZYX != 0]).size)
