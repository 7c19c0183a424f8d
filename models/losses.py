"""Affinity targets from labels, and the loss: masked binary cross-entropy with logits, rebalanced if wanted.

Labels are dense: 0 is background. The edge from voxel i to i + o is 1 if both carry the same label and it is not 0,
else 0; it is valid if i + o lies inside the crop. Rebalancing "lee": per channel and patch, with n1 ones and n0
zeros among the valid edges, ones weigh n0 / (n0 + n1) and zeros n1 / (n0 + n1). With "none" every edge weighs one, and
the network's output is the probability of an edge as frequent as in the samples. The mean is over all valid edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Index = tuple[int, int, int]
Rebalance = Literal["lee", "none"]


def affinity_targets(labels_BZYX: Tensor, offsets: Sequence[Index]) -> tuple[Tensor, Tensor]:
    """Targets and validity, both BCZYX float32 with one channel per offset."""
    channels = [_one_offset(labels_BZYX, offset) for offset in offsets]
    targets, valid = (torch.stack(parts, dim=1) for parts in zip(*channels, strict=True))
    return targets, valid


def _one_offset(labels_BZYX: Tensor, offset: Index) -> tuple[Tensor, Tensor]:
    targets = torch.zeros(labels_BZYX.shape, dtype=torch.float32, device=labels_BZYX.device)
    valid = torch.zeros_like(targets)
    extents = labels_BZYX.shape[1:]
    here = tuple(slice(max(0, -o), min(n, n - o)) for o, n in zip(offset, extents, strict=True))
    there = tuple(slice(max(0, o), min(n, n + o)) for o, n in zip(offset, extents, strict=True))
    mine, partner = labels_BZYX[:, *here], labels_BZYX[:, *there]
    targets[:, *here] = ((mine == partner) & (mine > 0)).to(torch.float32)
    valid[:, *here] = 1.0
    return targets, valid


def rebalanced(targets_BCZYX: Tensor, valid_BCZYX: Tensor) -> Tensor:
    """The weight of every edge: the share of the other class among the valid edges of its channel and patch."""
    space = (2, 3, 4)
    count = valid_BCZYX.sum(space, keepdim=True)
    share = (targets_BCZYX * valid_BCZYX).sum(space, keepdim=True) / count.clamp(min=1.0)
    return valid_BCZYX * torch.where(targets_BCZYX > 0.5, 1.0 - share, share)


def affinity_loss(
    logits_BCZYX: Tensor, targets_BCZYX: Tensor, valid_BCZYX: Tensor, *, rebalance: Rebalance = "lee"
) -> Tensor:
    """The mean over all valid edges of the binary cross-entropy."""
    weights = rebalanced(targets_BCZYX, valid_BCZYX) if rebalance == "lee" else valid_BCZYX
    loss = functional.binary_cross_entropy_with_logits(logits_BCZYX, targets_BCZYX, weights, reduction="sum")
    return loss / valid_BCZYX.sum().clamp(min=1.0)
