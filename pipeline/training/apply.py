"""What weights say about a volume in memory, and the answer of a run to it under any settings.

1. Values come from the engine once: codes, or for comparison float32 affinities of 0 to 1, which have no code table.
2. Edges to background, where the weights know it, are taken away as `predict` does it.
3. Fragments: watershed between absolute thresholds or percentiles of all edges that exist, the seeded watershed on its
   tiles, or the exact mutex watershed.
4. Segments: the fragments themselves, or what the merge tree makes of them at a threshold.

The ops are those that stages call block by block, and the labels are a run's, whatever its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.spec import NEAREST, WeightsSpec
from pipeline.config import RunConfig, parse
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Grid, Index
from pipeline.ops.evaluate import pairs
from pipeline.ops.evaluate import scores as measure
from pipeline.ops.mutex_watershed import mutex_watershed, named
from pipeline.ops.scores import Score
from pipeline.ops.sweep import Point
from pipeline.ops.thresholds import FULL_SCALE, absolute_codes, percentile_codes
from pipeline.ops.volume_sweep import Segmented, graph_of, merge_fragments
from pipeline.ops.whole_volume import watershed_volume
from pipeline.recipes import TUNED
from pipeline.training.volumes import Opened

if TYPE_CHECKING:
    from torch import nn

U64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]
MEASURED = ("voi_split", "voi_merge", "voi", "arand")


@dataclass(frozen=True)
class Said:
    """Edges of a volume as codes, or as float32 affinities (then there is no table); background likewise, if known."""

    values_CZYX: NDArray[Any]
    background_ZYX: NDArray[Any] | None
    offsets: tuple[Index, ...]
    code_table: NDArray[np.int64] | None
    voxel_size_nm: tuple[float, float, float]

    @property
    def box(self) -> Box:
        """The whole volume."""
        z, y, x = self.values_CZYX.shape[1:]
        return Box.of_shape((z, y, x))

    def shares(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values as affinities of 0 to 1."""
        if self.code_table is None:
            return np.asarray(values, np.float32)
        table: NDArray[np.float32] = self.code_table.astype(np.float32) / np.float32(FULL_SCALE)
        return np.asarray(table[values], np.float32)


@dataclass(frozen=True)
class Held:
    """A held-out volume: what weights say about it, and its truth."""

    name: str
    said: Said
    truth_ZYX: U64

    @property
    def labelled(self) -> int:
        """Voxels that are scored."""
        return int(np.count_nonzero(self.truth_ZYX))


@dataclass(frozen=True)
class Runtime:
    """Where networks are applied."""

    device: str = "cpu"
    threads: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"  # of the trunk


def embeds(spec: WeightsSpec) -> bool:
    """Whether the network says vectors."""
    return "embedding" in spec.network.heads


def say(network: nn.Module, spec: WeightsSpec, image_ZYX: NDArray[np.uint8], runtime: Runtime) -> Said:
    """What a network says about an image: of an embedding all edges of the metric graph, else the nearest."""
    from models.engine import predict_volume
    from models.levels import Manner

    manner = Manner(offsets="all" if embeds(spec) else "nearest", precision=runtime.precision)
    answer = predict_volume(network, spec, image_ZYX, device=runtime.device, threads=runtime.threads, manner=manner)
    table = np.asarray(spec.code_table, np.int64)
    return Said(answer.codes_CZYX, answer.background_ZYX, manner.edges(spec), table, spec.voxel_size_nm)


def look_at(name: str, network: nn.Module, spec: WeightsSpec, volume: Opened, runtime: Runtime) -> Held:
    """Apply weights to a volume."""
    whole = ((0, 0, 0), volume.image.shape)
    image_ZYX, truth_ZYX = volume.image.read(*whole).astype(np.uint8), volume.truth.read(*whole).astype(np.uint64)
    return Held(name, say(network, spec, image_ZYX, runtime), truth_ZYX)


def run_with(recipe: Mapping[str, Any]) -> RunConfig:
    """The run that the sections of a recipe describe, on no volume in particular."""
    sections = {name: section for name, section in recipe.items() if name != TUNED}
    return parse({"input": {"synthetic": {}}, **sections}, where="a recipe")


# ---- segments ------------------------------------------------------------------------------------------------------
def scores(held: Held, config: RunConfig, thresholds: Sequence[float]) -> list[Point]:
    """The scores of a run with these settings at every threshold; a single point if it makes no merge tree."""
    if config.agglomerate.score == "none":
        return [scored(held.truth_ZYX, labels(held.said, config))]
    return segmented(held.said, config).scores(held.truth_ZYX, thresholds)


def scored(truth_ZYX: U64, labels_ZYX: U64) -> Point:
    """The measures of labels; voxels whose truth is 0 are left out."""
    told: dict[str, Any] = measure(pairs(truth_ZYX, labels_ZYX))
    return Point(0.0, int(told["segments"] or 0), *(told[name] for name in MEASURED))


def labels(said: Said, config: RunConfig) -> U64:
    """The labels of a run with these settings."""
    if config.agglomerate.score == "none":
        return _fragments(said, *restricted(said, config.predict.background_threshold), config)
    return segmented(said, config).segments(config.relabel.threshold)


