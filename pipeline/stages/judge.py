"""The network that judges self-touches: its weights, what it sees around a point, and its answers.

Everything but `judge` works from the run's facts, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.lattice import working_bytes
from models.spec import WeightsSpec, from_json
from pipeline.errors import ConfigError
from pipeline.geometry import Index, VoxelSize
from pipeline.ops.patches import Coarse
from pipeline.stages.context import self_touch_factor
from pipeline.stages.loaded_weights import load_as_begun, naming_batches
from pipeline.stages.stage import Site

if TYPE_CHECKING:
    from models.mean_embeddings import Candidate, Judged, MeanEmbeddings


class Judge:
    """An embedding net that says how far apart two segments are."""

    def __init__(self, site: Site) -> None:
        self._config = site.config.self_touch
        self._predict = site.config.predict
        self._facts: Mapping[str, Any] = site.facts["self_touch_weights"]
        self._spec: WeightsSpec = from_json(self._facts["spec"])
        self.coarse = Coarse(site.layer.shape, self_touch_factor(site))
        self._check()

    @property
    def patch(self) -> Index:
        """What the network sees, in its own voxels."""
        return self._spec.patch

    @property
    def section(self) -> Index:
        """What is shown of a candidate, in its own voxels: one section of all that the network puts out."""
        return (1, *self._spec.output[1:])

    @property
    def voxel_size(self) -> VoxelSize:
        """Its own voxels."""
        return VoxelSize.from_nm(self._spec.voxel_size_nm)

    @property
    def window(self) -> Index:
        """What means are taken over, in its own voxels."""
        return self._config.window

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the answer: everything in its spec but how it was trained, and the window."""
        spec = {key: value for key, value in self._facts["spec"].items() if key not in ("training", "recipes")}
        return {**spec, "sha256": self._facts["sha256"], "window": list(self.window), "factor": self.coarse.factor}

    @property
    def working_bytes(self) -> int:
        """A bound on the memory that a batch takes."""
        channels = sum(self._spec.network.heads.values())
        return working_bytes(self._spec, batch=self._config.batch, box_shape=(1, 1, 1), channels=channels, turned=False)

    def judge(self, candidates: Sequence[Candidate]) -> Judged:
        """Distances of mean embeddings, and what there is to see."""
        with naming_batches("self_touch.batch", batch=self._config.batch, device=self._predict.device):
            return self._network.judge(candidates)

    @cached_property
    def _network(self) -> MeanEmbeddings:
        from models.mean_embeddings import MeanEmbeddings

        network, spec = load_as_begun(self._config.weights or self._predict.weights, self._facts["sha256"])
        device, threads = self._predict.device, self._predict.threads
        return MeanEmbeddings(
            network, spec, window=self.window, device=device, batch=self._config.batch, threads=threads
        )

    def _check(self) -> None:
        if "embedding" not in self._spec.network.heads:
            raise ConfigError(
                "self-touches are judged by an embedding net, and these weights have no head 'embedding'",
                where="self_touch.weights",
                way_out="name weights of an embedding net",
            )
        crop, output = self._spec.network.crop, self._spec.output
        begin = [p // 2 - c - w // 2 for p, c, w in zip(self.patch, crop, self.window, strict=True)]
        if min(begin) < 0 or any(b + w > n for b, w, n in zip(begin, self.window, output, strict=True)):
            raise ConfigError(
                f"the window {self.window} does not fit into the {output} voxels that the network answers for",
                where="self_touch.window",
                way_out="choose a smaller window, or weights with larger patches",
            )
