"""The metric graph: affinities from the distances between embedding vectors.

1. The distance d of an edge from voxel i to i + o is the L1 norm of the difference of their vectors.
2. Its affinity is max((2 delta - d) / (2 delta), 0) ** 2: 1 for equal vectors, 1/4 at d = delta, 0 from d = 2 delta on.
3. An edge exists only if i + o lies in the patch: vectors of different patches cannot be compared.

Where two vectors are equal, and from 2 delta on, the gradient is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.offsets import ends
from models.spec import Index


def affinity(distance: Tensor, delta: float) -> Tensor:
    """The affinity of every distance."""
    return ((2 * delta - distance) / (2 * delta)).clamp(min=0.0).square()


def metric_affinities(embedding_BDZYX: Tensor, offsets: Sequence[Index], delta: float) -> tuple[Tensor, Tensor]:
    """Affinities BCZYX (float32, 0 where there is no edge), one channel an offset, and CZYX bool: is there an edge."""
    vectors = embedding_BDZYX.to(torch.float32)
    extent = vectors.shape[2:]
    # Pieces are put in place by padding, not by assignment, which would copy all channels' gradients once an offset.
    channels, exists = [], torch.zeros((len(offsets), *extent), dtype=torch.bool, device=vectors.device)
    for channel, offset in enumerate(offsets):
        here, there = ends(extent, offset)
        distance = (vectors[:, :, *here] - vectors[:, :, *there]).abs().sum(1)
        channels.append(functional.pad(affinity(distance, delta), _room(here, extent)))
        exists[channel][here] = True
    return torch.stack(channels, dim=1), exists


def _room(inner: Sequence[slice], extent: Sequence[int]) -> list[int]:
    """How many voxels lie before and behind a box, the last axis first, as PyTorch pads."""
    sides = [(s.start, n - s.stop) for s, n in zip(inner, extent, strict=True)]
    return [side for pair in reversed(sides) for side in pair]
