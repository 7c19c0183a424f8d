"""The networks of a run: the weights that the config names and those of its overrides, loaded when first used.

Everything but `evaluate` works from the run's facts, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import WeightsInvalid
from models.lattice import Lattice, working_bytes
from pipeline.errors import BadWeights, ConfigError, OutOfMemory
from pipeline.geometry import Box, Index
from pipeline.stages.stage import Site

if TYPE_CHECKING:
    from models.engine import Engine


@dataclass(frozen=True)
class Part:
    """A box that one network predicts, and the image that it must see for that."""

    network: int
    box: Box
    image_box: Box
    image_ZYX: NDArray[np.uint8]


class Networks:
    """Network 0 is the run's own; network n that of the n-th override."""

    def __init__(self, site: Site) -> None:
        self._config = site.config.predict
        self._layer = site.layer.shape
        self._facts: list[Mapping[str, Any]] = [site.facts["weights"], *site.facts["override_weights"]]
        self._engines: dict[int, Engine] = {}
        self._check_alike()

    @property
    def code_table(self) -> NDArray[np.int64]:
        """The integer behind every code; the same for all networks of a run."""
        return np.asarray(self._facts[0]["spec"]["code_table"], np.int64)

    def identity(self, network: int) -> dict[str, Any]:
        """What decides a network's answer: everything in its spec but how it was trained."""
        facts = self._facts[network]
        return {key: value for key, value in facts["spec"].items() if key != "training"} | {"sha256": facts["sha256"]}

    def lattice(self, network: int) -> Lattice:
        """Where the network's patches lie in the layer."""
        spec = self._facts[network]["spec"]
        (z, y, x), (sz, sy, sx) = spec["patch"], spec["stride"]
        return Lattice(self._layer, (z, y, x), (sz, sy, sx))

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
        return self._bytes(self._facts, box_shape, batch=self._config.batch)

    def plain_bytes(self, box_shape: Index) -> int:
        """The same without overrides and batches: what blocks are chosen by, so that neither can move them."""
        return self._bytes(self._facts[:1], box_shape, batch=1)

    def _bytes(self, networks: Sequence[Mapping[str, Any]], box_shape: Index, *, batch: int) -> int:
        images, engines = 0, []
        for facts in networks:
            patch = _index(facts["patch"])
            z, y, x = (n + 2 * p for n, p in zip(box_shape, patch, strict=True))
            images += z * y * x
            widest = max(facts["spec"]["architecture"]["widths"])
            engines.append(working_bytes(patch, widest, batch=batch, box_shape=box_shape))
        return images + max(engines)

    def evaluate(self, part: Part) -> NDArray[np.uint8]:
        """Codes CZYX of a part's box."""
        engine = self._engine(part.network)
        begin, end = part.box.begin, part.box.end
        try:
            return engine.predict(part.image_ZYX, origin=part.image_box.begin, begin=begin, end=end, layer=self._layer)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's own; torch is not imported here
                raise
            raise OutOfMemory(
                f"the device ran out of memory with batches of {engine.batch}",
                where=f"predict.batch on {engine.device}",
                way_out="set a smaller predict.batch",
            ) from None

    def _engine(self, network: int) -> Engine:
        if network not in self._engines:
            self._engines[network] = self._load(network)
        return self._engines[network]

    def _load(self, network: int) -> Engine:
        from models.checkpoint import load_network
        from models.engine import Engine

        config = self._config
        location = config.weights if network == 0 else config.override[network - 1].weights
        try:
            loaded, spec = load_network(location)
        except WeightsInvalid as error:
            raise BadWeights(error.what, where=error.where or location) from None
        began_with = self._facts[network]["sha256"]
        if spec.sha256 != began_with:
            raise BadWeights(
                f"the weights have SHA-256 {spec.sha256[:16]}…, the run was begun with {began_with[:16]}…",
                where=location,
                way_out="put the old file back, or start a run with the new one",
            )
        return Engine(loaded, spec, device=config.device, batch=config.batch, threads=config.threads)

    def _check_alike(self) -> None:
        first = self._facts[0]["spec"]
        for number, facts in enumerate(self._facts[1:]):
            for key in ("offsets", "voxel_size_nm", "code_table"):
                if facts["spec"][key] != first[key]:
                    raise ConfigError(
                        f"the weights of an override have other {key} than predict.weights",
                        where=f"predict.override[{number}].weights",
                        way_out="train both with the same offsets, voxel size and code table",
                    )


def _index(values: list[int]) -> Index:
    z, y, x = values
    return (z, y, x)
