"""The means-based loss seen from single edges: a help for short trainings.

The published loss moves whole objects' means apart, which takes a network long to learn. Short-sighted, the same is
asked of the two ends of every edge of the metric graph, d being the L1 distance of their vectors:

1. Ends in one part pull: d^2. Ends in parts of different objects push: max(2 delta - d, 0)^2.
2. Ends in background, and ends in parts of one object that only meet outside the patch, say nothing.
3. For every offset, pulls and pushes have the same weight however many there are of each; the loss is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.offsets import ends
from models.spec import Index


def edge_pull(
    embedding_BDZYX: Tensor, parts_BZYX: Tensor, objects: Sequence[Tensor], offsets: Sequence[Index], *, delta: float
) -> Tensor:
    """The mean of the patches' losses; parts and objects as for `models.embedding_loss`."""
    terms = [
        _of_patch(vectors, parts, owners, offsets, delta)
        for vectors, parts, owners in zip(embedding_BDZYX.to(torch.float32), parts_BZYX, objects, strict=True)
    ]
    return torch.stack(terms).mean()


def _of_patch(
    vectors_DZYX: Tensor, parts_ZYX: Tensor, objects_C: Tensor, offsets: Sequence[Index], delta: float
) -> Tensor:
    owner_ZYX = torch.cat([objects_C.new_zeros(1), objects_C])[parts_ZYX]
    losses = []
    for offset in offsets:
        here, there = ends(parts_ZYX.shape, offset)
        distance = (vectors_DZYX[:, *here] - vectors_DZYX[:, *there]).abs().sum(0)
        inside = (parts_ZYX[here] > 0) & (parts_ZYX[there] > 0)
        pulled = inside & (parts_ZYX[here] == parts_ZYX[there])
        pushed = inside & (owner_ZYX[here] != owner_ZYX[there])
        losses.append(_mean(distance.square(), pulled) + _mean((2 * delta - distance).clamp(min=0.0).square(), pushed))
    return torch.stack(losses).mean() / 2


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)
