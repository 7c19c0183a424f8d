"""Mean embeddings: what a slow computation finds, to the bit, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import WeightsInvalid
from models.mean_embeddings import Candidate, Judged, MeanEmbeddings, distance, window_begin
from models.networks import build
from models.offsets import METRIC
from models.spec import Index, WeightsSpec

WINDOW: Index = (3, 8, 7)
SPEC = WeightsSpec(
    architecture={
        "name": "rsunet",
        "widths": [4, 6],
        "heads": {"embedding": 5, "background": 1},
        "crop": [1, 2, 2],
    },
    offsets=METRIC,
    voxel_size_nm=(30.0, 12.0, 12.0),
    patch=(6, 20, 20),
    stride=(3, 9, 9),
    delta=1.5,
)
LEE = replace(SPEC, architecture={**SPEC.architecture, "crop": [2, 16, 16]}, patch=(20, 128, 128), stride=(8, 48, 48))


class Places(nn.Module):
    """Says of every voxel that it puts out where that lies in the patch, and how bright it is."""

    def forward(self, images_BCZYX: Tensor) -> dict[str, Tensor]:
        extent = images_BCZYX.shape[2:]
        places = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in extent], indexing="ij"))
        vectors = torch.cat([places.expand(len(images_BCZYX), 3, *extent), images_BCZYX * 255, images_BCZYX], dim=1)
        return {"embedding": vectors[:, :, 1:-1, 2:-2, 2:-2]}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return build(SPEC.architecture)


def candidates_of(count: int, seed: int = 5) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    made = (
        (rng.integers(0, 256, SPEC.patch, dtype=np.uint8), rng.integers(0, 3, WINDOW, dtype=np.uint8))
        for _ in range(count)
    )
    return [Candidate(*parts) for parts in made]


def by_hand(network: nn.Module, candidate: Candidate) -> tuple[list[int], float]:
    """Voxel by voxel, in Python's integers."""
    patch = torch.from_numpy(candidate.patch_ZYX).float() / 255
    with torch.inference_mode():
        vectors = network.eval()(torch.stack([patch, patch])[:, None])["embedding"][0].numpy()
    sums, voxels = [[0] * len(vectors), [0] * len(vectors)], [0, 0]
    for place in np.ndindex(*WINDOW):
        side = int(candidate.sides_ZYX[place])
        point = tuple(p // 2 for p in SPEC.patch)
        where = tuple(i + p - w // 2 - c for i, p, w, c in zip(place, point, WINDOW, (1, 2, 2), strict=True))
        if side:
            voxels[side - 1] += 1
            for channel, value in enumerate(vectors[(slice(None), *where)]):
                sums[side - 1][channel] += round(float(value) * 65536)
    means = [[total / (count * 65536) for total in own] for own, count in zip(sums, voxels, strict=True)]
    return voxels, float(np.sum([abs(a - b) for a, b in zip(*means, strict=True)]))


def same(one: Judged, other: Judged) -> bool:
    fields = ("voxels", "distance", "sections_NDYX")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in fields)


def take(judged: Judged, rows: list[int]) -> Judged:
    return Judged(judged.voxels[rows], judged.distance[rows], judged.sections_NDYX[rows])


def test_it_finds_what_a_slow_computation_finds(network: nn.Module):
    candidates = candidates_of(4)
    judged = MeanEmbeddings(network, SPEC, window=WINDOW).judge(candidates)
    for row, candidate in enumerate(candidates):
        voxels, apart = by_hand(network, candidate)
        assert judged.voxels[row].tolist() == voxels
        assert judged.distance[row] == pytest.approx(apart, rel=1e-12)
    assert (judged.distance > 0).all()


def test_a_candidate_does_not_notice_what_else_is_in_the_batch(network: nn.Module):
    candidates = candidates_of(7)
    means = MeanEmbeddings(network, SPEC, window=WINDOW, batch=3)
    whole = means.judge(candidates)
    order = [4, 2, 6, 0, 5, 1, 3]
    assert same(means.judge([candidates[row] for row in order]), take(whole, order))
    for row, candidate in enumerate(candidates):
        assert same(means.judge([candidate]), take(whole, [row]))
    others = candidates_of(2, seed=11)
    assert same(take(means.judge([others[0], candidates[3], others[1]]), [1]), take(whole, [3]))
    for batch in (1, 2, 5):
        assert same(MeanEmbeddings(network, SPEC, window=WINDOW, batch=batch).judge(candidates), whole)


def test_the_window_and_the_section_lie_around_the_point():
    assert window_begin(LEE, (5, 32, 32)) == (6, 32, 32)  # p - (2, 16, 16) less p - (8, 48, 48)
    sides = np.zeros(WINDOW, np.uint8)
    sides[1, 4, 3], sides[2, 7, 6] = 1, 2  # the point itself, and the window's last voxel
    (candidate,) = candidates_of(1)
    judged = MeanEmbeddings(Places(), SPEC, window=WINDOW).judge([Candidate(candidate.patch_ZYX, sides)])
    point, last = candidate.patch_ZYX[3, 10, 10] * 1.0, candidate.patch_ZYX[4, 13, 13] * 1.0
    assert judged.voxels.tolist() == [[1, 1]]
    assert judged.distance[0] == pytest.approx(1 + 3 + 3 + abs(point - last) * (1 + 1 / 255), abs=1e-4)
    np.testing.assert_array_equal(judged.sections_NDYX[0, 0], 3)
    np.testing.assert_array_equal(judged.sections_NDYX[0, 3], candidate.patch_ZYX[3, 2:-2, 2:-2])


def test_where_a_segment_is_missing_there_is_no_distance(network: nn.Module):
    one, other, both = candidates_of(3)
    one = replace(one, sides_ZYX=np.minimum(one.sides_ZYX, 1))
    other = replace(other, sides_ZYX=np.zeros(WINDOW, np.uint8))
    judged = MeanEmbeddings(network, SPEC, window=WINDOW).judge([one, other, both])
    assert np.isnan(judged.distance).tolist() == [True, True, False]
    assert judged.voxels[0, 1] == 0
    assert judged.voxels[1].tolist() == [0, 0]


def test_sections_are_left_out_on_request_and_nothing_is_nothing(network: nn.Module):
    means = MeanEmbeddings(network, SPEC, window=WINDOW)
    candidates = candidates_of(2)
    bare, whole = means.judge(candidates, sections=False), means.judge(candidates)
    assert bare.sections_NDYX.shape == (0, 5, 16, 16)
    assert whole.sections_NDYX.shape == (2, 5, 16, 16)
    np.testing.assert_array_equal(bare.distance, whole.distance)
    nothing = means.judge([])
    assert nothing.voxels.shape == (0, 2)
    assert nothing.distance.size == 0


def test_means_are_exact_and_their_distance_has_no_order():
    rng = np.random.default_rng(1)
    sums, voxels = rng.integers(-(1 << 44), 1 << 44, (2, 24)), np.array([5120, 17])
    order = rng.permutation(24)
    assert distance(sums, voxels) == distance(sums[:, order], voxels)
    assert distance(np.array([[65536, 0], [0, 3 * 65536]]), np.array([1, 2])) == 2.5


@pytest.mark.parametrize("window", [(5, 8, 8), (3, 17, 8), (3, 8, 0)])
def test_a_window_that_does_not_fit_is_refused(network: nn.Module, window: Index):
    with pytest.raises(WeightsInvalid, match="does not fit into"):
        MeanEmbeddings(network, SPEC, window=window)


def test_weights_without_an_embedding_and_candidates_of_another_shape_are_refused(network: nn.Module):
    plain = {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}}
    spec = replace(SPEC, architecture=plain, offsets=METRIC[:3], delta=None)
    with pytest.raises(WeightsInvalid, match="no head 'embedding'"):
        MeanEmbeddings(build(plain), spec, window=(3, 8, 8))
    (candidate,) = candidates_of(1)
    with pytest.raises(ValueError, match="a candidate's patch and sides have shapes"):
        MeanEmbeddings(network, SPEC, window=(3, 8, 8)).judge([candidate])
