"""The means-based loss on embedding vectors, and the loss on the background mask beside it.

A patch has the parts c = 1 .. C (`models.label_parts`), N_c voxels each, with mean vector m_c, of the object o(c). All
norms are L1.

1. Internal: every part's vectors are pulled to its mean. 1/C sum_c 1/N_c sum_(i in c) |m_c - x_i|^2.
2. External: means of different objects are pushed 2 delta apart.
   1/(C (C - 1)) sum_(c != c', o(c) != o(c')) max(2 delta - |m_c - m_c'|, 0)^2.
   Parts of one object that only meet outside the patch are exempt: nothing in the patch says that they are one. The
   denominator counts them all the same.
3. Regularisation: means stay near the origin. 1/C sum_c |m_c|.

The loss is internal + external + 0.001 regularisation. Without parts it is 0, with one part the external term is 0. A
batch has the mean of its patches' losses. Voxels of no part are not constrained.

Segment sums and distances stay on the device, in float32 whatever the network ran in; no loop over objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

INTERNAL, EXTERNAL, REGULARISATION = 1.0, 1.0, 0.001


class EmbeddingLoss(NamedTuple):
    """The three terms, each a scalar with its gradient."""

    internal: Tensor
    external: Tensor
    regularisation: Tensor

    @property
    def total(self) -> Tensor:
        """Their weighted sum."""
        return INTERNAL * self.internal + EXTERNAL * self.external + REGULARISATION * self.regularisation


def embedding_loss(
    embedding_BDZYX: Tensor, parts_BZYX: Tensor, objects: Sequence[Tensor], *, delta: float = 1.5
) -> EmbeddingLoss:
    """The mean of the patches' losses; parts are numbered 1 .. C in every patch, 0 is no part.

    `objects` has one tensor a patch: `objects[b][c - 1]` is the object of part c. Its length is C.
    """
    terms = [
        _of_patch(vectors.flatten(1), parts.flatten(), owners, delta)
        for vectors, parts, owners in zip(embedding_BDZYX.to(torch.float32), parts_BZYX, objects, strict=True)
    ]
    internal, external, regularisation = (torch.stack(values).mean() for values in zip(*terms, strict=True))
    return EmbeddingLoss(internal, external, regularisation)


def _of_patch(vectors_DN: Tensor, parts_N: Tensor, objects_C: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Internal, external and regularisation; segment 0 collects the voxels of no part and is dropped."""
    count = len(objects_C)
    if count == 0:
        nothing = vectors_DN.sum() * 0.0
        return nothing, nothing, nothing
    dimensions, voxels = vectors_DN.shape
    size = vectors_DN.new_zeros(count + 1).index_add(0, parts_N, vectors_DN.new_ones(voxels)).clamp(min=1.0)
    sums = vectors_DN.new_zeros(dimensions, count + 1).index_add(1, parts_N, vectors_DN)
    means = sums / size
    pull = (means.index_select(1, parts_N) - vectors_DN).abs().sum(0).square()
    pulls = vectors_DN.new_zeros(count + 1).index_add(0, parts_N, pull)
    internal = (pulls / size)[1:].mean()
    means_CD = means[:, 1:].t().contiguous()
    return internal, _external(means_CD, objects_C, delta), means_CD.abs().sum(1).mean()


def _external(means_CD: Tensor, objects_C: Tensor, delta: float) -> Tensor:
    push = (2 * delta - torch.cdist(means_CD, means_CD, p=1)).clamp(min=0.0).square()
    differ = objects_C[:, None] != objects_C[None, :]
    count = len(objects_C)
    return torch.where(differ, push, 0.0).sum() / max(1, count * (count - 1))


def background_loss(logits_B1ZYX: Tensor, target_BZYX: Tensor, mask_BZYX: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, unweighted: the mean over the voxels where mask is true."""
    logits = logits_B1ZYX[:, 0].to(torch.float32)
    loss = functional.binary_cross_entropy_with_logits(logits, target_BZYX.to(torch.float32), reduction="none")
    if mask_BZYX is None:
        return loss.mean()
    return torch.where(mask_BZYX, loss, 0.0).sum() / mask_BZYX.sum().clamp(min=1)
