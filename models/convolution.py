"""A 3D convolution without bias whose training is faster on CPUs than PyTorch's own.

PyTorch takes slow kernels on a CPU in two cases: for the weights' gradient where the convolution itself pads, and
forward where a single patch is short in z and y. So here, on a CPU, the gradient is taken of an input that is padded
beforehand, and oneDNN's kernel is called by its name: a training step of RSUNet takes two thirds of the time
(benchmarks/models/training_step.py). Values and gradients are those of `nn.Conv3d` up to rounding; a GPU, bfloat16,
compiled code and inference take `nn.Conv3d` as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ONES = (1, 1, 1)
WEIGHTS_ONLY = (False, True, False)
INPUT_ONLY = (True, False, False)


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` with stride 1 and zero padding, without bias."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, padding: int = 0) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=padding, bias=False)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """The convolved volume."""
        if torch.compiler.is_compiling() or not self._is_slow(x_BCZYX):
            return super().forward(x_BCZYX)
        convolved: Tensor = _OneDnn.apply(x_BCZYX, self.weight, self.padding)  # type: ignore[no-untyped-call]
        return convolved

    def _is_slow(self, x_BCZYX: Tensor) -> bool:
        trained = torch.is_grad_enabled() and self.weight.requires_grad
        single = x_BCZYX.dtype == torch.float32 and not torch.is_autocast_enabled(x_BCZYX.device.type)
        return trained and single and x_BCZYX.device.type == "cpu" and _has_onednn()


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class _OneDnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCZYX: Tensor, weight: Tensor, padding: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(x_BCZYX, weight)
        ctx.padding = padding
        convolved: Tensor = torch.ops.aten.mkldnn_convolution(x_BCZYX, weight, None, padding, ONES, ONES, 1)
        return convolved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x_BCZYX, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _backward(gradient, x_BCZYX, weight, ctx.padding, INPUT_ONLY)[0]
        z, y, x = ctx.padding
        padded = functional.pad(x_BCZYX, (x, x, y, y, z, z))
        of_weight = _backward(gradient, padded, weight, (0, 0, 0), WEIGHTS_ONLY)[1]
        return of_input, of_weight, None


def _backward(
    gradient: Tensor, x_BCZYX: Tensor, weight: Tensor, padding: tuple[int, int, int], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x_BCZYX, weight, None, ONES, padding, ONES, False, (0, 0, 0), 1, wanted
    )
    return found
