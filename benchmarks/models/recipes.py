"""Post-processing of a volume in memory by every recipe that a run can be configured for, and its scores.

1. Edges to background, where a network knows it, are taken away as the stage predict does it.
2. Fragments: watershed between absolute thresholds, or between percentiles of all existing edges; the seeded watershed,
   section by section where sections are thick, on the tiles of the default config; the mutex watershed of the whole
   volume (mode "exact").
3. Segments: the fragments themselves, or fragments merged by the mean, the maximum or a quantile of their contact,
   at many thresholds.

The ops are those that a run calls block by block, and the labels are a run's, whatever its blocks. Codes and float32
affinities go the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.applied import Said
from models.spec import NEAREST
from pipeline.config import Seeded, parse
from pipeline.geometry import Box, Grid
from pipeline.ops.evaluate import pairs, scores
from pipeline.ops.mutex_watershed import mutex_watershed, named
from pipeline.ops.scores import Score
from pipeline.ops.sweep import Point
from pipeline.ops.thresholds import FULL_SCALE, absolute_codes, percentile_codes
from pipeline.ops.volume_sweep import graph_of, merge_fragments
from pipeline.ops.whole_volume import watershed_volume

U64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(2, 20))  # 0.1 to 0.95
BACKGROUND = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
THICK = 2.0  # sections are thick from this ratio of z to y on


@dataclass(frozen=True)
class Choice:
    """The parameters of one segmentation; None where a method has no such parameter."""

    method: Literal["watershed", "percentile", "seeded", "mutex"]
    low: float | None = None
    high: float | None = None
    size_vx: int | None = None
    flat: bool | None = None
    inside: float | None = None
    background: float | None = None
    dust_vx: int | None = None
    score: Literal["mean", "max", "quantile"] | None = None
    quantile: int | None = None
    threshold: float | None = None

    @property
    def told(self) -> str:
        """For tables; what makes the score is in the recipe's name."""
        named_already = ("score",)
        given = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in named_already)
        return ", ".join(str(v) if n == "method" else f"{n} {v:g}" for n, v in given if v is not None)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections of a run's config that do the same; what is None there is left out."""
        told: dict[str, dict[str, Any]] = {"fragments": {}, "predict": {"background_threshold": self.background}}
        if self.method in ("watershed", "percentile"):
            kind = "absolute" if self.method == "watershed" else "percentile"
            own = {
                "method": "watershed",
                "thresholds": kind,
                "low": self.low,
                "high": self.high,
                "size_vx": self.size_vx,
            }
        elif self.method == "seeded":
            own, told["seeded"] = {"method": "seeded"}, {"flat": self.flat, "threshold": self.inside}
        else:
            own = {"method": "mutex_watershed"}
            told["mutex_watershed"] = {"mode": "exact", "low": self.low, "dust_vx": self.dust_vx}
        told["fragments"] = own
        told["agglomerate"] = {"score": self.score or "none", "quantile": self.quantile}
        told["relabel"] = {"threshold": self.threshold}
        given = {name: {k: v for k, v in section.items() if v is not None} for name, section in told.items()}
        return {name: section for name, section in given.items() if section}

    @classmethod
    def of_sections(cls, sections: Mapping[str, Mapping[str, Any]], background: float | None) -> Choice:
        """What sections of a run's config say, such as a recipe that is stored with weights; `background` if they do
        not say it."""
        given = {name: section for name, section in sections.items() if name != "tuned"}
        config = parse({"input": {"synthetic": {}}, **given}, where="a recipe")
        own, cut = config.fragments, config.agglomerate
        ground = config.predict.background_threshold or background
        if own.method == "watershed":
            kind: Any = "percentile" if own.thresholds == "percentile" else "watershed"
            choice = cls(kind, own.low, own.high, own.size_vx, background=ground)
        elif own.method == "seeded":
            choice = cls("seeded", flat=config.seeded.flat, inside=config.seeded.threshold, background=ground)
        elif own.method == "mutex_watershed" and config.mutex_watershed.mode == "exact":
            choice = cls("mutex", config.mutex_watershed.low, dust_vx=config.mutex_watershed.dust_vx, background=ground)
        else:
            raise SystemExit(f"a recipe with fragments by {own.method} on tiles is not scored here: run it")
        if cut.score == "none":
            return choice
        quantile = cut.quantile if cut.score == "quantile" else None
        return replace(choice, score=cut.score, quantile=quantile, threshold=config.relabel.threshold)

    @property
    def fragments(self) -> Choice:
        """The same without what is done to fragments."""
        return replace(self, score=None, quantile=None, threshold=None)


