from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.embedding_loss import EmbeddingLoss, background_loss, embedding_loss
from models.engine import deterministic
from models.label_parts import find_parts

# Seven voxels, two dimensions: part 1 has three voxels, parts 2 and 3 one each; two voxels are of no part.
X = [0.0, 0.0, 1.5, 2.0, 1.0, 9.0, -5.0]
Y = [0.0, 3.0, 0.0, 0.5, 1.0, 9.0, 7.0]
PARTS = [1, 1, 1, 2, 3, 0, 0]


def example() -> Tensor:
    return torch.tensor([X, Y]).reshape(1, 2, 1, 1, 7).requires_grad_()


def loss_of(vectors: Tensor, parts: list[int], objects: list[int]) -> EmbeddingLoss:
    return embedding_loss(vectors, torch.tensor(parts).reshape(1, 1, 1, -1), [torch.tensor(objects, dtype=torch.int64)])


def test_three_objects_by_hand():
    # Means: (0.5, 1), (2, 0.5), (1, 1). Distances of part 1 to its mean: 1.5, 2.5, 2.
    # Between means: 2 (1 and 2), 0.5 (1 and 3), 1.5 (2 and 3); three less that: 1, 2.5, 1.5.
    found = loss_of(example(), PARTS, [10, 20, 30])
    assert found.internal.item() == pytest.approx((1.5**2 + 2.5**2 + 2**2) / 3 / 3)
    assert found.external.item() == pytest.approx(2 * (1**2 + 2.5**2 + 1.5**2) / 6)
    assert found.regularisation.item() == pytest.approx((1.5 + 2.5 + 2) / 3)
    terms = (found.internal.item(), found.external.item(), found.regularisation.item())
    assert found.total.item() == pytest.approx(terms[0] + terms[1] + 0.001 * terms[2])


def test_the_exemption_removes_pairs_of_one_object_and_leaves_the_denominator():
    found = loss_of(example(), PARTS, [10, 20, 10])
    assert found.external.item() == pytest.approx(2 * (1**2 + 1.5**2) / 6)
    assert loss_of(example(), PARTS, [10, 10, 10]).external.item() == 0
    free = loss_of(example(), PARTS, [10, 20, 30])
    assert (found.internal, found.regularisation) == (free.internal, free.regularisation)


def test_voxels_of_no_part_have_no_gradient():
    vectors = example()
    loss_of(vectors, PARTS, [10, 20, 30]).total.backward()
    used = vectors.grad.abs().sum((0, 1, 2, 3)) > 0
    assert used.tolist() == [True] * 5 + [False] * 2


@pytest.mark.parametrize(("parts", "objects"), [([0] * 7, []), ([1] * 7, [4])])
def test_no_part_and_one_part(parts: list[int], objects: list[int]):
    vectors = example()
    found = loss_of(vectors, parts, objects)
    assert found.external.item() == 0
    assert (found.internal.item() > 0) == bool(objects)
    found.total.backward()
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad.abs().sum().item() > 0 or not objects


def crop(seed: int, shape: tuple[int, int, int] = (3, 8, 9)) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (shape[0], 4, 5)).repeat(2, 1).repeat(2, 2)[:, : shape[1], : shape[2]]
    parts = find_parts(labels, dust_vx=2)
    vectors = torch.from_numpy(rng.normal(0, 0.3, (4, *shape)).astype(np.float32))
    return vectors, torch.from_numpy(parts.parts_ZYX), torch.from_numpy(parts.objects)


def reference(vectors: np.ndarray, parts: np.ndarray, objects: np.ndarray, delta: float) -> tuple[float, float, float]:
    count = len(objects)
    means = [vectors[:, parts == c].mean(1) for c in range(1, count + 1)]
    pulls = [(np.abs(vectors[:, parts == c] - means[c - 1][:, None]).sum(0) ** 2).mean() for c in range(1, count + 1)]
    push = 0.0
    for a in range(count):
        for b in range(count):
            if a != b and objects[a] != objects[b]:
                push += max(2 * delta - np.abs(means[a] - means[b]).sum(), 0) ** 2
    return float(np.mean(pulls)), push / (count * (count - 1)), float(np.mean([np.abs(m).sum() for m in means]))


@pytest.mark.parametrize("delta", [0.5, 1.5])
def test_a_batch_has_the_mean_of_what_brute_force_finds(delta: float):
    crops = [crop(seed) for seed in range(3)]
    assert any(len(set(objects.tolist())) < len(objects) for _, _, objects in crops)  # something to exempt
    vectors, parts, objects = zip(*crops, strict=True)
    found = embedding_loss(torch.stack(vectors), torch.stack(parts), objects, delta=delta)
    expected = [reference(v.double().numpy(), p.numpy(), o.numpy(), delta) for v, p, o in crops]
    np.testing.assert_allclose([t.item() for t in found], np.mean(expected, axis=0), rtol=1e-5)


def test_ids_may_be_permuted():
    vectors, parts, objects = crop(3)
    before = embedding_loss(vectors[None], parts[None], [objects])
    order = torch.randperm(len(objects), generator=torch.Generator().manual_seed(0))
    new_number = torch.zeros(len(objects) + 1, dtype=torch.int64)
    new_number[order + 1] = torch.arange(1, len(objects) + 1)
    renamed = objects * 7919 % 1009  # another number for every object
    after = embedding_loss(vectors[None], new_number[parts][None], [renamed[order]])
    torch.testing.assert_close(torch.stack(after), torch.stack(before))


def test_gradients_match_finite_differences():
    vectors, parts, objects = crop(4, (2, 4, 5))
    step = 1e-2
    vectors = vectors[None].requires_grad_()
    embedding_loss(vectors, parts[None], [objects]).total.backward()
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead, behind = (
            embedding_loss(vectors + s * direction, parts[None], [objects]).total.item() for s in (step, -step)
        )
    along = (vectors.grad * direction).sum().item()
    assert (ahead - behind) / (2 * step) == pytest.approx(along, rel=0.02)


def test_it_is_float32_whatever_the_network_ran_in():
    vectors, parts, objects = crop(5)
    coarse = vectors[None].to(torch.bfloat16)
    exact = embedding_loss(coarse.to(torch.float32), parts[None], [objects])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = embedding_loss(coarse, parts[None], [objects])
    assert torch.equal(torch.stack(mixed), torch.stack(exact))


def test_training_with_it_is_reproducible():
    def gradient() -> Tensor:
        vectors, parts, objects = crop(6)
        vectors = vectors[None].requires_grad_()
        embedding_loss(vectors, parts[None], [objects]).total.backward()
        return vectors.grad

    with deterministic():  # which refuses what is not
        assert torch.equal(gradient(), gradient())


def test_the_backgrounds_loss_is_plain_cross_entropy():
    logits = torch.tensor([2.0, -1.0, 0.5, 9.0]).reshape(1, 1, 1, 1, 4).requires_grad_()
    target = torch.tensor([True, False, False, False]).reshape(1, 1, 1, 4)
    terms = [np.log1p(np.exp(x)) for x in (-2.0, -1.0, 0.5, 9.0)]
    assert background_loss(logits, target).item() == pytest.approx(np.mean(terms), rel=1e-5)
    mask = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    masked = background_loss(logits, target, mask)
    assert masked.item() == pytest.approx(np.mean(terms[:3]), rel=1e-5)
    masked.backward()
    assert (logits.grad.flatten() != 0).tolist() == [True, True, True, False]
    assert background_loss(logits, target, torch.zeros_like(mask)).item() == 0
