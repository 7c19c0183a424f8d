"""From a batch of patches to levels: integers from 0 to 65535 for every edge, and for background.

1. The batch is filled up to its fixed size and goes through the network, in every orientation that the manner asks for.
2. An affinity net's logits become probabilities. An embedding's vectors become affinities patch by patch
   (`models.metric_graph`): vectors of different patches cannot be compared. So averages, too, are of affinities.
3. Probabilities become levels: round(p * 65535). From here on there are only integers.
4. Levels of all orientations are turned back (`models.symmetries`), added, and divided, rounded half up.
5. If the manner asks for them, vectors are handed out, too: of the patch as it is, whatever the orientations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import WeightsInvalid
from models.lattice import SMALLEST_CPU_BATCH
from models.metric_graph import metric_affinities
from models.spec import NEAREST, TOP, Index, WeightsSpec
from models.symmetries import FLIPS16, NONE, channels_back

HERE: Index = (0, 0, 0)  # the offset of what is no edge: background
(UNTURNED,) = NONE


@dataclass(frozen=True)
class Manner:
    """How a network is applied; every field decides the answer."""

    offsets: Literal["nearest", "all"] = "nearest"  # which of the edges that the weights know
    augment: Literal["none", "flips16"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the trunk; heads and what follows are in float32
    skip_empty: bool = False  # a patch of one grey value has no edges, and is background
    vectors: bool = False  # an embedding's vectors are part of the answer

    def edges(self, spec: WeightsSpec) -> tuple[Index, ...]:
        """The offsets that are predicted; WeightsInvalid if patches overlap too little for one of them."""
        offsets = spec.offsets if self.offsets == "all" else NEAREST
        unseen = spec.unseen(offsets)
        if unseen:
            raise WeightsInvalid(f"edges to {unseen} lie in no patch: the stride {spec.stride} is too long for them")
        return offsets


class Levels:
    """A network on its device, applied to batches of one size."""

    def __init__(self, network: nn.Module, spec: WeightsSpec, manner: Manner, *, device: str, batch: int) -> None:
        self.batch = max(batch, SMALLEST_CPU_BATCH) if device == "cpu" else batch
        self.channels = manner.edges(spec) + ((HERE,) if spec.has_background else ())
        self._spec, self._manner, self._device = spec, manner, device
        self._on_gpu = device != "cpu"
        if manner.vectors and "embedding" not in spec.network.heads:
            raise WeightsInvalid("the network has no head 'embedding', hence no vectors to hand out")
        self._network = network.to(device).eval()
        if self._on_gpu:
            self._network = self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._symmetries = FLIPS16 if manner.augment == "flips16" else NONE
        self._sources = [symmetry.sources(self.channels) for symmetry in self._symmetries]
        if len(self._symmetries) > 1 and not spec.exchangeable:
            raise WeightsInvalid("flips16 exchanges y and x: patch, crop and voxels must be as long along both")

    def of(self, patches: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Levels of patches ZYX, at most a batch: int32 BCZYX, a channel for every one of `channels`."""
        return self.with_vectors(patches)[0]

    def with_vectors(self, patches: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor | None]:
        """The same, and if the manner asks for them the vectors of the patches: float32 BDZYX."""
        missing = self.batch - len(patches)
        filled = np.pad(np.stack(patches), ((0, missing), (0, 0), (0, 0), (0, 0)))
        images = self._upload(filled)[:, None].to(torch.float32) / 255
        if len(self._symmetries) == 1:
            return self._of_images(images, len(patches))
        kept: Tensor | None = None
        total, counts = torch.zeros((), dtype=torch.int32, device=self._device), np.zeros(len(self.channels), np.int32)
        for symmetry, sources in zip(self._symmetries, self._sources, strict=True):
            levels, vectors = self._of_images(symmetry.turn(images), len(patches))
            kept = vectors if symmetry == UNTURNED else kept
            total = total + channels_back(symmetry.undo(levels), self.channels, sources)
            counts += [source is not None for source in sources]
        count = torch.from_numpy(counts).to(self._device)[:, None, None, None]
        return torch.div(total + count // 2, count, rounding_mode="floor"), kept

    def _upload(self, filled_BZYX: NDArray[np.uint8]) -> Tensor:
        """A GPU fetches the batch while this process goes on; the next one can be made meanwhile."""
        batch = torch.from_numpy(filled_BZYX)
        return batch.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else batch

    def _of_images(self, images_BCZYX: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """Of the first `count` images: levels, and vectors if they are asked for."""
        if self._on_gpu:
            images_BCZYX = images_BCZYX.contiguous(memory_format=torch.channels_last_3d)
        narrow = self._manner.precision == "bfloat16"
        with torch.autocast(torch.device(self._device).type, dtype=torch.bfloat16, enabled=narrow):
            outputs: dict[str, Tensor] = self._network(images_BCZYX)
        levels = torch.round(self._probabilities(outputs) * TOP).to(torch.int32)
        return levels[:count], outputs["embedding"][:count] if self._manner.vectors else None

    def _probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Of every channel, BCZYX."""
        offsets = [offset for offset in self.channels if offset != HERE]
        if "embedding" in outputs:
            delta = float(self._spec.delta or 0)
            # One patch at a time, or a patch's place in the batch might decide in which order distances are summed.
            alone = [metric_affinities(vectors[None], offsets, delta)[0] for vectors in outputs["embedding"]]
            edges = torch.cat(alone)
        else:
            edges = torch.sigmoid(outputs["affinity"][:, : len(offsets)])
        if not self._spec.has_background:
            return edges
        return torch.cat([edges, torch.sigmoid(outputs["background"])], dim=1)
