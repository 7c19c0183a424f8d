"""That networks learn what their losses ask for: small trainings on cells with dark membranes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from torch import Tensor

from models.embedding_loss import background_loss, embedding_loss
from models.label_parts import background_target, find_parts
from models.losses import affinity_loss, affinity_targets
from models.metric_graph import metric_affinities
from models.networks import build
from models.spec import NEAREST
from pipeline.ops.background import widen_background

Index = tuple[int, int, int]

FLATTENED = 4  # a step in z is as long as four in the plane
VOXELS_A_CELL = 300
CROP = (1, 6, 6)  # what a network that generalises cuts off its output


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def cells(shape: Index, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image in [0, 1] and labels of a Voronoi diagram: the membrane is dark where two seeds are about as near."""
    rng = np.random.default_rng(seed)
    stretch = np.array([FLATTENED, 1, 1])
    seeds = rng.uniform(0, shape, (int(np.prod(shape)) // VOXELS_A_CELL, 3)) * stretch
    places = np.stack(np.indices(shape), -1).reshape(-1, 3) * stretch
    distance, nearest = cKDTree(seeds).query(places, k=2)
    gap = (distance[:, 1] - distance[:, 0]).reshape(shape)
    image = 0.8 - 0.6 * np.exp(-((gap / 2) ** 2)) + rng.normal(0, 0.06, shape)
    labels = widen_background(1 + nearest[:, 0].reshape(shape).astype(np.uint64))
    return np.clip(image, 0, 1).astype(np.float32), labels


def auc(scores: Tensor, truth: Tensor) -> float:
    """How often a true one scores higher than a false one."""
    ranks = rankdata(scores.numpy())
    ones = truth.numpy() > 0.5
    count = int(ones.sum())
    return float((ranks[ones].sum() - count * (count + 1) / 2) / (count * (len(ones) - count)))


def fit(network: torch.nn.Module, rate: float, steps: int, loss_of_step: Callable[[], Tensor]) -> list[float]:
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, amsgrad=True)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = loss_of_step()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_affinities_of_cells_that_were_held_out():
    network = build({"name": "rsunet", "widths": [8, 12, 16], "heads": {"affinity": 3}})
    image, labels = cells((24, 112, 112), seed=1)
    rng, patch = np.random.default_rng(0), (8, 48, 48)

    def loss_of_step() -> Tensor:
        corners = [[rng.integers(n - p + 1) for n, p in zip(image.shape, patch, strict=True)] for _ in range(2)]
        boxes = [tuple(slice(b, b + p) for b, p in zip(corner, patch, strict=True)) for corner in corners]
        images = torch.from_numpy(np.stack([image[box] for box in boxes]))[:, None]
        truth = torch.from_numpy(np.stack([labels[box] for box in boxes]).astype(np.int64))
        return affinity_loss(network(images)["affinity"], *affinity_targets(truth, NEAREST))

    losses = fit(network, 2e-3, 60, loss_of_step)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    unseen, truth = cells((12, 96, 96), seed=2)
    targets, valid = affinity_targets(torch.from_numpy(truth.astype(np.int64))[None], NEAREST)
    with torch.inference_mode():
        logits = network(torch.from_numpy(unseen)[None, None])["affinity"]
    for channel in range(3):
        there = valid[0, channel] > 0
        assert auc(logits[0, channel][there], targets[0, channel][there]) > 0.9


@pytest.mark.exhaustive
def test_an_embedding_of_cells_that_were_held_out():
    heads = {"embedding": 8, "background": 1}
    network = build({"name": "rsunet", "widths": [8, 12, 16], "heads": heads, "crop": CROP})
    image, labels = cells((24, 112, 112), seed=1)
    rng, patch = np.random.default_rng(0), (8, 48, 48)

    def loss_of_step() -> Tensor:
        corner = [rng.integers(n - p + 1) for n, p in zip(image.shape, patch, strict=True)]
        box = tuple(slice(b, b + p) for b, p in zip(corner, patch, strict=True))
        out = network(torch.from_numpy(image[box])[None, None])
        inner = labels[box][tuple(slice(c, n - c) for c, n in zip(CROP, patch, strict=True))]
        parts = find_parts(inner)
        vectors = embedding_loss(
            out["embedding"], torch.from_numpy(parts.parts_ZYX)[None], [torch.from_numpy(parts.objects)]
        )
        return vectors.total + background_loss(out["background"], torch.from_numpy(background_target(inner))[None])

    losses = fit(network, 2e-3, 250, loss_of_step)
    assert np.mean(losses[-10:]) < 0.25 * losses[0]
    unseen, truth = cells((12, 96, 96), seed=2)
    inner = truth[tuple(slice(c, n - c) for c, n in zip(CROP, truth.shape, strict=True))]
    with torch.inference_mode():
        out = network(torch.from_numpy(unseen)[None, None])
    found = auc(out["background"].flatten(), torch.from_numpy(background_target(inner)).flatten())
    assert found > 0.85


@pytest.mark.slow
def test_an_embedding_learns_one_crop_by_heart():
    network = build({"name": "rsunet", "widths": [8, 12], "heads": {"embedding": 8, "background": 1}})
    image, labels = cells((6, 48, 48), seed=3)
    parts = find_parts(labels)
    numbers, objects = torch.from_numpy(parts.parts_ZYX)[None], [torch.from_numpy(parts.objects)]
    background = torch.from_numpy(background_target(labels))[None]
    picture = torch.from_numpy(image)[None, None]

    def loss_of_step() -> Tensor:
        out = network(picture)
        vectors = embedding_loss(out["embedding"], numbers, objects).total
        return vectors + background_loss(out["background"], background)

    losses = fit(network, 5e-3, 100, loss_of_step)
    assert losses[-1] < 0.25 * losses[0]
    offsets = [(0, 0, -6), (0, -6, 0), (-1, 0, 0)]
    with torch.inference_mode():
        out = network(picture)
        affinities, exists = metric_affinities(out["embedding"], offsets, delta=1.5)
    targets, _ = affinity_targets(numbers, offsets)
    inside, _ = affinity_targets((numbers > 0).to(torch.int64), offsets)  # both ends lie in parts
    for channel in range(3):
        there = exists[channel] & (inside[0, channel] > 0)
        assert auc(affinities[0, channel][there], targets[0, channel][there]) > 0.9
    assert auc(out["background"].flatten(), background.flatten()) > 0.75
