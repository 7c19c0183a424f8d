"""The networks of a run: the weights that the config names and those of its overrides, loaded when first used.

Everything but `evaluate` works from the run's facts, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import WeightsInvalid
from models.lattice import Lattice, working_bytes
from models.spec import NEAREST, WeightsSpec, from_json
from pipeline.errors import BadWeights, ConfigError
from pipeline.geometry import Box, Index
from pipeline.stages.loaded_weights import load_as_begun, naming_batches
from pipeline.stages.stage import Site

if TYPE_CHECKING:
    from models.engine import Answer, Engine


@dataclass(frozen=True)
class Part:
    """A box that one network predicts, and the image that it must see for that."""

    network: int
    box: Box
    image_box: Box
    image_ZYX: NDArray[np.uint8]
    wanted_ZYX: NDArray[np.bool_]  # which voxels of the box anybody will look at


FAR_SIGHTED = {"mutex_watershed"}  # methods that need more than the nearest edges
BACKGROUND_THRESHOLD = 0.6
USUAL: Mapping[str, Any] = {
    **{"channels": len(NEAREST), "augment": "none", "precision": "float32"},
    **{"skip_empty": False, "background_threshold": None, "keep_embeddings": False},
}
VECTOR_COPIES = 4  # of a block: the engine's, the block's own, filled up to whole shards, and encoded


class Networks:
    """Network 0 is the run's own; network n that of the n-th override."""

    def __init__(self, site: Site) -> None:
        self._config = site.config.predict
        self._layer = site.layer.shape
        self._facts: list[Mapping[str, Any]] = [site.facts["weights"], *site.facts["override_weights"]]
        self._specs: list[WeightsSpec] = [from_json(facts["spec"]) for facts in self._facts]
        self._engines: dict[int, Engine] = {}
        self._further = self._config.offsets == "all" or (
            self._config.offsets is None and site.config.fragments.method in FAR_SIGHTED
        )
        self._check_alike()
        self._check_patches()
        self._check_vectors()

    @property
    def code_table(self) -> NDArray[np.int64]:
        """The integer behind every code; the same for all networks of a run."""
        return np.asarray(self._facts[0]["spec"]["code_table"], np.int64)

    @property
    def offsets(self) -> tuple[Index, ...]:
        """The edges that are predicted."""
        return self._specs[0].offsets if self._further else NEAREST

    @property
    def background_threshold(self) -> float | None:
        """From which probability on a voxel is background; nothing if the networks do not know it."""
        own, spec = self._config.background_threshold, self._specs[0]
        if not spec.has_background:
            return None
        return next(t for t in (own, spec.background_threshold, BACKGROUND_THRESHOLD) if t is not None)

    @property
    def vector_channels(self) -> int:
        """How long the vectors are that are stored; 0 if none are."""
        return self._specs[0].network.heads["embedding"] if self._config.keep_embeddings else 0

    def vector_patches(self, box: Box) -> NDArray[np.int32]:
        """A number for every voxel of a box: alike where stored vectors are of one patch of one network."""
        numbers_ZYX = np.zeros(box.shape, np.int32)
        parts = (part for n, piece in self.pieces(box) for part in self.lattice(n).owners(piece.begin, piece.end))
        for number, (_, begin, end) in enumerate(parts):
            numbers_ZYX[Box(begin, end).slices(box.begin)] = number
        return numbers_ZYX

    def manner(self) -> dict[str, Any]:
        """How networks are applied, as far as it is not the usual way: a part of the answer."""
        config = self._config
        told: dict[str, Any] = {"channels": len(self.offsets), "background_threshold": self.background_threshold}
        told |= {"augment": config.augment, "precision": config.precision, "skip_empty": config.skip_empty}
        told["keep_embeddings"] = config.keep_embeddings
        return {key: value for key, value in told.items() if value != USUAL[key]}

    def identity(self, network: int) -> dict[str, Any]:
        """What decides a network's answer: everything in its spec but how it was trained."""
        facts = self._facts[network]
        return {key: value for key, value in facts["spec"].items() if key != "training"} | {"sha256": facts["sha256"]}

    def lattice(self, network: int) -> Lattice:
        """Where the network's patches lie in the layer."""
        return self._lattices[network]

    @cached_property
    def _lattices(self) -> list[Lattice]:
        return [Lattice.of(spec, self._layer) for spec in self._specs]

    def context(self, network: int, box: Box) -> Box:
        """What the network must see to predict a box."""
        return Box(*self.lattice(network).context(box.begin, box.end))

    def pieces(self, box: Box) -> list[tuple[int, Box]]:
        """Which network predicts which part of a box; later ones hold. A part that a later one covers is left out."""
        pieces = [(0, box)]
        for network, override in enumerate(self._config.override, start=1):
            part = Box(override.roi.begin, override.roi.end).clip(box)
            if part.voxels:
                pieces = [(n, other) for n, other in pieces if not part.contains(other)]
                pieces.append((network, part))
        return pieces

    def working_bytes(self, box_shape: Index) -> int:
        """A bound on the memory that predicting a box takes: images with context, and the engine."""
        return self._bytes(self._specs, box_shape, batch=self._config.batch)

    def plain_bytes(self, box_shape: Index) -> int:
        """The same without overrides, batches and what a single voxel takes: what blocks are chosen by.

        So none of them can move blocks, and a large network, which alone takes a gigabyte, does not make them small.
        """
        own = self._specs[:1]
        return self._bytes(own, box_shape, batch=1) - self._bytes(own, (1, 1, 1), batch=1)

    def _bytes(self, specs: Sequence[WeightsSpec], box_shape: Index, *, batch: int) -> int:
        images, engines = 0, []
        channels, turned = len(self.offsets), self._config.augment != "none"
        for spec in specs:
            z, y, x = (n + 2 * p for n, p in zip(box_shape, spec.patch, strict=True))
            images += z * y * x
            blended = channels + spec.has_background
            engines.append(working_bytes(spec, batch=batch, box_shape=box_shape, channels=blended, turned=turned))
        z, y, x = box_shape
        return images + max(engines) + VECTOR_COPIES * 2 * self.vector_channels * z * y * x

    def evaluate(self, part: Part) -> Answer:
        """Codes of a part's box, and what they took."""
        engine = self._engine(part.network)
        begin, end = part.box.begin, part.box.end
        with naming_batches("predict.batch", batch=engine.batch, device=engine.device):
            return engine.answer(
                part.image_ZYX,
                origin=part.image_box.begin,
                begin=begin,
                end=end,
                layer=self._layer,
                wanted_ZYX=part.wanted_ZYX,
            )

    def _engine(self, network: int) -> Engine:
        if network not in self._engines:
            self._engines[network] = self._load(network)
        return self._engines[network]

    def _load(self, network: int) -> Engine:
        from models.engine import Engine
        from models.levels import Manner

        config = self._config
        location = config.weights if network == 0 else config.override[network - 1].weights
        loaded, spec = load_as_begun(location, self._facts[network]["sha256"])
        manner = Manner(
            "all" if self._further else "nearest",
            config.augment,
            config.precision,
            config.skip_empty,
            config.keep_embeddings,
        )
        try:
            return Engine(loaded, spec, device=config.device, batch=config.batch, threads=config.threads, manner=manner)
        except WeightsInvalid as error:
            raise BadWeights(error.what, where=location) from None

    def _check_alike(self) -> None:
        first = self._specs[0]
        for number, spec in enumerate(self._specs[1:]):
            for key in ("offsets", "voxel_size_nm", "code_table", "has_background"):
                if getattr(spec, key) != getattr(first, key):
                    raise ConfigError(
                        f"the weights of an override have other {key} than predict.weights",
                        where=f"predict.override[{number}].weights",
                        way_out="train both with the same offsets, voxel size, code table and background",
                    )

    def _check_patches(self) -> None:
        """Refuse edges that no patch holds (they would look like strong boundaries), and patches that do not turn."""
        for spec in self._specs:
            unseen = spec.unseen(self.offsets)
            if unseen:
                raise ConfigError(
                    f"edges to {unseen} lie in no patch of {spec.output} voxels: the stride {spec.stride} is too long",
                    where="predict.offsets",
                    way_out="shorten the stride in the weights' spec, or predict the nearest edges only",
                )
            if self._config.augment != "none" and not spec.exchangeable:
                raise ConfigError(
                    "flips16 exchanges y and x: patch, crop and voxels of the weights must be as long along both",
                    where="predict.augment",
                    way_out='set predict.augment = "none"',
                )

    def _check_vectors(self) -> None:
        """Refuse to keep vectors that are not there, or of two lengths in one array."""
        if not self._config.keep_embeddings:
            return
        lengths = {spec.network.heads.get("embedding") for spec in self._specs}
        if len(lengths) > 1 or None in lengths:
            told = sorted("none" if length is None else f"one of {length} channels" for length in lengths)
            raise ConfigError(
                f"one embedding can be kept, and the weights have {' and '.join(told)}",
                where="predict.keep_embeddings",
                way_out="set it to false, or name weights of embedding nets, all with as many channels",
            )
