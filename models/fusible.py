"""Pieces of RSUNet that have two forms of one answer: PyTorch's kernels, and one that a compiler can look into.

1. Instance norm and ReLU. PyTorch's instance norm is a batch norm over B x C channels: it copies arrays that lie
   channels last. Spelled out, mean and variance are taken in float32, and the rest is one multiplication and one
   addition a voxel, fused with the ReLU and the rounding to bfloat16.
2. Upsampling by two in the plane, bilinear: new voxels lie a quarter beside old ones, so each is 3/4 of its own and 1/4
   of its neighbour (at the border of itself). Spelled out, its gradient is a sum and no scattering of values.

Both forms agree up to rounding; only compiled code takes the second one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EXTENT = (2, 3, 4)  # the axes z, y, x
NEAR, FAR = 0.75, 0.25


def norm_relu(x_BCZYX: Tensor, norm: nn.InstanceNorm3d) -> Tensor:
    """What `norm` and a ReLU make of it; with autocast, compiled code rounds to its precision."""
    if not torch.compiler.is_compiling():
        return functional.relu(norm(x_BCZYX), inplace=True)
    wide = x_BCZYX.to(torch.float32)
    variance, mean = torch.var_mean(wide, dim=EXTENT, keepdim=True, correction=0)
    scale = norm.weight[:, None, None, None] * torch.rsqrt(variance + norm.eps)
    shift = norm.bias[:, None, None, None] - mean * scale
    out = functional.relu(wide * scale + shift)
    device = x_BCZYX.device.type
    return out.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else out


def upsample_in_plane(x_BCZYX: Tensor) -> Tensor:
    """Twice as long in y and x, bilinear; z is left alone."""
    if torch.compiler.is_compiling():
        return _twice(_twice(x_BCZYX, 3), 4)
    b, c, z, y, x = x_BCZYX.shape
    sections = x_BCZYX.reshape(b, c * z, y, x)
    finer = functional.interpolate(sections, scale_factor=2.0, mode="bilinear", align_corners=False)
    return finer.reshape(b, c, z, 2 * y, 2 * x)


def _twice(x_BCZYX: Tensor, axis: int) -> Tensor:
    last = x_BCZYX.shape[axis] - 1
    before = torch.cat([x_BCZYX.narrow(axis, 0, 1), x_BCZYX.narrow(axis, 0, last)], axis)
    after = torch.cat([x_BCZYX.narrow(axis, 1, last), x_BCZYX.narrow(axis, last, 1)], axis)
    own = NEAR * x_BCZYX
    return torch.stack([own + FAR * before, own + FAR * after], axis + 1).flatten(axis, axis + 1)