@dataclass(frozen=True)
class Recipe:
    """A way to segments: fragments by any of these, merged by any of these scores; without a score they stay."""

    name: str
    cuts: tuple[Choice, ...]
    scores: tuple[Score, ...] = ()


def recipes(*, background: bool, far: bool, thick: bool, quick: bool = False) -> list[Recipe]:
    """Every recipe with its grid; the mutex watershed needs far edges, and background where the network knows it."""
    sizes = (0, 150) if thick else (0, 600)
    ground = 0.6 if background else None
    absolute = product(("watershed",), (0.02, 0.1), (0.9, 0.99, 0.999), sizes)
    cuts = [Choice("watershed", low, high, size, background=ground) for _, low, high, size in absolute]
    cuts += [Choice("percentile", 0.01, 0.99, size, background=ground) for size in sizes]
    seeded = [Choice("seeded", flat=thick, inside=inside, background=ground) for inside in (0.3, 0.5, 0.7)]
    quantiles = tuple(Score("quantile", q) for q in (25, 50, 75))
    found = [
        Recipe("watershed + mean", tuple(cuts), (Score("mean"),)),
        Recipe("watershed + max", tuple(cuts), (Score("max"),)),
        Recipe("watershed + quantile", tuple(cuts), quantiles),
        Recipe("seeded + median", tuple(seeded), (Score("quantile", 50),)),
    ]
    if far:
        grounds: Sequence[float | None] = BACKGROUND if background else (None,)
        mutex = [Choice("mutex", 0.02, background=g, dust_vx=dust) for g, dust in product(grounds, (0, 50, 200))]
        found += [Recipe("mutex", tuple(mutex)), Recipe("mutex + mean", tuple(mutex), (Score("mean"),))]
    if quick:
        found = [replace(recipe, cuts=recipe.cuts[:1], scores=recipe.scores[:1]) for recipe in found]
    return found


def is_thick(voxel_size_nm: tuple[float, float, float]) -> bool:
    """Whether sections are to be looked at one by one."""
    return voxel_size_nm[0] >= THICK * voxel_size_nm[1]


# ---- segments ------------------------------------------------------------------------------------------------------
def every_score(
    said: Said, truth_ZYX: U64, wanted: Sequence[Recipe], voxel_size_nm: tuple[float, float, float]
) -> Iterator[tuple[str, Choice, Point]]:
    """The measures of every recipe at every parameter; fragments are made once."""
    for cut in dict.fromkeys(cut for recipe in wanted for cut in recipe.cuts):
        fragments_ZYX, values_CZYX = fragments(said, cut, voxel_size_nm)
        users = [recipe for recipe in wanted if cut in recipe.cuts]
        merging = [recipe for recipe in users if recipe.scores]
        histograms = any(score.name == "quantile" for recipe in merging for score in recipe.scores)
        graph = None
        if merging:
            graph = graph_of(fragments_ZYX, values_CZYX[:3], said.code_table, histograms=histograms)
        for recipe in users:
            if not recipe.scores or graph is None:
                yield recipe.name, cut, measure(truth_ZYX, fragments_ZYX)
            for score in recipe.scores if graph is not None else ():
                done = merge_fragments(fragments_ZYX, graph, floor=THRESHOLDS[0], score=score)
                quantile = score.quantile if score.name == "quantile" else None
                for point in done.scores(truth_ZYX, THRESHOLDS):
                    told = replace(cut, score=score.name, quantile=quantile, threshold=point.threshold)
                    yield recipe.name, told, point


def segment(said: Said, choice: Choice, voxel_size_nm: tuple[float, float, float]) -> U64:
    """The labels of one choice."""
    fragments_ZYX, values_CZYX = fragments(said, choice.fragments, voxel_size_nm)
    if choice.score is None or choice.threshold is None:
        return fragments_ZYX
    graph = graph_of(fragments_ZYX, values_CZYX[:3], said.code_table, histograms=choice.score == "quantile")
    score = Score(choice.score, choice.quantile or 50)
    return merge_fragments(fragments_ZYX, graph, floor=choice.threshold, score=score).segments(choice.threshold)


def measure(truth_ZYX: U64, labels_ZYX: U64) -> Point:
    """The measures of labels, those whose truth is 0 left out."""
    told: dict[str, Any] = scores(pairs(truth_ZYX, labels_ZYX))
    return Point(0.0, int(told["segments"] or 0), *(told[name] for name in ("voi_split", "voi_merge", "voi", "arand")))


