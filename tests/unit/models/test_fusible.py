"""Both forms of a piece give one answer: PyTorch's kernels, and what a compiler looks into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.fusible import norm_relu, upsample_in_plane


def traced(piece: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The form that compilers see, run by PyTorch's kernels."""
    torch.compiler.reset()
    return torch.compile(piece, backend="eager", fullgraph=True)


def values_and_gradient(piece: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = piece(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def test_norm_and_relu() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm3d(3, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 5 + 2 * torch.randn(2, 3, 4, 6, 8)
    found = values_and_gradient(traced(lambda x: norm_relu(x, norm)), x)
    expected = values_and_gradient(lambda x: norm_relu(x, norm), x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert (found[0] == 0).any()


def test_norm_and_relu_round_to_the_precision_of_autocast() -> None:
    norm = nn.InstanceNorm3d(3, affine=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert traced(lambda x: norm_relu(x, norm))(torch.rand(1, 3, 4, 6, 8)).dtype == torch.bfloat16
    assert traced(lambda x: norm_relu(x, norm))(torch.rand(1, 3, 4, 6, 8)).dtype == torch.float32


@pytest.mark.parametrize("extent", [(3, 4, 6), (1, 1, 2), (2, 5, 1)])
def test_upsampling(extent: tuple[int, int, int]) -> None:
    x = torch.rand(2, 3, *extent)
    found = values_and_gradient(traced(upsample_in_plane), x)
    expected = values_and_gradient(upsample_in_plane, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_upsampling_is_bilinear_in_the_plane() -> None:
    x = torch.rand(1, 2, 3, 4, 5)
    finer = upsample_in_plane(x)
    for section in range(3):
        expected = functional.interpolate(x[:, :, section], scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(finer[:, :, section], expected)
