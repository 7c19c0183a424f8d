"""RSUNet-L: the residual symmetric U-Net for anisotropic electron microscopy.

1. A convolution of 1 x 5 x 5, then a residual module at full resolution; every further scale halves y and x (never z)
   by max pooling and runs its module at its own width.
2. The way back: bilinear upsampling in the plane, a 1 x 1 x 1 convolution to the finer width, the skip added, a module.
3. Normalisation, ReLU, and for every head (`models.heads`) a convolution of 1 x 5 x 5 with a bias.

A residual module is four times (instance norm, ReLU, convolution of 3 x 3 x 3 without bias):
h = C1(x); h = h + C3(C2(h)); y = C4(h). Instance norm keeps no running statistics: a patch's output depends on that
patch alone, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from models.architecture import Index, read
from models.convolution import Conv3d
from models.fusible import norm_relu, upsample_in_plane
from models.heads import Heads

IN_PLANE = (1, 5, 5)


class NormConv(nn.Module):
    """Instance norm, ReLU, convolution of 3 x 3 x 3 without bias."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(channels_in, affine=True)
        self.conv = Conv3d(channels_in, channels_out, 3, padding=1)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Same extent, another number of channels."""
        convolved: Tensor = self.conv(norm_relu(x_BCZYX, self.norm))
        return convolved


class ResidualModule(nn.Module):
    """Four convolutions, the middle two with a residual connection around them."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = NormConv(channels_in, channels_out)
        self.inner = nn.Sequential(NormConv(channels_out, channels_out), NormConv(channels_out, channels_out))
        self.last = NormConv(channels_out, channels_out)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Same extent, another number of channels."""
        h = self.first(x_BCZYX)
        h = h + self.inner(h)
        module_out: Tensor = self.last(h)
        return module_out


class RSUNet(nn.Module):
    """From one grey channel to named heads."""

    def __init__(self, widths: Sequence[int], heads: Mapping[str, int], crop: Index = (0, 0, 0)) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.widths = tuple(widths)
        self.entry = nn.Conv3d(1, widths[0], IN_PLANE, padding=(0, 2, 2), bias=False)
        self.encoders = nn.ModuleList(
            [ResidualModule(widths[0], widths[0]), *(ResidualModule(fine, coarse) for fine, coarse in pairs)]
        )
        self.narrow = nn.ModuleList(Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoders = nn.ModuleList(ResidualModule(fine, fine) for fine, _ in pairs)
        self.norm = nn.InstanceNorm3d(widths[0], affine=True)
        self.heads = Heads(widths[0], heads, IN_PLANE, crop)
        self.apply(initialise)

    def forward(self, image_BCZYX: Tensor) -> dict[str, Tensor]:
        """What every head says about the image less the crop; y and x must divide by 2 ** (scales - 1)."""
        outputs: dict[str, Tensor] = self.heads(self.trunk(image_BCZYX))
        return outputs

    def trunk(self, image_BCZYX: Tensor) -> Tensor:
        """Everything but the heads: what may be compiled and run in bfloat16."""
        h = self.encoders[0](self.entry(image_BCZYX))
        skips = []
        for encode in self.encoders[1:]:
            skips.append(h)
            h = encode(functional.max_pool3d(h, (1, 2, 2)))
        for scale in reversed(range(len(skips))):
            h = self.decoders[scale](skips[scale] + upsample_in_plane(self.narrow[scale](h)))
        return norm_relu(h, self.norm)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights, biases 0."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(architecture: Mapping[str, Any]) -> RSUNet:
    """The network of an architecture as a weights' spec states it."""
    stated = read(architecture)
    return RSUNet(stated.widths, stated.heads, stated.crop)


def parameters(network: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(p.numel() for p in network.parameters())
