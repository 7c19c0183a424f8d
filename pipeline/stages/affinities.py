"""affinities: codes from affinities made elsewhere (ops/affinities.py), or generated (ops/noisy_affinities.py).

It takes predict's place if the config has a section [affinities]. Given ones are read in place, with one voxel before
the block where the nearest edges are stored at their other end; generated ones are made from the truth, as far around
the block as they depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Affinities as Settings
from pipeline.errors import WrongShape
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import affinities as op
from pipeline.ops.noisy_affinities import Recipe, noisy_affinities
from pipeline.source_formats import MAX_NPZ_BYTES
from pipeline.sources import Source, open_source
from pipeline.stages.code_source import CodeSource
from pipeline.stages.context import label_recipe
from pipeline.stages.masks import Absences, skip_content
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.stages.synthesize import Synthesize
from pipeline.volumes import ArraySpec, Volume, require_finite
from workers.block import BlockRef

BLOCKS = "blocks"
LABEL_BYTES = 20  # a voxel of labels: as read, as uint64, distances
VOXEL_BYTES = 24  # one channel in double precision, masks, what is counted


@dataclass(frozen=True)
class Inputs:
    """A block's edges as they are given, or the labels that they are made of, and which voxels are absent."""

    box: Box
    given: Box  # what the values or labels cover
    values: NDArray[Any]  # CZYX, or labels, ZYX
    absent_ZYX: NDArray[np.bool_]
    how: op.Reading
    recipe: Recipe | None
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Outputs:
    """Codes and the histogram of the nearest edges that exist."""

    codes_CZYX: NDArray[Any]
    histogram: NDArray[np.int64]