def segmented(said: Said, config: RunConfig) -> Segmented:
    """Fragments and their merge tree."""
    cut = config.agglomerate
    if cut.score == "none":
        raise ValueError("without agglomeration there is no merge tree")
    values_CZYX, exists_CZYX = restricted(said, config.predict.background_threshold)
    fragments_ZYX = _fragments(said, values_CZYX, exists_CZYX, config)
    nearest_CZYX = np.ascontiguousarray(values_CZYX[: len(NEAREST)])
    graph = graph_of(fragments_ZYX, nearest_CZYX, said.code_table, histograms=cut.score == "quantile")
    return merge_fragments(fragments_ZYX, graph, floor=cut.floor, score=Score(cut.score, cut.quantile))


def restricted(said: Said, threshold: float | None) -> tuple[NDArray[Any], Bool]:
    """Values without edges to background, and which of the nearest edges exist at all."""
    exists_CZYX = np.ones((len(NEAREST), *said.box.shape), np.bool_)
    for axis in range(3):
        np.moveaxis(exists_CZYX[axis], axis, 0)[0] = False  # leaves the volume
    if said.background_ZYX is None or threshold is None:
        return said.values_CZYX, exists_CZYX
    if said.code_table is None:
        absent_ZYX = said.background_ZYX >= np.float32(threshold)
    else:
        absent_ZYX = said.code_table[said.background_ZYX] >= round(threshold * FULL_SCALE)
    exists_CZYX[:, absent_ZYX] = False
    for axis in range(3):
        np.moveaxis(exists_CZYX[axis], axis, 0)[1:][np.moveaxis(absent_ZYX, axis, 0)[:-1]] = False
    values_CZYX = said.values_CZYX.copy()
    values_CZYX[: len(NEAREST)][~exists_CZYX] = 0
    values_CZYX[len(NEAREST) :, absent_ZYX] = 0
    return values_CZYX, exists_CZYX


# ---- fragments -----------------------------------------------------------------------------------------------------
def _fragments(said: Said, values_CZYX: NDArray[Any], exists_CZYX: Bool, config: RunConfig) -> U64:
    method = config.fragments.method
    nearest_CZYX = np.ascontiguousarray(values_CZYX[: len(NEAREST)])
    if method == "watershed":
        limits = _limits(said, nearest_CZYX, exists_CZYX, config)
        return watershed_volume(nearest_CZYX, *limits, config.fragments.size_vx, config.fragments.dust_vx)
    if method == "seeded":
        return _seeded(said, nearest_CZYX, config)
    if method == "mutex_watershed" and config.mutex_watershed.mode == "exact":
        return _mutex(said, values_CZYX, config)
    raise ConfigError(
        f"fragments by {method} on tiles are not made in memory", where="fragments.method", way_out="run the config"
    )


def _limits(said: Said, nearest_CZYX: NDArray[Any], exists_CZYX: Bool, config: RunConfig) -> tuple[float, float]:
    """Low and high in the numbers of the values."""
    low, high = config.fragments.low, config.fragments.high
    if config.fragments.thresholds == "percentile":
        existing = nearest_CZYX[exists_CZYX]
        if said.code_table is not None:
            return percentile_codes(np.bincount(existing, minlength=said.code_table.size), low, high)
        first, last = np.quantile(existing, (low, high), method="inverted_cdf")
        return float(first), float(last)
    return (low, high) if said.code_table is None else absolute_codes(said.code_table, low, high)


def _seeded(said: Said, nearest_CZYX: NDArray[Any], config: RunConfig) -> U64:
    from pipeline.ops.seeded import seeded_watershed
    from pipeline.ops.tiles import tiled

    own = config.seeded
    method = partial(seeded_watershed, threshold=own.threshold, flat=own.flat, voxel_size_nm=said.voxel_size_nm)
    decoded_CZYX = np.rint(said.shares(nearest_CZYX) * FULL_SCALE).astype(np.uint16)
    return tiled(decoded_CZYX, said.box, said.box, tiles=Grid(said.box, own.tile), halo=own.halo, method=method)


def _mutex(said: Said, values_CZYX: NDArray[Any], config: RunConfig) -> U64:
    """Foreground is what has a nearest edge above `low`."""
    settings, low, table = config.mutex_watershed, config.mutex_watershed.low, said.code_table
    if table is not None:
        low, _ = absolute_codes(table, low, 1.0)
        table = table.copy()
        table[0] = 0  # code 0 is no edge
    strong = values_CZYX[: len(NEAREST)] > low
    inside_ZYX: Bool = np.any(strong, axis=0)
    for axis in range(3):
        np.moveaxis(inside_ZYX, axis, 0)[:-1] |= np.moveaxis(strong[axis], axis, 0)[1:]
    numbers_ZYX, _ = mutex_watershed(
        values_CZYX,
        said.offsets,
        attractive=settings.attractive,
        code_table=table,
        strides=settings.strides,
        mask_ZYX=inside_ZYX,
    )
    labels_ZYX, names, volumes = named(numbers_ZYX, (0, 0, 0))
    if settings.dust_vx:
        labels_ZYX[np.isin(labels_ZYX, names[volumes < settings.dust_vx])] = 0
    return labels_ZYX
