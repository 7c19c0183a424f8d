import numpy as np
import pytest
import torch

from models.metric_graph import affinity, metric_affinities
from models.offsets import METRIC

DELTA = 1.5


@pytest.mark.parametrize(
    ("distance", "expected"), [(0, 1), (0.75, 0.5625), (1.5, 0.25), (2.25, 0.0625), (3, 0), (7, 0)]
)
def test_affinity_of_a_distance(distance: float, expected: float):
    assert affinity(torch.tensor(float(distance)), DELTA).item() == expected


def test_it_matches_brute_force():
    vectors = np.random.default_rng(0).normal(0, 0.6, (2, 4, 3, 7, 8)).astype(np.float32)
    offsets = [*METRIC, (-3, 0, 0), (2, -1, 3)]
    affinities, exists = metric_affinities(torch.from_numpy(vectors), offsets, DELTA)
    expected, inside = np.zeros(affinities.shape), np.zeros(exists.shape, bool)
    for b, c in np.ndindex(2, len(offsets)):
        for i in np.ndindex(3, 7, 8):
            j = tuple(np.add(i, offsets[c]))
            if all(0 <= p < n for p, n in zip(j, (3, 7, 8), strict=True)):
                inside[(c, *i)] = True
                distance = np.abs(vectors[(b, slice(None), *i)] - vectors[(b, slice(None), *j)]).sum()
                expected[(b, c, *i)] = max((2 * DELTA - distance) / (2 * DELTA), 0) ** 2
    np.testing.assert_array_equal(exists, inside)
    np.testing.assert_allclose(affinities, expected, rtol=1e-4, atol=1e-6)
    assert 0.2 < (affinities[:, exists] > 0).float().mean() < 0.95  # both branches


def test_gradients_are_finite_and_zero_at_distance_zero():
    vectors = torch.ones(1, 4, 2, 3, 3, requires_grad=True)
    affinities, exists = metric_affinities(vectors, METRIC[:5], DELTA)
    assert (affinities[:, exists] == 1).all()
    affinities.sum().backward()
    assert (vectors.grad == 0).all()


def test_distances_are_float32_whatever_the_vectors_are():
    vectors = torch.rand(1, 4, 2, 3, 3, dtype=torch.bfloat16)
    exact, _ = metric_affinities(vectors.to(torch.float32), METRIC[:5], DELTA)
    assert torch.equal(metric_affinities(vectors, METRIC[:5], DELTA)[0], exact)