class Affinities(CodeSource[Inputs, Outputs]):
    """From given affinities, or from labels, to codes."""

    name = "affinities"

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether the config has affinities."""
        return self.site.config.affinities is not None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The generator, if edges are made from its truth."""
        return (self._synthesize,) if self._generated else ()

    def content(self) -> dict[str, Any]:
        """What is read and how, where the layer and its region end, and the masks."""
        layer, settings, facts = self.site.layer, self._settings, self.site.facts
        made = settings.from_labels
        return {
            "given": facts["affinities"]["fingerprint"],
            "channels": list(self._how.channel),
            "offsets": [list(offset) for offset in self._how.offsets],
            "fetch": [list(fetch) for fetch in self._how.fetch],
            "kind": settings.kind,
            "clip": settings.clip,
            "made": None if made is None else [*self._recipe_content(), made.dtype],
            "layer": layer.shape,
            "roi": [layer.roi.begin, layer.roi.end],
            "masks": skip_content(self.site),
        }

    def _recipe_content(self) -> list[Any]:
        recipe = self._recipe
        return [] if recipe is None else [recipe.seed, recipe.noise, list(recipe.smooth_vx), list(recipe.step)]

    def block_content(self, sweep: str, index: Index) -> Any:
        """The accepted holes in the block or at the other end of its edges."""
        around = self._grid.block_box(index).grow(*op.reach(self.offsets))
        holes = [hole.clip(around) for hole in self._absences.holes]
        missing = [[hole.begin, hole.end] for hole in holes if hole.voxels]
        return {"holes": missing} if missing else None

    def passes(self) -> tuple[Pass, ...]:
        """One sweep over the blocks of all later stages."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The generated truth around the block; nothing if the edges are a file's, or a file's labels'."""
        return self._synthesize.refs("blocks", self._around(index)) if self._generated else ()

    def masked(self, sweep: str, index: Index) -> bool:
        """Whether skip masks cover the block, or the user accepted it as a hole."""
        return self._absences.cover(self._grid.block_box(index))

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the array of codes."""
        roi, blocks, channels = self.site.layer.roi, self.site.config.blocks, len(self.offsets)
        spec = ArraySpec(
            shape=(channels, *roi.shape),
            dtype=self.code_dtype.name,
            block=blocks.shape,
            chunk=blocks.chunk,
            voxel_size=self.site.layer.voxel_size,
            offset=roi.begin,
            channels=channels,
        )
        Volume.create(self.folder / "affinities", spec)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The block's edges, or the labels around it, and the masks."""
        box, around = self._grid.block_box(index), self._around(index)
        absent_ZYX = self._absences.voxels(box.grow(*op.reach(self.offsets)))
        values = self._read_values(around) if self._recipe is None else self._read_labels(around)
        return Inputs(box, around, values, absent_ZYX, self._how, self._recipe, self.code_dtype)

    def _read_values(self, box: Box) -> NDArray[Any]:
        """The needed channels of a box; what absent voxels hold does not matter."""
        source, location = self._source, self._source.location
        values_CZYX = source.read_unchecked(box, self._how.channels)
        values_CZYX = np.require(values_CZYX, requirements="W")  # a mapped file cannot be written to
        values_CZYX[:, self._absences.voxels(box)] = 0
        require_finite(values_CZYX, origin=box.begin, where=location)
        if not self._how.clip:
            op.require_unit_range(values_CZYX, box.begin, first_channel=self._how.channels.start, where=location)
        return values_CZYX

    def _read_labels(self, box: Box) -> NDArray[np.uint64]:
        labels = self._synthesize.truth if self._generated else self._source
        return np.ascontiguousarray(labels.read(box), np.uint64)

    def compute(self, inputs: Inputs) -> Outputs:
        """Encode or generate; drop the edges that do not exist."""
        if inputs.recipe is None:
            codes_CZYX = op.encode(inputs.values, inputs.given, inputs.box, inputs.how)
        else:
            made_CZYX = noisy_affinities(inputs.values, inputs.given, inputs.box, inputs.recipe)
            codes_CZYX = made_CZYX if inputs.dtype == np.uint16 else (made_CZYX >> 8).astype(np.uint8)
        return Outputs(codes_CZYX, op.keep_existing_edges(codes_CZYX, inputs.absent_ZYX, inputs.how.offsets))

    def write(self, sweep: str, index: Index, outputs: Outputs) -> Written:
        """Codes, shells and histogram."""
        return self.store_codes(index, outputs.codes_CZYX, outputs.histogram)

    # ---- what others read --------------------------------------------------------------------------------------
    @property
    def offsets(self) -> tuple[Index, ...]:
        """The nearest neighbours, and what the file has besides."""
        return self._how.offsets

    @cached_property
    def code_table(self) -> NDArray[np.int64]:
        """8 bits for uint8, 16 bits for all other types; both linear."""
        made = self._settings.from_labels
        return op.code_table(np.dtype(self.site.facts["affinities"]["dtype"] if made is None else made.dtype))

    @property
    def code_grid(self) -> Grid:
        """The blocks of all later stages."""
        return self._grid

    # ---- what it costs -----------------------------------------------------------------------------------------
    def memory_bytes(self, sweep: str) -> int:
        """Values or labels around a block, its codes and what encoding copies."""
        box, channels = Box.of_shape(self._grid.block), len(self.offsets)
        shells = 3 * self.shell_bytes(self._grid.block)
        codes = 3 * channels * self.code_dtype.itemsize + VOXEL_BYTES
        if self._recipe is not None:
            return LABEL_BYTES * box.grow(*self._recipe.halo).voxels + codes * box.voxels + shells
        values: int = 3 * len(self._how.channels) * np.dtype(self.site.facts["affinities"]["dtype"]).itemsize
        archive = MAX_NPZ_BYTES if ".npz" in str(self._settings.path).lower() else 0
        encoded = codes * box.grow(*op.reach(self.offsets)).voxels
        return values * self._how.source(box).voxels + encoded + shells + archive

    # ---- blocks and what they read -----------------------------------------------------------------------------
    @property
    def _settings(self) -> Settings:
        settings = self.site.config.affinities
        if settings is None:
            raise LookupError("this run has no affinities of its own")
        return settings

    @cached_property
    def _how(self) -> op.Reading:
        keys = {"offsets", "channels", "stored_at", "kind", "clip"}
        return op.reading(**self._settings.model_dump(include=keys))

    @cached_property
    def _recipe(self) -> Recipe | None:
        return label_recipe(self.site)

    @cached_property
    def _synthesize(self) -> Synthesize:
        return self.site.find(Synthesize)

    @property
    def _generated(self) -> bool:
        return self._recipe is not None and self._synthesize.active

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self.site.layer.roi, self.site.config.blocks.shape)

    def _around(self, index: Index) -> Box:
        """What is read for a block: in the layer, beyond the region of interest too."""
        box = self._grid.block_box(index)
        around = self._how.source(box) if self._recipe is None else box.grow(*self._recipe.halo)
        return around.clip(self.site.layer.box)

    @cached_property
    def _source(self) -> Source:
        """The file of affinities, or of labels."""
        settings, image = self._settings, self.site.config.input
        if settings.path is None:
            return open_source(str(image.truth))
        source = open_source(settings.path, settings.scale, settings.axes.lower())
        if source.shape != self.site.layer.shape:
            raise WrongShape(
                f"the affinities have the shape {source.shape}; when the run began it was {self.site.layer.shape}",
                where=settings.path,
                way_out="put the old file back, or start a run with the new one",
            )
        return source

    # ---- masks -------------------------------------------------------------------------------------------------
    @cached_property
    def _absences(self) -> Absences:
        return Absences(self.site)
