"""predict: the network's affinities, quantised to uint8 codes. The only stage that needs torch, and only to compute.

Reads the resampled image around a block: all that the lattice patches touching it see. A region with an override
gets the other network's codes, voxel by voxel; where regions overlap the later override holds.

Where the network knows the background, its probability is stored beside the codes, and edges to it have code 0
(docs/design/embeddings.md). A block then looks at one voxel before it, too: its nearest edges end there. On request
an embedding's vectors are stored, too. Nobody computes with them; they are there to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import predict as op
from pipeline.ops.affinities import reach
from pipeline.stages.code_source import CodeSource
from pipeline.stages.masks import Absences, skip_content
from pipeline.stages.networks import Networks, Part
from pipeline.stages.resample import Resample
from pipeline.stages.stage import Pass, Stage, Written
from pipeline.volumes import ArraySpec, Volume, digest
from workers.block import BlockRef

BLOCKS = "blocks"
TOP = 65535  # the integer that stands for probability 1
CHOSEN_BLOCK_BYTES = 1 << 30  # the largest block that is chosen unasked; a constant, or a pool's size would move blocks
PATCHES = ("patches", "patches_skipped", "patches_empty")
ONE_BEFORE: Index = (1, 1, 1)
NOTHING_AFTER: Index = (0, 0, 0)


@dataclass(frozen=True)
class Inputs:
    """A block, what is predicted for it, in parts (later ones hold where they overlap), and what is absent."""

    box: Box
    seen: Box  # the block, and one voxel before it where background matters
    parts: tuple[Part, ...]
    absent_ZYX: NDArray[np.bool_]  # of the block and as far around as edges lead


@dataclass(frozen=True)
class Outputs:
    """Codes, the histogram of the nearest edges that exist, and how many patches that took."""

    codes_CZYX: NDArray[np.uint8]
    histogram: NDArray[np.int64]
    background_ZYX: NDArray[np.uint8] | None
    patches: Mapping[str, int]
    vectors_CZYX: NDArray[np.float16] | None = None


class Predict(CodeSource[Inputs, Outputs]):
    """Image to affinity codes."""

    name = "predict"
    pool = "gpu"

    @cached_property
    def _networks(self) -> Networks:
        return Networks(self.site)

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether no affinities are given."""
        return self.site.config.affinities is None

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The resampled image."""
        return (self._resample,)

    def content(self) -> dict[str, Any]:
        """The weights, where the layer and its region end, and the masks. Overrides count block by block."""
        layer = self.site.layer
        return {
            "weights": self._networks.identity(0),
            "layer": layer.shape,
            "roi": [layer.roi.begin, layer.roi.end],
            "masks": skip_content(self.site),
            **self._networks.manner(),
        }

    def block_content(self, sweep: str, index: Index) -> Any:
        """The overrides that touch the block, cut to it, and the accepted holes in it or where its edges end."""
        box = self._grid.block_box(index)
        pieces = [(n, piece) for n, piece in self._networks.pieces(self._seen(box)) if n > 0]
        overrides = [[piece.begin, piece.end, self._networks.identity(n)] for n, piece in pieces]
        around = box.grow(*reach(self.offsets))
        holes = [hole.clip(around) for hole in self._absences.holes]
        missing = [[hole.begin, hole.end] for hole in holes if hole.voxels]
        return {"overrides": overrides, "holes": missing} if overrides or missing else None

    def passes(self) -> tuple[Pass, ...]:
        """One sweep; its grid is its own, later stages have another."""
        return (Pass(BLOCKS, self._grid),) if self.active else ()

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The resampled blocks that any patch of the block sees."""
        refs: dict[BlockRef, None] = {}
        for network, box in self._networks.pieces(self._seen(self._grid.block_box(index))):
            for task in self._resample.passes():
                refs.update(dict.fromkeys(self._resample.refs(task.name, self._networks.context(network, box))))
        return refs

    def masked(self, sweep: str, index: Index) -> bool:
        """Whether skip masks cover the block, or the user accepted it as a hole."""
        return self._absences.cover(self._grid.block_box(index))

    def redundancy(self) -> float:
        """Patches evaluated per patch needed: what cutting into blocks costs."""
        return op.redundancy(self._networks.lattice(0), self._grid, self._before)

    def device_class(self, sweep: str) -> str:
        """The device that the network runs on in this process."""
        from models.engine import device_class

        return device_class(self.site.config.predict.device)

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the array of codes, and that of background."""
        roi, config, channels = self.site.layer.roi, self.site.config, len(self.offsets)
        spec = ArraySpec(
            shape=(channels, *roi.shape),
            dtype="uint8",
            block=self._grid.block,
            chunk=config.blocks.chunk,
            voxel_size=self.site.layer.voxel_size,
            offset=roi.begin,
            channels=channels,
        )
        Volume.create(self.folder / "affinities", spec)
        if self.knows_background:
            Volume.create(self.folder / "background", replace(spec, shape=roi.shape, channels=None))
        if self.vector_channels:
            shape = (self.vector_channels, *roi.shape)
            own = replace(spec, shape=shape, dtype="float16", channels=self.vector_channels)
            Volume.create(self.folder / "embeddings", own)

    def read(self, sweep: str, index: Index) -> Inputs:
        """The image with context, and the masks."""
        box = self._grid.block_box(index)
        seen, around = self._seen(box), box.grow(*reach(self.offsets))
        absent_ZYX = self._absences.voxels(around)
        parts = []
        for network, piece in self._networks.pieces(seen):
            image_box = self._networks.context(network, piece)
            wanted_ZYX = ~absent_ZYX[piece.slices(around.begin)]
            parts.append(Part(network, piece, image_box, self._resample.image.read(image_box), wanted_ZYX))
        return Inputs(box, seen, tuple(parts), absent_ZYX)

    def compute(self, inputs: Inputs) -> Outputs:
        """Evaluate, blend, quantise; drop the edges that do not exist."""
        box, seen = inputs.box, inputs.seen
        codes_CZYX = np.zeros((len(self.offsets), *seen.shape), np.uint8)
        background_ZYX = np.zeros(seen.shape, np.uint8)
        vectors_CZYX = np.zeros((self.vector_channels, *box.shape), np.float16)
        patches = dict.fromkeys(PATCHES, 0)
        for part in inputs.parts:
            answer, where = self._networks.evaluate(part), part.box.slices(seen.begin)
            codes_CZYX[(..., *where)] = answer.codes_CZYX
            if answer.background_ZYX is not None:
                background_ZYX[where] = answer.background_ZYX
            if answer.vectors_CZYX is not None:
                own = part.box.clip(box)
                vectors_CZYX[(..., *own.slices(box.begin))] = answer.vectors_CZYX[(..., *own.slices(part.box.begin))]
            for key, count in zip(PATCHES, (answer.patches, answer.skipped, answer.empty), strict=True):
                patches[key] += count
        inside = box.slices(seen.begin)
        own_CZYX = np.ascontiguousarray(codes_CZYX[(..., *inside)])
        if not self.knows_background:
            histogram = op.keep_existing_edges(own_CZYX, inputs.absent_ZYX, self.offsets)
            return Outputs(own_CZYX, histogram, None, patches)
        before = np.zeros(tuple(n + 1 for n in box.shape), np.bool_)  # all beyond the region is absent anyway
        before[seen.slices(box.grow(ONE_BEFORE, NOTHING_AFTER).begin)] = self.code_table[background_ZYX] >= self.level
        histogram = op.keep_existing_edges(own_CZYX, inputs.absent_ZYX, self.offsets, before)
        own_ZYX = np.ascontiguousarray(background_ZYX[inside])
        low, _ = reach(self.offsets)
        absent_ZYX = inputs.absent_ZYX[tuple(slice(b, b + n) for b, n in zip(low, box.shape, strict=True))]
        own_ZYX[absent_ZYX] = 0
        vectors_CZYX[:, absent_ZYX] = 0
        return Outputs(own_CZYX, histogram, own_ZYX, patches, vectors_CZYX if self.vector_channels else None)

    def write(self, sweep: str, index: Index, outputs: Outputs) -> Written:
        """Codes, shells, histogram, background, and vectors."""
        written = self.store_codes(index, outputs.codes_CZYX, outputs.histogram)
        summary = {**written.summary, **outputs.patches}
        parts, box = dict(written.parts), self._grid.block_box(index)
        if outputs.background_ZYX is not None:
            parts["background"] = self.background.write(box, outputs.background_ZYX)
        if outputs.vectors_CZYX is not None:
            parts["embeddings"] = self.vectors.write(box, outputs.vectors_CZYX)
        return Written(parts, summary)

    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digests of what is stored."""
        parts, box = dict(super().reread(sweep, index)), self._grid.block_box(index)
        if self.knows_background:
            parts["background"] = digest(self.background.read(box))
        if self.vector_channels:
            parts["embeddings"] = digest(self.vectors.read(box))
        return parts

    # ---- what others read --------------------------------------------------------------------------------------
    @property
    def offsets(self) -> tuple[Index, ...]:
        """The nearest neighbours, and the further ones if they are predicted."""
        return self._networks.offsets

    @property
    def knows_background(self) -> bool:
        """Whether the network tells background."""
        return self.background_threshold is not None

    @property
    def background_threshold(self) -> float | None:
        """From which probability on a voxel is background, if the network knows that."""
        return self._networks.background_threshold

    @property
    def level(self) -> int:
        """The integer from which on a probability means background."""
        return round((self.background_threshold or 0) * TOP)

    @cached_property
    def background(self) -> Volume:
        """The probability of background, as codes; 0 in absent voxels."""
        return Volume.open(self.folder / "background")

    def read_background(self, box: Box) -> NDArray[np.uint8]:
        """The background's codes in a box inside the region of interest; 0 in masked blocks."""
        codes_ZYX = np.zeros(box.shape, np.uint8)
        for ref in self.code_refs(box):
            piece = self.code_grid.block_box(ref.index).clip(box)
            codes_ZYX[piece.slices(box.begin)] = self.background.read(piece)
        return codes_ZYX

    @property
    def vector_channels(self) -> int:
        """How long the vectors are that are stored; 0 if none are."""
        return self._networks.vector_channels

    @cached_property
    def vectors(self) -> Volume:
        """The vectors, CZYX, each of one patch; 0 in absent voxels and where no patch was evaluated."""
        return Volume.open(self.folder / "embeddings")

    def vector_patches(self, box: Box) -> NDArray[np.int32]:
        """A number for every voxel of a box: only vectors of voxels with the same number may be compared."""
        return self._networks.vector_patches(box)

    @property
    def code_table(self) -> NDArray[np.int64]:
        """The integer behind every code."""
        return self._networks.code_table

    @property
    def code_grid(self) -> Grid:
        """Its blocks, which later stages do not share."""
        return self._grid

    # ---- what it costs -----------------------------------------------------------------------------------------
    def stored_bytes(self) -> int:
        """Codes, shells, a byte a voxel for background, and two for every channel of an embedding."""
        if not self.active:
            return 0
        more_per_voxel = self.knows_background + 2 * self.vector_channels
        return super().stored_bytes() + more_per_voxel * self.site.layer.roi.voxels

    def inodes(self) -> int:
        """Other arrays of as many shards as that of codes, if background or vectors are stored."""
        if not self.active:
            return super().inodes()
        return super().inodes() * (1 + self.knows_background + (self.vector_channels > 0))

    def memory_bytes(self, sweep: str) -> int:
        """The image with context, the masks, and what the engine needs."""
        return self._block_bytes(self._grid.block)

    # ---- blocks ------------------------------------------------------------------------------------------------
    @cached_property
    def _resample(self) -> Resample:
        return self.site.find(Resample)

    @cached_property
    def _grid(self) -> Grid:
        config, roi = self.site.config, self.site.layer.roi
        chunk, block = config.blocks.chunk, config.predict.block
        if block is None:
            block = op.choose_block(
                self._networks.lattice(0),
                roi,
                chunk,
                lambda shape: self._networks.plain_bytes(shape) <= CHOSEN_BLOCK_BYTES,
                self._before,
            )
        if any(b % c for b, c in zip(block, chunk, strict=True)):
            raise ConfigError(
                f"predict.block {block} is no multiple of blocks.chunk {chunk}",
                where="predict.block",
                way_out="make it a multiple along every axis, or leave it out: the plan then chooses",
            )
        return Grid(roi, block)

    def _block_bytes(self, block: Index) -> int:
        z, y, x = (min(b, n) for b, n in zip(block, self.site.layer.roi.shape, strict=True))
        masks = 4 * Box.of_shape((z, y, x)).grow(*reach(self.offsets)).voxels
        if self.knows_background:
            masks += (2 * len(self.offsets) + 8) * (z + 1) * (y + 1) * (x + 1)
        return masks + 3 * self.shell_bytes((z, y, x)) + self._networks.working_bytes((z, y, x))

    @property
    def _before(self) -> int:
        """How many voxels before itself a block looks at."""
        return 1 if self.knows_background else 0

    def _seen(self, box: Box) -> Box:
        """A block, and where background matters one voxel before it."""
        return box.grow(ONE_BEFORE, NOTHING_AFTER).clip(self.site.layer.roi) if self.knows_background else box

    # ---- masks -------------------------------------------------------------------------------------------------
    @cached_property
    def _absences(self) -> Absences:
        return Absences(self.site)
