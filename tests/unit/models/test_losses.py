import numpy as np
import pytest
import torch

from models.losses import affinity_loss, affinity_targets, rebalanced

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 2, -3), (1, -2, 0), (-4, 0, 0), (0, 9, 0)]


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
    targets, valid = affinity_targets(torch.from_numpy(labels)[None], OFFSETS)
    for channel, offset in enumerate(OFFSETS):
        expected = reference_targets(labels, offset)
        np.testing.assert_array_equal(targets[0, channel], expected[0])
        np.testing.assert_array_equal(valid[0, channel], expected[1])


def test_a_masked_end_makes_an_edge_invalid():
    rng = np.random.default_rng(2)
    labels, mask = rng.integers(0, 3, (4, 5, 6)), rng.random((4, 5, 6)) < 0.7
    _, valid = affinity_targets(torch.from_numpy(labels)[None], OFFSETS, torch.from_numpy(mask)[None])
    for channel, offset in enumerate(OFFSETS):
        inside = reference_targets(labels, offset)[1]
        for i in np.ndindex(*labels.shape):
            j = tuple(a + o for a, o in zip(i, offset, strict=True))
            assert valid[0, channel][i] == (inside[i] and mask[i] and mask[j])


def test_both_classes_weigh_the_same():
    targets = torch.tensor([1.0, 1, 1, 0]).reshape(1, 1, 1, 1, 4)
    weights = rebalanced(targets, torch.ones_like(targets))
    assert weights.flatten().tolist() == [0.25, 0.25, 0.25, 0.75]
    half = torch.ones_like(targets)
    half[..., 0] = 0
    assert rebalanced(targets, half).flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])


def weights_ustc(targets: list[list[float]]) -> list[list[float]]:
    """Two channels of one patch; every edge is valid."""
    stacked = torch.tensor(targets).reshape(1, 2, 1, 1, -1)
    return rebalanced(stacked, torch.ones_like(stacked), "ustc").reshape(2, -1).tolist()


def test_ustc_weighs_the_rarer_class_of_all_channels_together():
    assert weights_ustc([[1, 0, 0, 0], [0, 0, 0, 1]]) == [[3, 1, 1, 1], [1, 1, 1, 3]]
    assert weights_ustc([[1, 1, 1, 1], [1, 1, 1, 0]]) == [pytest.approx([1] * 4), pytest.approx([1, 1, 1, 7])]


def test_ustc_has_limits():
    rare, frequent = [[1.0] + [0.0] * 99, [0.0] * 100], [[0.0] + [1.0] * 99, [1.0] * 100]
    assert weights_ustc(rare)[0][:2] == pytest.approx([19, 1])  # 1 % counts as 5 %
    assert weights_ustc(frequent)[0][:2] == pytest.approx([99, 1], rel=1e-4)  # 99.5 % count as 99 %


def test_ustc_counts_valid_edges_of_its_own_patch_alone():
    targets = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]]).reshape(2, 1, 1, 1, 4)
    valid = torch.ones_like(targets)
    valid[0, ..., 3] = 0
    found = rebalanced(targets, valid, "ustc").reshape(2, 4)
    torch.testing.assert_close(found, torch.tensor([[2.0, 1, 1, 0], [1, 1, 1, 3]]))


def test_the_long_range_weight_leaves_the_nearest_channels_and_the_denominator():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 2, 3, 4), (torch.rand(2, 5, 2, 3, 4) > 0.4).float()
    valid = (torch.rand(2, 5, 2, 3, 4) > 0.2).float()

    def loss(weight: float, channels: slice) -> float:
        valid_there = torch.zeros_like(valid)
        valid_there[:, channels] = valid[:, channels]
        found = affinity_loss(logits, targets, valid_there, rebalance="lee", long_range=weight)
        return (found * valid_there.sum() / valid.sum()).item()

    everywhere = affinity_loss(logits, targets, valid, rebalance="lee", long_range=0.25).item()
    assert everywhere == pytest.approx(loss(1, slice(3)) + 0.25 * loss(1, slice(3, 5)), rel=1e-5)
    assert loss(0.25, slice(3)) == pytest.approx(loss(1, slice(3)))


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
