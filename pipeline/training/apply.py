"""A held-out volume as weights see it, and its scores under any run's settings: the answer of a run, in memory.

Codes come from the engine once. From there on the settings of a run's config decide: background is taken out as
`predict` does it, then fragments are made and merged by the ops that the stages call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.spec import NEAREST, WeightsSpec
from pipeline.config import RunConfig
from pipeline.geometry import Box, Grid, Index
from pipeline.ops.affinities import reach
from pipeline.ops.evaluate import pairs
from pipeline.ops.evaluate import scores as measure
from pipeline.ops.mutex_scan import Strengths, voxel_names
from pipeline.ops.mutex_watershed import mutex_watershed
from pipeline.ops.predict import keep_existing_edges
from pipeline.ops.scores import Score
from pipeline.ops.sweep import Point
from pipeline.ops.thresholds import FULL_SCALE, absolute_codes
from pipeline.ops.volume_sweep import Segmented, fragments_of, merges_of
from pipeline.training.judge import Runtime, embeds
from pipeline.training.volumes import Opened

if TYPE_CHECKING:
    from torch import nn

U64 = NDArray[np.uint64]
MEASURED = ("voi_split", "voi_merge", "voi", "arand")


@dataclass(frozen=True)
class Held:
    """What weights say about a held-out volume, and its truth."""

    name: str
    codes_CZYX: NDArray[np.uint8]
    background_ZYX: NDArray[np.uint8] | None
    truth_ZYX: U64
    offsets: tuple[Index, ...]

    @property
    def labelled(self) -> int:
        """Voxels that are scored."""
        return int(np.count_nonzero(self.truth_ZYX))

    @property
    def box(self) -> Box:
        """The whole volume."""
        z, y, x = self.truth_ZYX.shape
        return Box.of_shape((z, y, x))


def look_at(name: str, network: nn.Module, spec: WeightsSpec, volume: Opened, runtime: Runtime) -> Held:
    """Apply weights to a volume."""
    from models.engine import predict_volume
    from models.levels import Manner

    whole = ((0, 0, 0), volume.image.shape)
    image_ZYX, truth_ZYX = volume.image.read(*whole).astype(np.uint8), volume.truth.read(*whole).astype(np.uint64)
    manner = Manner(offsets="all" if embeds(spec) else "nearest")
    answer = predict_volume(network, spec, image_ZYX, device=runtime.device, threads=runtime.threads, manner=manner)
    return Held(name, answer.codes_CZYX, answer.background_ZYX, truth_ZYX, manner.edges(spec))


def scores(held: Held, spec: WeightsSpec, config: RunConfig, thresholds: Sequence[float]) -> list[Point]:
    """The scores of a run with these settings, at every threshold; a single point if it makes no merge tree."""
    if config.agglomerate.score == "none":
        labels_ZYX = mutexed(held, spec, config)
        told: dict[str, Any] = measure(pairs(held.truth_ZYX, labels_ZYX))
        return [Point(0.0, int(told["segments"] or 0), *(told[name] for name in MEASURED))]
    return segmented(held, spec, config).scores(held.truth_ZYX, thresholds)


def segmented(held: Held, spec: WeightsSpec, config: RunConfig) -> Segmented:
    """Fragments by watershed or from seeds, and their merge tree."""
    codes_CZYX, own, cut = nearest_codes(held, spec, config), config.fragments, config.agglomerate
    if cut.score == "none":
        raise ValueError("without agglomeration there is no merge tree")
    if own.method == "seeded":
        fragments_ZYX = _seeded(codes_CZYX, spec, config)
    else:
        limits = {"low": own.low, "high": own.high}
        fragments_ZYX = fragments_of(codes_CZYX, spec.code_table, size_vx=own.size_vx, **limits)
    score = Score(cut.score, cut.quantile)
    return merges_of(fragments_ZYX, codes_CZYX, spec.code_table, floor=cut.floor, score=score)


def mutexed(held: Held, spec: WeightsSpec, config: RunConfig) -> U64:
    """The exact mutex watershed's labels."""
    table, settings = np.asarray(spec.code_table), config.mutex_watershed
    codes_CZYX = without_background(held, spec, config)
    low, _ = absolute_codes(table, settings.low, 1.0)
    inside_ZYX = voxel_names(Strengths.of_codes(codes_CZYX, table, low), held.box, held.box, held.box) != 0
    numbers_ZYX, _ = mutex_watershed(
        codes_CZYX,
        held.offsets,
        attractive=settings.attractive,
        code_table=table,
        strides=settings.strides,
        mask_ZYX=inside_ZYX,
    )
    return numbers_ZYX.astype(np.uint64)


def nearest_codes(held: Held, spec: WeightsSpec, config: RunConfig) -> NDArray[np.uint8]:
    """Codes of the nearest edges that exist."""
    return np.ascontiguousarray(without_background(held, spec, config)[: len(NEAREST)])


def without_background(held: Held, spec: WeightsSpec, config: RunConfig) -> NDArray[np.uint8]:
    """The codes as `predict` stores them: no nearest edge leads to background."""
    share = config.predict.background_threshold
    if held.background_ZYX is None or share is None:
        return held.codes_CZYX
    codes_CZYX = held.codes_CZYX.copy()
    is_background = np.asarray(spec.code_table)[held.background_ZYX] >= round(share * FULL_SCALE)
    around = list(zip(*reach(held.offsets), strict=True))
    absent = np.pad(np.zeros(is_background.shape, np.bool_), around, constant_values=True)
    keep_existing_edges(codes_CZYX, absent, held.offsets, np.pad(is_background, ((1, 0),) * 3))
    return codes_CZYX


def _seeded(codes_CZYX: NDArray[np.uint8], spec: WeightsSpec, config: RunConfig) -> U64:
    from pipeline.ops.seeded import seeded_watershed
    from pipeline.ops.tiles import tiled

    own, size_nm = config.seeded, spec.voxel_size_nm
    method = partial(seeded_watershed, threshold=own.threshold, flat=own.flat, voxel_size_nm=size_nm)
    decoded_CZYX = np.asarray(spec.code_table, np.uint16)[codes_CZYX]
    z, y, x = codes_CZYX.shape[1:]
    whole = Box.of_shape((z, y, x))
    return tiled(decoded_CZYX, whole, whole, tiles=Grid(whole, own.tile), halo=own.halo, method=method)
