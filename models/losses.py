"""Affinity targets from labels, and the loss: masked binary cross-entropy with logits, rebalanced if wanted.

Labels are dense: 0 is background. The edge from voxel i to i + o is 1 if both carry the same label and it is not 0,
else 0; it is valid if i + o lies inside the crop and neither end is masked. With n1 ones and n0 zeros among the valid
edges, rebalancing weighs them so:

  lee   per channel and patch: ones n0 / (n0 + n1), zeros n1 / (n0 + n1), so both classes weigh the same.
  ustc  per patch, all channels together: with f = n1 / (n0 + n1), clipped to [0.05, 0.99], the rarer class weighs
        (1 - f) / f (ones) or f / (1 - f) (zeros), the other 1.
  none  every edge weighs one: the network's output is the probability of an edge as frequent as in the samples.

Edges beyond the three nearest may weigh more or less on top of that. The mean is over all valid edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.offsets import ends
from models.spec import NEAREST, Index

Rebalance = Literal["lee", "ustc", "none"]

RAREST, MOST_FREQUENT = 0.05, 0.99  # what "ustc" takes for the share of ones at the extremes


def affinity_targets(
    labels_BZYX: Tensor, offsets: Sequence[Index], mask_BZYX: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Targets and validity, both BCZYX float32 with one channel per offset; the loss sees voxels where mask is true."""
    channels = [_one_offset(labels_BZYX, offset, mask_BZYX) for offset in offsets]
    targets, valid = (torch.stack(parts, dim=1) for parts in zip(*channels, strict=True))
    return targets, valid


def _one_offset(labels_BZYX: Tensor, offset: Index, mask_BZYX: Tensor | None) -> tuple[Tensor, Tensor]:
    targets = torch.zeros(labels_BZYX.shape, dtype=torch.float32, device=labels_BZYX.device)
    valid = torch.zeros_like(targets)
    here, there = ends(labels_BZYX.shape[1:], offset)
    mine, partner = labels_BZYX[:, *here], labels_BZYX[:, *there]
    targets[:, *here] = ((mine == partner) & (mine > 0)).to(torch.float32)
    if mask_BZYX is None:
        valid[:, *here] = 1.0
    else:
        valid[:, *here] = (mask_BZYX[:, *here] & mask_BZYX[:, *there]).to(torch.float32)
    return targets, valid


def rebalanced(targets_BCZYX: Tensor, valid_BCZYX: Tensor, how: Rebalance = "lee") -> Tensor:
    """The weight of every edge; 0 where it is not valid."""
    if how == "none":
        return valid_BCZYX
    together = (2, 3, 4) if how == "lee" else (1, 2, 3, 4)
    count = valid_BCZYX.sum(together, keepdim=True)
    share = (targets_BCZYX * valid_BCZYX).sum(together, keepdim=True) / count.clamp(min=1.0)
    if how == "lee":
        return valid_BCZYX * torch.where(targets_BCZYX > 0.5, 1.0 - share, share)
    share = share.clamp(RAREST, MOST_FREQUENT)
    ones, zeros = ((1.0 - share) / share).clamp(min=1.0), (share / (1.0 - share)).clamp(min=1.0)
    return valid_BCZYX * torch.where(targets_BCZYX > 0.5, ones, zeros)


def affinity_loss(
    logits_BCZYX: Tensor,
    targets_BCZYX: Tensor,
    valid_BCZYX: Tensor,
    *,
    rebalance: Rebalance = "lee",
    long_range: float = 1.0,
) -> Tensor:
    """The mean over all valid edges of the binary cross-entropy; `long_range` weighs channels beyond the nearest."""
    weights = rebalanced(targets_BCZYX, valid_BCZYX, rebalance)
    if long_range != 1.0:
        of_channel = torch.ones(logits_BCZYX.shape[1], device=weights.device)
        of_channel[len(NEAREST) :] = long_range
        weights = weights * of_channel[:, None, None, None]
    loss = functional.binary_cross_entropy_with_logits(logits_BCZYX, targets_BCZYX, weights, reduction="sum")
    return loss / valid_BCZYX.sum().clamp(min=1.0)
