from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from models.edge_pull import edge_pull

DELTA = 1.5
SHAPE = (2, 3, 4)
OFFSETS = ((-1, 0, 0), (0, 0, -1), (1, -2, 0))


def slow(vectors: np.ndarray, parts: np.ndarray, objects: list[int], *, exempt: bool = True) -> float:
    """The rule, one edge at a time."""
    total = 0.0
    for offset in OFFSETS:
        pulls, pushes = [], []
        for here in product(*map(range, SHAPE)):
            there = tuple(p + o for p, o in zip(here, offset, strict=True))
            if any(not 0 <= p < n for p, n in zip(there, SHAPE, strict=True)) or not (parts[here] and parts[there]):
                continue
            distance = np.abs(vectors[:, *here] - vectors[:, *there]).sum()
            one, two = (objects[parts[end] - 1] for end in (here, there))
            if parts[here] == parts[there]:
                pulls.append(distance**2)
            elif one != two or not exempt:
                pushes.append(max(2 * DELTA - distance, 0) ** 2)
        total += sum(sum(values) / max(1, len(values)) for values in (pulls, pushes)) / 2
    return total / len(OFFSETS)


def example(seed: int) -> tuple[Tensor, Tensor, list[int]]:
    made = np.random.default_rng(seed)
    vectors = torch.from_numpy(made.normal(0, 1, (1, 3, *SHAPE)).astype(np.float32)).requires_grad_()
    return vectors, torch.from_numpy(made.integers(0, 4, (1, *SHAPE))), [7, 9, 7]


def of(vectors: Tensor, parts: Tensor, objects: list[int]) -> Tensor:
    return edge_pull(vectors, parts, [torch.tensor(objects, dtype=torch.int64)], OFFSETS, delta=DELTA)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_rule_edge_by_edge(seed: int) -> None:
    vectors, parts, objects = example(seed)
    arrays = vectors.detach()[0].numpy(), parts[0].numpy()
    assert of(vectors, parts, objects).item() == pytest.approx(slow(*arrays, objects), rel=1e-5)


def test_pairs_of_one_object_say_nothing() -> None:
    vectors, parts, objects = example(0)
    pushed = slow(vectors.detach()[0].numpy(), parts[0].numpy(), objects, exempt=False)
    assert of(vectors, parts, objects).item() < 0.99 * pushed


def test_background_has_no_gradient() -> None:
    vectors, parts, objects = example(0)
    of(vectors, parts, objects).backward()
    moved = vectors.grad.abs().sum(1) > 0
    assert not moved[parts == 0].any()
    assert moved[parts > 0].any()


def test_a_batch_has_the_mean_of_its_patches() -> None:
    (one, parts, objects), (two, others, _) = example(1), example(2)
    both = edge_pull(
        torch.cat([one, two]), torch.cat([parts, others]), [torch.tensor(objects)] * 2, OFFSETS, delta=DELTA
    )
    assert both.item() == pytest.approx((of(one, parts, objects) + of(two, others, objects)).item() / 2, rel=1e-6)


def test_without_parts_it_is_nothing() -> None:
    vectors = torch.ones((1, 3, *SHAPE), requires_grad=True)
    nothing = of(vectors, torch.zeros((1, *SHAPE), dtype=torch.int64), [])
    nothing.backward()
    assert nothing.item() == 0
    assert torch.isfinite(vectors.grad).all()
