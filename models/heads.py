"""What a network says: one convolution for every head, on what its trunk found.

Heads return logits, except "embedding": vectors, times one scale that is learned (from 0.1). All outputs are cut by
the same `crop` on either side of z, y, x. Under autocast the trunk may run in bfloat16; heads run, and answer, in
float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.architecture import Index

FIRST_SCALE = 0.1


class Heads(nn.ModuleDict):
    """A convolution for every head, all of one kernel."""

    def __init__(self, channels: int, heads: Mapping[str, int], kernel: Index, crop: Index) -> None:
        z, y, x = (extent // 2 for extent in kernel)
        super().__init__({name: nn.Conv3d(channels, count, kernel, padding=(z, y, x)) for name, count in heads.items()})
        self.crop = crop
        if "embedding" in heads:
            self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    def forward(self, features_BCZYX: Tensor) -> dict[str, Tensor]:
        """Every head's output."""
        inside = tuple(slice(cut, n - cut) for cut, n in zip(self.crop, features_BCZYX.shape[2:], strict=True))
        outputs: dict[str, Tensor] = {}
        with torch.autocast(features_BCZYX.device.type, enabled=False):
            for name, convolution in self.items():
                precision = next(convolution.parameters()).dtype
                out = convolution(features_BCZYX.to(precision))[:, :, *inside].to(torch.float32)
                outputs[name] = out * self.scale if name == "embedding" else out
        return outputs
