"""Do two segments look like one object where they touch? The distance of their mean embeddings around a point.

1. A candidate is an image patch centred at a point p, and which voxels around p belong to either segment. The patch
   begins at p - patch // 2 and what the network puts out at p - patch // 2 + crop; the focal window begins at
   p - window // 2. For a patch of (20, 128, 128): p - (10, 64, 64), p - (8, 48, 48), and p - (2, 16, 16) for a window
   of (5, 32, 32).
2. Patches go through the network in batches of one fixed size, the last one filled up with zeros: embedding vectors in
   float32.
3. Inside the window, every vector becomes integers, round(x * 2^16), which are added up for each segment: exact, and
   without an order. Magnitudes are cut off where float16 ends, so that no sum can overflow.
4. The mean of a segment is its sum by its voxels, in float64; the distance of two means is their L1 norm, rounded once.
   Where a segment has no voxel in the window there is no distance: NaN.
5. To be looked at, not to decide by: the vectors of the section through p, of all that the network puts out.

A candidate's answer does not depend on what else is in its batch, for the reasons that `models.engine` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.engine import deterministic
from models.errors import WeightsInvalid
from models.lattice import SMALLEST_CPU_BATCH
from models.spec import Index, WeightsSpec
from models.vectors import LARGEST

SIDES = (1, 2)  # the first segment, the second one; 0 is neither
FIXED_POINT = 1 << 16


@dataclass(frozen=True)
class Candidate:
    """Two segments that may be one, around a point."""

    patch_ZYX: NDArray[np.uint8]  # of the image, as large as the spec's patch
    sides_ZYX: NDArray[np.uint8]  # as large as the focal window: 0 neither, 1 the first segment, 2 the second


@dataclass(frozen=True)
class Judged:
    """What was found; one entry a candidate, in their order."""

    voxels: NDArray[np.int64]  # (N, 2): of the first and the second segment in the window
    distance: NDArray[np.float64]  # (N,): L1, of the mean embeddings; NaN where a segment is not in the window
    sections_NDYX: NDArray[np.float16]  # vectors of the section through the point; of no candidate unless asked for


class MeanEmbeddings:
    """An embedding net, ready to compare segments."""

    def __init__(
        self,
        network: nn.Module,
        spec: WeightsSpec,
        *,
        window: Index,
        device: str = "cpu",
        batch: int = 2,
        threads: int = 1,
    ) -> None:
        if "embedding" not in spec.network.heads:
            raise WeightsInvalid("the network has no head 'embedding', hence no means to compare")
        self.begin = window_begin(spec, window)
        self.batch = max(batch, SMALLEST_CPU_BATCH) if device == "cpu" else batch
        self._spec, self._window, self._device = spec, window, device
        self._inside = tuple(slice(b, b + n) for b, n in zip(self.begin, window, strict=True))
        torch.set_num_threads(threads)
        self._network = network.to(device).eval()
        if device != "cpu":
            self._network = self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def judge(self, candidates: Sequence[Candidate], *, sections: bool = True) -> Judged:
        """Compare the two segments of every candidate; `sections` says whether they will be looked at."""
        for candidate in candidates:
            self._check(candidate)
        _, height, width = self._spec.output
        channels, kept = self._spec.network.heads["embedding"], len(candidates) if sections else 0
        found = Judged(
            np.zeros((len(candidates), len(SIDES)), np.int64),
            np.full(len(candidates), np.nan),
            np.zeros((kept, channels, height, width), np.float16),
        )
        with torch.inference_mode(), deterministic():
            for start in range(0, len(candidates), self.batch):
                self._judge_batch(candidates[start : start + self.batch], start, found)
        return found

    def _check(self, candidate: Candidate) -> None:
        shapes = candidate.patch_ZYX.shape, candidate.sides_ZYX.shape
        if shapes != (self._spec.patch, self._window):
            raise ValueError(
                f"a candidate's patch and sides have shapes {shapes[0]} and {shapes[1]}, "
                f"not {self._spec.patch} and {self._window}"
            )

    def _judge_batch(self, candidates: Sequence[Candidate], start: int, found: Judged) -> None:
        """Fill in the entries of one batch."""
        vectors_BDZYX = self._vectors(candidates)
        sides_BZYX = np.stack([candidate.sides_ZYX for candidate in candidates])
        sums_BSD = _fixed_sums(vectors_BDZYX[:, :, *self._inside], torch.from_numpy(sides_BZYX).to(self._device))
        end = start + len(candidates)
        found.voxels[start:end] = np.stack([(sides_BZYX == side).sum((1, 2, 3)) for side in SIDES], axis=1)
        for place, sums_SD in enumerate(sums_BSD.cpu().numpy(), start):
            found.distance[place] = distance(sums_SD, found.voxels[place])
        if len(found.sections_NDYX):
            middle = self.begin[0] + self._window[0] // 2
            section = vectors_BDZYX[:, :, middle].clamp(-LARGEST, LARGEST).to(torch.float16)
            found.sections_NDYX[start:end] = section.cpu().numpy()

    def _vectors(self, candidates: Sequence[Candidate]) -> Tensor:
        """What the network says about at most a batch of candidates."""
        filled_BZYX = np.zeros((self.batch, *self._spec.patch), np.uint8)
        filled_BZYX[: len(candidates)] = [candidate.patch_ZYX for candidate in candidates]
        images = torch.from_numpy(filled_BZYX).to(self._device)[:, None].to(torch.float32) / 255
        if self._device != "cpu":
            images = images.contiguous(memory_format=torch.channels_last_3d)
        outputs: dict[str, Tensor] = self._network(images)
        return outputs["embedding"][: len(candidates)]


def window_begin(spec: WeightsSpec, window: Index) -> Index:
    """Where the focal window begins in what the network puts out; WeightsInvalid if it does not lie inside."""
    z, y, x = (p // 2 - c - w // 2 for p, c, w in zip(spec.patch, spec.network.crop, window, strict=True))
    ends = (begin + extent for begin, extent in zip((z, y, x), window, strict=True))
    fits = min(z, y, x) >= 0 and all(end <= extent for end, extent in zip(ends, spec.output, strict=True))
    if min(window) < 1 or not fits:
        raise WeightsInvalid(f"a window of {window} does not fit into the {spec.output} that the network puts out")
    return (z, y, x)


def distance(sums_SD: NDArray[np.int64], voxels_S: NDArray[np.int64]) -> float:
    """L1 between two means, given as sums in fixed point and the voxels behind them; NaN if either has none."""
    if not voxels_S.all():
        return float("nan")
    means_SD = sums_SD / (voxels_S[:, None] * FIXED_POINT)
    return fsum(np.abs(means_SD[0] - means_SD[1]).tolist())


def _fixed_sums(vectors_BDZYX: Tensor, sides_BZYX: Tensor) -> Tensor:
    """For every candidate and side the sum of its vectors, as int64 (BSD)."""
    fixed = torch.round(vectors_BDZYX.clamp(-LARGEST, LARGEST) * FIXED_POINT).to(torch.int64)
    sums = [(fixed * (sides_BZYX == side)[:, None]).sum((2, 3, 4)) for side in SIDES]
    return torch.stack(sums, dim=1)
