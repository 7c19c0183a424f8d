"""What a network is trained for: the truth that it is told, and the loss of what it says.

affinity    the edges of all offsets, masked to those inside the output, rebalanced (models.losses)
embedding   vectors that agree inside a part and differ between objects, and the background beside them
            (models.embedding_loss); the parts are those of the crop that the network puts out

The loop knows no kind of network: it asks its objective. Losses are float32 on the network's device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.crops import Batch
from models.edge_pull import edge_pull
from models.embedding_loss import background_loss, embedding_loss
from models.losses import Rebalance, affinity_loss, affinity_targets
from models.spec import NEAREST, Index

Outputs = Mapping[str, Tensor]


class Objective(Protocol):
    """What the training loop asks for."""

    @property
    def name(self) -> str:
        """The head that is trained."""

    @property
    def parts(self) -> bool:
        """Whether batches must come with the parts of their labels."""

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Scalars: `loss` is what is minimised, the others are what it is made of."""


@dataclass(frozen=True)
class AffinityObjective:
    """Binary cross-entropy of edges."""

    offsets: tuple[Index, ...] = NEAREST
    rebalance: Rebalance = "lee"
    long_range: float = 1.0  # the weight of edges beyond the nearest
    name: str = "affinity"
    parts: bool = False

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The mean over all edges inside the output."""
        logits = outputs["affinity"]
        targets, valid = affinity_targets(torch.from_numpy(batch.labels_BZYX).to(logits.device), self.offsets)
        return {"loss": affinity_loss(logits, targets, valid, rebalance=self.rebalance, long_range=self.long_range)}


@dataclass(frozen=True)
class EmbeddingObjective:
    """The means-based loss, and the background's."""

    delta: float = 1.5
    offsets: tuple[Index, ...] = ()  # of the metric graph, if its edges are to be looked at one by one, too
    edges: float = 0.0  # their weight
    name: str = "embedding"
    parts: bool = True

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The sum, and its parts without their weights."""
        vectors = outputs["embedding"]
        device = vectors.device
        if batch.background_BZYX is None:
            raise ValueError("this batch was drawn without parts")
        parts = torch.stack([torch.from_numpy(found.parts_ZYX) for found in batch.parts]).to(device)
        objects = [torch.from_numpy(found.objects).to(device) for found in batch.parts]
        terms = embedding_loss(vectors, parts, objects, delta=self.delta)
        mask = background_loss(outputs["background"], torch.from_numpy(batch.background_BZYX).to(device))
        told, total = dict[str, Tensor](), terms.total + mask
        if self.edges:
            told["edges"] = edge_pull(vectors, parts, objects, self.offsets, delta=self.delta)
            total = total + self.edges * told["edges"]
        return {
            "loss": total,
            **told,
            "internal": terms.internal,
            "external": terms.external,
            "background": mask,
        }
