from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.engine import Engine
from models.lattice import Lattice
from models.rsunet import RSUNet
from models.spec import NEAREST, WeightsSpec

SPEC = WeightsSpec(
    architecture={"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
    offsets=NEAREST,
    voxel_size_nm=(30.0, 12.0, 12.0),
    patch=(6, 16, 16),
    stride=(4, 12, 12),
)
LAYER = (13, 45, 50)  # no multiple of anything


class Constant(nn.Module):
    """Says the same everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = float(np.log(probability / (1 - probability)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"affinity": torch.full((len(images), 3, *images.shape[2:]), self.logit)}


class Local(nn.Module):
    """Says something that differs from patch to patch: it depends on the patch's mean."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        mean = images.mean((1, 2, 3, 4), keepdim=True)
        return {"affinity": torch.cat([images, images - mean, 30 * mean * images], 1)}


def layer_image(shape: tuple[int, int, int] = LAYER) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def predict(engine: Engine, image: np.ndarray, begin, end) -> np.ndarray:
    low, high = Lattice(image.shape, engine.spec.patch, engine.spec.stride).context(begin, end)
    context = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return engine.predict(context, origin=low, begin=begin, end=end, layer=image.shape)


def assemble(engine: Engine, image: np.ndarray, block, shift=(0, 0, 0)) -> np.ndarray:
    """The whole layer, block by block; `shift` moves the grid."""
    codes = np.zeros((3, *image.shape), np.uint8)
    cuts = [
        sorted({0, n, *range(s, n, b)} - {c for c in range(s, n, b) if c < 0})
        for n, b, s in zip(image.shape, block, shift, strict=True)
    ]
    for z0, z1 in zip(cuts[0], cuts[0][1:], strict=False):
        for y0, y1 in zip(cuts[1], cuts[1][1:], strict=False):
            for x0, x1 in zip(cuts[2], cuts[2][1:], strict=False):
                codes[:, z0:z1, y0:y1, x0:x1] = predict(engine, image, (z0, y0, x0), (z1, y1, x1))
    return codes


def reference(network: nn.Module, image: np.ndarray, spec: WeightsSpec) -> np.ndarray:
    """Blending by the formula, in floating point, over the whole layer."""
    lattice = Lattice(image.shape, spec.patch, spec.stride)
    sums, weights = np.zeros((3, *image.shape)), np.zeros((3, *image.shape))
    for index in lattice.touching((0, 0, 0), image.shape):
        patch = torch.from_numpy(lattice.cut(image, (0, 0, 0), index)).float()[None, None] / 255
        with torch.inference_mode():
            p = torch.sigmoid(network(patch)["affinity"])[0].numpy().astype(np.float64)
        for i in np.ndindex(*spec.patch):
            voxel = tuple(c + a for c, a in zip(lattice.begin(index), i, strict=True))
            for channel, offset in enumerate(NEAREST):
                j = tuple(a + o for a, o in zip(i, offset, strict=True))
                if min(j) < 0 or any(v >= n for v, n in zip(voxel, image.shape, strict=True)):
                    continue
                u = (np.array(i) + 1) / (np.array(spec.patch) + 1)
                weight = np.exp(-np.sum((u * (1 - u)) ** -1.5))
                sums[(channel, *voxel)] += weight * p[(channel, *i)]
                weights[(channel, *voxel)] += weight
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)


@pytest.mark.parametrize("layer", [LAYER, (3, 20, 9), (6, 16, 16), (1, 1, 40)])
@pytest.mark.parametrize("probability", [0.5, 0.93])
def test_a_constant_stays_a_constant_on_every_grid(layer, probability: float):
    engine = Engine(Constant(probability), SPEC)
    image = layer_image(layer)
    codes = assemble(engine, image, layer)
    inside = np.ones((3, *layer), bool)
    inside[0, 0], inside[1, :, 0], inside[2, :, :, 0] = False, False, False
    assert len(np.unique(codes[inside])) <= 1
    assert (codes[~inside] == 0).all()
    if inside.any():
        decoded = np.array(SPEC.code_table)[codes[inside]]
        assert abs(int(decoded[0]) - probability * 65535) < 200
    for block in [(4, 16, 16), (5, 7, 11)]:
        np.testing.assert_array_equal(assemble(engine, image, block), codes)


def test_every_grid_gives_the_same_bytes():
    engine = Engine(Local(), SPEC)
    image = layer_image()
    whole = assemble(engine, image, LAYER)
    assert len(np.unique(whole)) > 20
    for block, shift in [((4, 16, 16), (0, 0, 0)), ((5, 20, 17), (3, 9, 2)), ((13, 3, 50), (0, 1, 0))]:
        np.testing.assert_array_equal(assemble(engine, image, block, shift), whole)


def test_a_real_network_gives_the_same_bytes_on_three_grids_and_for_every_batch():
    torch.manual_seed(1)
    network = RSUNet((4, 6), {"affinity": 3})
    image = layer_image()
    whole = assemble(Engine(network, SPEC, batch=1), image, LAYER)
    for block, shift, batch in [((4, 16, 16), (0, 0, 0), 2), ((7, 20, 50), (2, 5, 0), 3), ((13, 45, 10), (0, 0, 7), 4)]:
        codes = assemble(Engine(network, SPEC, batch=batch), image, block, shift)
        np.testing.assert_array_equal(codes, whole)


def test_blending_follows_the_formula():
    spec = replace(SPEC, patch=(4, 6, 8), stride=(3, 4, 3))
    image = layer_image((6, 9, 12))
    expected = reference(Local(), image, spec)
    codes = assemble(Engine(Local(), spec), image, image.shape)
    decoded = np.array(spec.code_table)[codes] / 65535
    assert np.abs(decoded - expected).max() < 0.006  # the coarsest step of the code table is 0.0059


def test_the_callers_settings_come_back():
    assert not torch.are_deterministic_algorithms_enabled()
    assemble(Engine(Local(), SPEC), layer_image(), LAYER)
    assert not torch.are_deterministic_algorithms_enabled()
