"""The report's figures: two cuts through the middle of the region of interest, each with every stage's result.

1. A cut is one voxel thick and at most WINDOW voxels wide: however large the volume, only this strip is read.
2. It is read block by block, and only blocks whose receipts hold. Everything else is hatched, and the caption says
   why; a picture without any block to show is replaced by the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import pictures
from pipeline.geometry import AXES, Box, Grid, Index, VoxelSize
from pipeline.ops.embedding_colours import embedding_colours
from pipeline.outcome import Outcome
from pipeline.pages import text
from pipeline.pictures import Plane, Rgb
from pipeline.png import rgb_uri
from pipeline.stages.code_source import NEAREST_CHANNELS, CodeSource
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Stage
from pipeline.work import Survey
from workers.errors import WorkError

WINDOW = 1024
BLOCKS = "blocks"  # the pass in which each of these stages writes its voxels
TIMES = "\u00d7"
PATCHWISE = "PCA to RGB, every patch by itself: white lines are seams of patches, no boundaries; background is black"
REASON_LENGTH = 160
SCALE_SHARE = 0.3  # a scale bar is at most this share of the width

STYLE = """
.cuts{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:20px 18px;margin:16px 0 34px}
.cuts figure{margin:0;grid-column:span 3}.cuts .third{grid-column:span 2}
.shot{position:relative}.shot img{display:block;width:100%;height:auto;border-radius:4px;background:var(--empty)}
.shot .scale{--back:rgba(16,18,22,.66);position:absolute;left:14px;bottom:14px;border-bottom:3px solid #fff;
color:#fff;font-size:12px;line-height:1.5;text-align:center;white-space:nowrap;background:var(--back);
box-shadow:0 0 0 6px var(--back)}
.cuts figcaption{margin-top:7px}.cuts figcaption b{color:var(--ink);font-weight:600}
@media(max-width:720px){.cuts figure,.cuts .third{grid-column:span 6}}
"""

Read = Callable[[Box], NDArray[Any]]
AnyStage = Stage[Any, Any]


@dataclass(frozen=True)
class Cut:
    """A plane through the volume: a box that is one voxel thick along `axis`."""

    box: Box
    axis: int
    voxel_size: VoxelSize

    @property
    def axes(self) -> tuple[int, int]:
        """The axis that runs down and the one that runs to the right."""
        down, right = (axis for axis in range(3) if axis != self.axis)
        return down, right

    @property
    def size_nm(self) -> tuple[float, float]:
        """Height and width."""
        down, right = (self.box.shape[axis] * self.voxel_size.nm[axis] for axis in self.axes)
        return down, right

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        down, right = self.axes
        nm = self.voxel_size.nm
        return pictures.picture_shape((self.box.shape[down], self.box.shape[right]), (nm[down], nm[right]))

    def __str__(self) -> str:
        down, right = self.axes
        height, width = (length(side) for side in self.size_nm)
        return f"{AXES[right]}{AXES[down]} at {AXES[self.axis]} = {self.box.begin[self.axis]}: {width} {TIMES} {height}"


@dataclass(frozen=True)
class Taken:
    """What was read of a cut, and where nothing could be."""

    plane: Plane  # any leading axes, then down, right
    missing: NDArray[np.bool_]
    why: str


def figures(outcome: Outcome) -> str:
    """HTML of all figures."""
    layer = outcome.plan.layer
    return "".join(_row(outcome, cut) for cut in cuts(layer.roi, layer.voxel_size))


def cuts(roi: Box, voxel_size: VoxelSize) -> tuple[Cut, Cut]:
    """The middle section, and a cut across the sections that is no higher than wide."""
    window = _middle(roi, (1, WINDOW, WINDOW))
    width_nm = window.shape[2] * voxel_size.nm[2]
    layers = min(WINDOW, max(1, int(width_nm / voxel_size.nm[0])))
    return Cut(window, 0, voxel_size), Cut(_middle(roi, (layers, 1, WINDOW)), 1, voxel_size)


def _middle(roi: Box, limit: Index) -> Box:
    size = [min(most, extent) for most, extent in zip(limit, roi.shape, strict=True)]
    z, y, x = (b + (extent - s) // 2 for b, extent, s in zip(roi.begin, roi.shape, size, strict=True))
    return Box((z, y, x), (z + size[0], y + size[1], x + size[2]))


def take(
    cut: Cut,
    grid: Grid,
    read: Read,
    *,
    survey: Survey | None = None,
    channels: int | None = None,
    dtype: str | None = None,
) -> Taken:
    """Read the blocks of a cut that are current; without a survey, all that can be read."""
    lead = () if channels is None else (channels,)
    values = np.zeros((*lead, *cut.box.shape), dtype or (np.uint64 if channels is None else np.uint16))
    missing = np.ones(cut.box.shape, bool)
    reasons: dict[str, None] = {}  # an ordered set
    for index in grid.touching(cut.box):
        piece = grid.block_box(index).clip(cut.box)
        why = "" if survey is None else _why_not(survey, index)
        if not why:
            try:
                values[(..., *piece.slices(cut.box.begin))] = read(piece)
                missing[piece.slices(cut.box.begin)] = False
            except WorkError as error:
                why = error.what[:REASON_LENGTH]
        if why:
            reasons[why] = None
    return Taken(values.squeeze(axis=len(lead) + cut.axis), missing.squeeze(axis=cut.axis), ", ".join(reasons))


def _why_not(survey: Survey, index: Index) -> str:
    """Why a block has nothing to show; nothing if it has."""
    if index in survey.current:
        return "masked" if index in survey.masked else ""
    return "failed" if index in survey.failed else "not done"


# ---- one cut -------------------------------------------------------------------------------------------------------
def _row(outcome: Outcome, cut: Cut) -> str:
    shown = list(_panels(outcome, cut))
    small = 3 if len(shown) in (5, 7) else 0  # three small ones, then the others in pairs; otherwise all alike
    told = "".join(_figure(cut, panel, kind="third" if n < small else "half") for n, panel in enumerate(shown))
    return f'<h3>{text(cut)}</h3><div class="cuts">{told}</div>'


@dataclass(frozen=True)
class Panel:
    """One picture of a cut, or the reason why there is none."""

    name: str
    explained: str
    taken: Taken
    draw: Callable[[Plane], Rgb]  # from a plane at the size of the picture


def _panels(outcome: Outcome, cut: Cut) -> Iterator[Panel]:
    """Every stage's result."""
    plan = outcome.plan
    resample, source, relabel = plan.find(Resample), plan.stage(CodeSource), plan.stage(Relabel)
    code_table = source.code_table
    codes = _of_stage(outcome, cut, source, lambda box: source.read_codes(box), channels=NEAREST_CHANNELS)
    down, right = cut.axes
    if resample is None:  # labels are laid over the affinities then
        small = pictures.nearest(codes.plane, cut.shape_px)
        grey_YX = pictures.least_affinity(small, code_table, (down, right))[..., 0]
    else:
        image = _of_stage(outcome, cut, resample, lambda box: resample.image.read(box))
        grey_YX = pictures.averaged(image.plane, cut.shape_px)
        yield Panel("Image", "", image, lambda _: pictures.grey(grey_YX))

    lesser = f"the lesser affinity of {AXES[right]} and {AXES[down]}: dark where a membrane is seen"
    yield Panel("Affinities", "along x red, y green, z blue", codes, lambda p: pictures.affinities(p, code_table))
    yield Panel("Boundaries", lesser, codes, lambda p: pictures.least_affinity(p, code_table, (down, right)))

    predict = plan.find(Predict)
    if predict is not None and predict.knows_background:
        mask = _of_stage(outcome, cut, predict, lambda box: predict.background.read(box))
        explained = f"its probability: white from {predict.background_threshold:g} on"
        yield Panel("Background", explained, mask, lambda p: pictures.background(p, code_table, predict.level))
        if predict.vector_channels:
            yield _embedding(outcome, cut, predict, code_table[mask.plane.astype(np.intp)] < predict.level)

    labels = _of_stage(outcome, cut, relabel, lambda box: relabel.labels.read(box))
    yield Panel("Segmentation", "one colour per segment", labels, lambda p: pictures.overlay(grey_YX, p))
    if plan.facts["truth"] is not None:
        evaluate = plan.stage(Evaluate)
        truth = take(cut, evaluate.sweep(BLOCKS).grid, evaluate.read_truth)
        matched = pictures.matching_colours(truth.plane, labels.plane)
        alike = "an object has the colour of its segment if each is the other's best match in this cut"
        yield Panel("Truth", alike if matched else "", truth, lambda p: pictures.overlay(grey_YX, p, matched))


