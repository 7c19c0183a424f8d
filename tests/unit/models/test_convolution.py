"""The convolution for training on CPUs: the values and gradients of PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.convolution import Conv3d


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
@pytest.mark.parametrize("batch", [1, 2])
def test_values_and_gradients_are_those_of_pytorch(batch: int, kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    ours = Conv3d(5, 7, kernel, padding=padding)
    plain = nn.Conv3d(5, 7, kernel, padding=padding, bias=False)
    plain.load_state_dict(ours.state_dict())
    answers = []
    for convolution in (ours, plain):
        x = torch.randn(batch, 5, 6, 10, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = convolution(x)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        assert x.grad is not None
        assert convolution.weight.grad is not None
        answers.append((y.detach(), x.grad, convolution.weight.grad))
    for found, expected in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_input_that_learns_nothing_gets_no_gradient() -> None:
    convolution = Conv3d(1, 2, 3, padding=1)
    convolution(torch.rand(1, 1, 4, 6, 6)).sum().backward()
    assert convolution.weight.grad is not None


def test_other_precisions_take_pytorchs_own() -> None:
    convolution = Conv3d(2, 3, 3, padding=1).double()
    x = torch.rand(1, 2, 4, 6, 6, dtype=torch.float64)
    assert torch.equal(convolution(x), nn.Conv3d.forward(convolution, x))


def test_inference_is_pytorchs_own() -> None:
    convolution = Conv3d(2, 3, 3, padding=1)
    x = torch.rand(2, 2, 4, 6, 6)
    with torch.inference_mode():
        assert torch.equal(convolution(x), nn.Conv3d.forward(convolution, x))
