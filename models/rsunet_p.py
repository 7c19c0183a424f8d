"""RSUNet-P: the residual symmetric U-Net as it was published first, normalised after its convolutions.

1. A convolution of 1 x 5 x 5 and ELU, then a residual module at full resolution; every further scale halves y and x
   (never z) by max pooling and runs its module at its own width.
2. The way back: upsampling in the plane, a 1 x 1 x 1 convolution to the finer width, the skip added, batch norm, ELU,
   a module.
3. A convolution of 1 x 5 x 5 and ELU, and for every head (`models.heads`) a convolution of 1 x 1 x 1.

A residual module is r = ELU(BN(C1(x))); y = ELU(BN(r + C3(ELU(BN(C2(r)))))), with C1 of 1 x 3 x 3, C2 and C3 of
3 x 3 x 3, none with a bias. Upsampling is linear with `align_corners` off, so that it does not know a patch's extent.

Batch norm takes the batch's statistics in training and the running ones in eval mode, in which the engine applies
every network: there a patch's output depends on that patch alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architecture import Index, read
from models.fusible import upsample_in_plane
from models.heads import Heads
from models.rsunet import IN_PLANE, initialise

MOMENTUM = 0.001
IN_SECTION = (1, 3, 3)


class BatchNorm(nn.Module):
    """Batch norm without PyTorch's step counter: an integer that float16 weights cannot hold and nobody reads."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Every channel less its mean, over its deviation: the batch's in training, else the running ones."""
        return functional.batch_norm(
            x_BCZYX, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum
        )


class ResidualModule(nn.Module):
    """Three convolutions, the last two with a residual connection around them."""

    def __init__(self, channels_in: int, channels_out: int, momentum: float) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels_out, IN_SECTION, padding=(0, 1, 1), bias=False)
        self.second = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.third = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(BatchNorm(channels_out, momentum) for _ in range(3))

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Same extent, another number of channels."""
        residual = functional.elu(self.norms[0](self.first(x_BCZYX)))
        inner = functional.elu(self.norms[1](self.second(residual)))
        return functional.elu(self.norms[2](residual + self.third(inner)))


class RSUNetP(nn.Module):
    """From one grey channel to named heads."""

    def __init__(
        self, widths: Sequence[int], heads: Mapping[str, int], crop: Index = (0, 0, 0), momentum: float = MOMENTUM
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.widths = tuple(widths)
        self.entry = nn.Conv3d(1, widths[0], IN_PLANE, padding=(0, 2, 2))
        self.encoders = nn.ModuleList(
            ResidualModule(channels_in, channels_out, momentum)
            for channels_in, channels_out in [(widths[0], widths[0]), *pairs]
        )
        self.narrow = nn.ModuleList(nn.Conv3d(coarse, fine, 1, bias=False) for fine, coarse in pairs)
        self.norms = nn.ModuleList(BatchNorm(fine, momentum) for fine, _ in pairs)
        self.decoders = nn.ModuleList(ResidualModule(fine, fine, momentum) for fine, _ in pairs)
        self.exit = nn.Conv3d(widths[0], widths[0], IN_PLANE, padding=(0, 2, 2))
        self.heads = Heads(widths[0], heads, (1, 1, 1), crop)
        self.apply(initialise)

    def forward(self, image_BCZYX: Tensor) -> dict[str, Tensor]:
        """What every head says about the image less the crop; y and x must divide by 2 ** (scales - 1)."""
        outputs: dict[str, Tensor] = self.heads(self.trunk(image_BCZYX))
        return outputs

    def trunk(self, image_BCZYX: Tensor) -> Tensor:
        """Everything but the heads: what may be compiled and run in bfloat16."""
        h = self.encoders[0](functional.elu(self.entry(image_BCZYX)))
        skips = []
        for encode in self.encoders[1:]:
            skips.append(h)
            h = encode(functional.max_pool3d(h, (1, 2, 2)))
        for scale in reversed(range(len(skips))):
            # A 1 x 1 x 1 convolution and upsampling may change places: this way round is cheaper.
            joined = skips[scale] + upsample_in_plane(self.narrow[scale](h))
            h = self.decoders[scale](functional.elu(self.norms[scale](joined)))
        return functional.elu(self.exit(h))


def build(architecture: Mapping[str, Any]) -> RSUNetP:
    """The network of an architecture as a weights' spec states it."""
    stated = read(architecture)
    return RSUNetP(stated.widths, stated.heads, stated.crop)