def _embedding(outcome: Outcome, cut: Cut, predict: Predict, foreground_YX: NDArray[np.bool_]) -> Panel:
    """The stored vectors, each patch's own part in colours of its own."""
    taken = _of_stage(
        outcome,
        cut,
        predict,
        lambda box: predict.vectors.read(box),
        channels=predict.vector_channels,
        dtype="float16",
    )
    parts_YX = predict.vector_patches(cut.box).squeeze(axis=cut.axis)
    shown_YX = foreground_YX & taken.plane.any(axis=0)  # where there is no vector there are zeros
    colours = replace(taken, plane=embedding_colours(taken.plane, shown_YX, parts_YX))
    seams = pictures.nearest(parts_YX, cut.shape_px)
    return Panel("Embedding", PATCHWISE, colours, lambda p: pictures.seamed(np.moveaxis(p, 0, 2), seams))


def _of_stage(
    outcome: Outcome,
    cut: Cut,
    stage: AnyStage,
    read: Read,
    *,
    channels: int | None = None,
    dtype: str | None = None,
) -> Taken:
    survey = outcome.surveys.get(stage.task(BLOCKS))
    return take(cut, stage.sweep(BLOCKS).grid, read, survey=survey, channels=channels, dtype=dtype)


def _figure(cut: Cut, panel: Panel, *, kind: str) -> str:
    missing, why = panel.taken.missing, panel.taken.why or "nothing lies here"
    told = [panel.explained] if panel.explained else []
    if missing.all():
        picture = f'<p class="soft">not available: {text(why)}</p>'
    else:
        told += [f"hatched: {why}"] if missing.any() else []
        drawn = panel.draw(pictures.nearest(panel.taken.plane, cut.shape_px))
        picture = _shot(cut, panel.name, pictures.hatched(drawn, pictures.nearest(missing, cut.shape_px)))
    caption = "".join(f" · {text(one)}" for one in told)
    return f'<figure class="{kind}">{picture}<figcaption><b>{text(panel.name)}</b>{caption}</figcaption></figure>'


def _shot(cut: Cut, name: str, drawn: Rgb) -> str:
    """A picture with a scale bar, which grows and shrinks with it."""
    height, width = cut.shape_px
    bar_nm = scale_nm(cut.size_nm[1])
    return (
        f'<div class="shot"><img alt="{text(name)}, {text(cut)}" width="{width}" height="{height}" '
        f'src="{rgb_uri(drawn)}">'
        f'<span class="scale" style="width:{100 * bar_nm / cut.size_nm[1]:.3f}%">{length(bar_nm)}</span></div>'
    )


def scale_nm(width_nm: float) -> float:
    """The largest of 1, 2, 5, 10, ... nm that fits a share of the width."""
    limit = width_nm * SCALE_SHARE
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step for step in (1, 2, 5) if step * power <= limit) * power)


def length(nm: float) -> str:
    """A length as people say it."""
    for per, unit in ((1e6, "mm"), (1e3, "µm")):
        if nm >= per:
            return f"{nm / per:.3g} {unit}"
    return f"{nm:.3g} nm"
