import numpy as np
import pytest
import torch

from models.losses import affinity_loss, affinity_targets, rebalanced


def reference_targets(labels: np.ndarray, offset: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    targets, valid = np.zeros(labels.shape), np.zeros(labels.shape)
    for i in np.ndindex(*labels.shape):
        j = tuple(a + o for a, o in zip(i, offset, strict=True))
        if all(0 <= p < n for p, n in zip(j, labels.shape, strict=True)):
            valid[i] = 1
            targets[i] = labels[i] == labels[j] and labels[i] > 0
    return targets, valid


def test_targets_match_brute_force():
    labels = np.random.default_rng(1).integers(0, 3, (4, 5, 6))
    offsets = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 2, -3), (-4, 0, 0)]
    targets, valid = affinity_targets(torch.from_numpy(labels)[None], offsets)
    for channel, offset in enumerate(offsets):
        expected = reference_targets(labels, offset)
        np.testing.assert_array_equal(targets[0, channel], expected[0])
        np.testing.assert_array_equal(valid[0, channel], expected[1])


def test_both_classes_weigh_the_same():
    targets = torch.tensor([1.0, 1, 1, 0]).reshape(1, 1, 1, 1, 4)
    weights = rebalanced(targets, torch.ones_like(targets))
    assert weights.flatten().tolist() == [0.25, 0.25, 0.25, 0.75]
    half = torch.ones_like(targets)
    half[..., 0] = 0
    assert rebalanced(targets, half).flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])


def test_masked_edges_have_no_gradient():
    logits = torch.zeros((1, 1, 1, 2, 2), requires_grad=True)
    targets = torch.tensor([1.0, 0, 1, 0]).reshape(1, 1, 1, 2, 2)
    valid = torch.tensor([1.0, 1, 0, 0]).reshape(1, 1, 1, 2, 2)
    loss = affinity_loss(logits, targets, valid)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * np.log(2))
    assert (logits.grad.flatten() != 0).tolist() == [True, True, False, False]


def test_without_rebalancing_every_valid_edge_weighs_one():
    logits = torch.tensor([2.0, -1.0, 0.5, 9.0]).reshape(1, 1, 1, 1, 4)
    targets = torch.tensor([1.0, 0, 1, 0]).reshape(1, 1, 1, 1, 4)
    valid = torch.tensor([1.0, 1, 1, 0]).reshape(1, 1, 1, 1, 4)
    expected = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(-0.5))]
    loss = affinity_loss(logits, targets, valid, rebalance="none")
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_no_valid_edge_is_no_loss():
    nothing = torch.zeros((1, 1, 1, 2, 2))
    assert affinity_loss(nothing, nothing, nothing).item() == 0
