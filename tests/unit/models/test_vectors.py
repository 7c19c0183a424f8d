"""Stored vectors: each of one patch, the same bytes on every grid, for every batch and in every order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.engine import Engine, predict_volume
from models.errors import WeightsInvalid
from models.lattice import Lattice
from models.levels import Manner
from models.networks import build
from models.offsets import METRIC
from models.spec import WeightsSpec
from models.vectors import LARGEST, Vectors

LAYER = (9, 31, 38)
KEPT = Manner("nearest", vectors=True)
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


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return build(SPEC.architecture)


def image_of() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, LAYER, dtype=np.uint8)


def assemble(engine: Engine, image: np.ndarray, block: tuple[int, int, int]) -> np.ndarray:
    """Vectors, block by block, each seeing its context alone."""
    vectors = np.zeros((5, *LAYER), np.float16)
    lattice = Lattice.of(engine.spec, LAYER)
    for corner in np.ndindex(*(-(-n // b) for n, b in zip(LAYER, block, strict=True))):
        begin = tuple(i * b for i, b in zip(corner, block, strict=True))
        end = tuple(min(a + b, n) for a, b, n in zip(begin, block, LAYER, strict=True))
        low, high = lattice.context(begin, end)
        context = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        answer = engine.answer(context, origin=low, begin=begin, end=end, layer=LAYER)
        assert answer.vectors_CZYX is not None
        vectors[(..., *(slice(a, b) for a, b in zip(begin, end, strict=True)))] = answer.vectors_CZYX
    return vectors


def by_hand(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Every patch by itself; every voxel takes the vector of the patch in which it lies most centrally."""
    lattice = Lattice.of(SPEC, LAYER)
    vectors, least = np.zeros((5, *LAYER), np.float16), np.full(LAYER, np.inf)
    for index in lattice.touching((0, 0, 0), LAYER):
        patch = torch.from_numpy(lattice.cut(image, (0, 0, 0), index)).float() / 255
        with torch.inference_mode():
            found = network(torch.stack([patch, patch])[:, None])["embedding"][0].numpy()
        for place in np.ndindex(*SPEC.output):
            voxel = tuple(c + i for c, i in zip(lattice.begin(index), place, strict=True))
            if any(v >= n for v, n in zip(voxel, LAYER, strict=True)):
                continue
            off_centre = [abs(2 * i - n + 1) for i, n in zip(place, SPEC.output, strict=True)]
            rank = off_centre[0] * 10_000 + off_centre[1] * 100 + off_centre[2]  # axis by axis
            if rank < least[voxel]:
                least[voxel], vectors[(slice(None), *voxel)] = rank, found[(slice(None), *place)]
    return vectors


def test_vectors_are_the_same_on_every_grid_and_for_every_batch(network: nn.Module):
    image = image_of()
    whole = predict_volume(network, SPEC, image, manner=KEPT).vectors_CZYX
    assert whole is not None
    assert whole.dtype == np.float16
    assert len(np.unique(whole)) > 1000
    np.testing.assert_array_equal(whole, by_hand(network, image))
    for block, batch in [((4, 16, 16), 1), ((9, 11, 38), 2), ((5, 31, 7), 4)]:
        np.testing.assert_array_equal(assemble(Engine(network, SPEC, batch=batch, manner=KEPT), image, block), whole)


def test_codes_do_not_notice_and_orientations_do_not_matter(network: nn.Module):
    image = image_of()
    plain, kept = predict_volume(network, SPEC, image), predict_volume(network, SPEC, image, manner=KEPT)
    turned = predict_volume(network, SPEC, image, manner=Manner(augment="flips16", vectors=True))
    assert plain.vectors_CZYX is None
    np.testing.assert_array_equal(kept.codes_CZYX, plain.codes_CZYX)
    np.testing.assert_array_equal(turned.vectors_CZYX, kept.vectors_CZYX)
    assert (turned.codes_CZYX != plain.codes_CZYX).any()


def test_empty_patches_have_no_vectors(network: nn.Module):
    image = image_of()
    image[:, :, 15:] = 7
    answer = predict_volume(network, SPEC, image, manner=Manner(skip_empty=True, vectors=True))
    assert answer.empty > 0
    assert answer.vectors_CZYX is not None
    assert not answer.vectors_CZYX[..., -5:].any()
    assert answer.vectors_CZYX[..., :10].any(axis=0).all()


def test_patches_may_come_in_any_order_and_large_numbers_are_cut_off():
    lattice, begin, end = Lattice.of(SPEC, LAYER), (1, 2, 3), (8, 30, 25)
    rng = np.random.default_rng(0)
    patches: dict[tuple[int, int, int], Tensor] = {
        index: torch.from_numpy(rng.normal(0, 1e5, (5, *SPEC.output)).astype(np.float32))
        for index in lattice.touching(begin, end)
    }
    stored = []
    for order in (list(patches), list(patches)[::-1]):
        vectors = Vectors(lattice, begin, end, 5)
        for index in order:
            vectors.add(index, patches[index])
        stored.append(vectors.stored_CZYX)
    np.testing.assert_array_equal(stored[0], stored[1])
    assert np.abs(stored[0]).max() == LARGEST


def test_a_network_without_an_embedding_is_refused():
    spec = WeightsSpec(
        architecture={"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
        offsets=METRIC[:3],
        voxel_size_nm=(30.0, 12.0, 12.0),
        patch=(6, 20, 20),
        stride=(3, 9, 9),
    )
    with pytest.raises(WeightsInvalid, match="no head 'embedding'"):
        Engine(build(spec.architecture), spec, manner=KEPT)