# ---- fragments -----------------------------------------------------------------------------------------------------
def fragments(said: Said, cut: Choice, voxel_size_nm: tuple[float, float, float]) -> tuple[U64, NDArray[Any]]:
    """Fragments of one choice, and the values without edges to background."""
    values_CZYX, exists_CZYX = foreground(said, cut.background)
    if cut.method == "mutex":
        return _mutex(said, values_CZYX, cut), values_CZYX
    if cut.method == "seeded":
        return _seeded(said, values_CZYX[:3], cut, voxel_size_nm), values_CZYX
    low, high = _limits(said, values_CZYX[:3], exists_CZYX, cut)
    nearest = np.ascontiguousarray(values_CZYX[:3])
    return watershed_volume(nearest, low, high, cut.size_vx or 0, 0), values_CZYX


def foreground(said: Said, threshold: float | None) -> tuple[NDArray[Any], Bool]:
    """Values without edges to background, and which of the nearest edges exist at all."""
    values_CZYX = np.array(said.values_CZYX)
    exists_CZYX = np.ones((len(NEAREST), *values_CZYX.shape[1:]), np.bool_)
    for axis in range(3):
        np.moveaxis(exists_CZYX[axis], axis, 0)[0] = False  # leaves the volume
    if said.background_ZYX is None or threshold is None:
        return values_CZYX, exists_CZYX
    if said.code_table is None:
        absent = said.background_ZYX >= np.float32(threshold)
    else:
        absent = said.code_table[said.background_ZYX] >= round(threshold * FULL_SCALE)
    exists_CZYX[:, absent] = False
    for axis in range(3):
        np.moveaxis(exists_CZYX[axis], axis, 0)[1:][np.moveaxis(absent, axis, 0)[:-1]] = False
    values_CZYX[:3][~exists_CZYX] = 0
    values_CZYX[3:, absent] = 0
    return values_CZYX, exists_CZYX


def _limits(said: Said, nearest_CZYX: NDArray[Any], exists_CZYX: Bool, cut: Choice) -> tuple[float, float]:
    """Low and high in the numbers of the array."""
    low, high = float(cut.low or 0), float(cut.high or 1)
    if cut.method == "percentile":
        if said.code_table is not None:
            return percentile_codes(np.bincount(nearest_CZYX[exists_CZYX], minlength=256), low, high)
        found = np.quantile(nearest_CZYX[exists_CZYX], (low, high), method="inverted_cdf")
        return float(found[0]), float(found[1])
    return (low, high) if said.code_table is None else absolute_codes(said.code_table, low, high)


def _seeded(said: Said, nearest_CZYX: NDArray[Any], cut: Choice, voxel_size_nm: tuple[float, float, float]) -> U64:
    from pipeline.ops.seeded import seeded_watershed
    from pipeline.ops.tiles import tiled

    settings = Seeded()
    decoded = np.rint(said.shares(nearest_CZYX) * FULL_SCALE).astype(np.uint16)
    box = Box.of_shape(decoded.shape[1:])
    method = partial(
        seeded_watershed, threshold=cut.inside or settings.threshold, flat=bool(cut.flat), voxel_size_nm=voxel_size_nm
    )
    return tiled(decoded, box, box, tiles=Grid(box, settings.tile), halo=settings.halo, method=method)


def _mutex(said: Said, values_CZYX: NDArray[Any], cut: Choice) -> U64:
    """Foreground is what has a nearest edge above `low`; fragments with fewer voxels than `dust_vx` are background."""
    table = None if said.code_table is None else said.code_table.copy()
    low = float(cut.low or 0)
    if table is not None:
        low, _ = absolute_codes(table, low, 1.0)
        table[0] = 0
    strong = values_CZYX[:3] > low
    inside_ZYX: Bool = np.any(strong, axis=0)
    for axis in range(3):
        np.moveaxis(inside_ZYX, axis, 0)[:-1] |= np.moveaxis(strong[axis], axis, 0)[1:]
    numbers_ZYX, _ = mutex_watershed(
        values_CZYX, said.offsets, attractive=len(NEAREST), code_table=table, mask_ZYX=inside_ZYX
    )
    labels_ZYX, names, volumes = named(numbers_ZYX, (0, 0, 0))
    if cut.dust_vx:
        labels_ZYX[np.isin(labels_ZYX, names[volumes < cut.dust_vx])] = 0
    return labels_ZYX
