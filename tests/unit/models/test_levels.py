import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.engine import Engine, predict_volume
from models.errors import WeightsInvalid
from models.levels import Levels, Manner
from models.metric_graph import metric_affinities
from models.networks import build
from models.offsets import METRIC, ends
from models.spec import NEAREST, WeightsSpec

FURTHER = (*NEAREST, (-2, 0, 0), (0, -5, 0), (0, 0, -5), (0, 3, -3), (0, -3, -3))
LAYER = (9, 31, 38)
ALL = Manner("all")


def affinity_spec(offsets=FURTHER, crop=(0, 0, 0), **changes) -> WeightsSpec:
    return WeightsSpec(
        **{
            "architecture": {
                "name": "rsunet",
                "widths": [4, 6],
                "heads": {"affinity": len(offsets)},
                "crop": list(crop),
            },
            "offsets": offsets,
            "voxel_size_nm": (30.0, 12.0, 12.0),
            "patch": tuple(n + 2 * c for n, c in zip((6, 20, 20), crop, strict=True)),
            "stride": (3, 10, 10),
            **changes,
        }
    )


def embedding_spec(crop=(1, 4, 4)) -> WeightsSpec:
    heads = {"embedding": 5, "background": 1}
    architecture = {"name": "rsunet", "widths": [4, 6], "heads": heads, "crop": list(crop)}
    return affinity_spec(METRIC, crop, architecture=architecture, delta=1.5)


def embedding_network(spec: WeightsSpec) -> nn.Module:
    """Fresh weights, with vectors far enough apart to matter."""
    torch.manual_seed(3)
    network = build(spec.architecture)
    network.heads.scale.data.fill_(0.4)
    return network


def image_of(shape=LAYER) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 200, [-(-n // 3) for n in shape])
    image = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in shape)]
    return (image + rng.integers(0, 55, shape)).astype(np.uint8)


def assemble(engine: Engine, image: np.ndarray, block, **config) -> tuple[np.ndarray, np.ndarray]:
    """Codes and background, block by block, each seeing its context alone."""
    from models.lattice import Lattice

    codes = np.zeros((len(engine.offsets), *image.shape), np.uint8)
    background = np.zeros(image.shape, np.uint8)
    lattice = Lattice.of(engine.spec, image.shape)
    for corner in np.ndindex(*(-(-n // b) for n, b in zip(image.shape, block, strict=True))):
        begin = tuple(i * b for i, b in zip(corner, block, strict=True))
        end = tuple(min(a + b, n) for a, b, n in zip(begin, block, image.shape, strict=True))
        low, high = lattice.context(begin, end)
        context = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        answer = engine.answer(context, origin=low, begin=begin, end=end, layer=image.shape, **config)
        where = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        codes[(..., *where)] = answer.codes_CZYX
        if answer.background_ZYX is not None:
            background[where] = answer.background_ZYX
    return codes, background


class Rim(nn.Module):
    """Says 0.3 about edges inside the patch, and 1 about those that leave it, which do not exist."""

    def __init__(self, offsets) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = torch.full((len(images), len(self.offsets), *images.shape[2:]), 30.0)
        for channel, offset in enumerate(self.offsets):
            here, _ = ends(images.shape[2:], offset)
            logits[:, channel][:, *here] = float(np.log(0.3 / 0.7))
        return {"affinity": logits}


class Edgewise(nn.Module):
    """Says what depends on an edge's two voxels alone: the same in every orientation."""

    def __init__(self, offsets) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = torch.zeros((len(images), len(self.offsets), *images.shape[2:]))
        for channel, offset in enumerate(self.offsets):
            here, there = ends(images.shape[2:], offset)
            logits[:, channel][:, *here] = 8 * (images[:, 0][:, *here] - images[:, 0][:, *there]).abs() - 2
        return {"affinity": logits, "background": 6 * images - 3}


def with_background(spec: WeightsSpec) -> WeightsSpec:
    heads = {"affinity": len(spec.offsets), "background": 1}
    return affinity_spec(spec.offsets, architecture={"name": "rsunet", "widths": [4, 6], "heads": heads})


def test_edges_that_leave_a_patch_count_for_nothing():
    codes = predict_volume(Rim(FURTHER), affinity_spec(), image_of(), manner=ALL).codes_CZYX
    for channel, offset in enumerate(FURTHER):
        here, _ = ends(LAYER, offset)
        assert len(np.unique(codes[channel][here])) == 1, offset
        outside = np.ones(LAYER, bool)
        outside[here] = False
        assert not codes[channel][outside].any()
    assert len(np.unique(codes[codes > 0])) == 1


def test_nearest_codes_do_not_depend_on_what_else_is_predicted():
    spec = affinity_spec()
    torch.manual_seed(1)
    network = build(spec.architecture)
    nearest, everything = (predict_volume(network, spec, image_of(), manner=manner) for manner in (None, ALL))
    assert everything.codes_CZYX.shape == (len(FURTHER), *LAYER)
    np.testing.assert_array_equal(everything.codes_CZYX[:3], nearest.codes_CZYX)


@pytest.mark.parametrize("manner", [ALL, Manner("all", "flips16"), Manner("all", precision="bfloat16")])
def test_an_embedding_gives_the_same_bytes_on_every_grid_and_for_every_batch(manner: Manner):
    spec = embedding_spec()
    network, image = embedding_network(spec), image_of()
    whole = predict_volume(network, spec, image, manner=manner)
    assert whole.codes_CZYX.std() > 10
    assert whole.background_ZYX is not None
    assert whole.background_ZYX.std() > 1
    blocks = [((4, 16, 16), 3), ((9, 11, 38), 2)] if manner == ALL else [((5, 16, 38), 3)]
    for block, batch in blocks:
        codes, background = assemble(Engine(network, spec, batch=batch, manner=manner), image, block)
        np.testing.assert_array_equal(codes, whole.codes_CZYX)
        np.testing.assert_array_equal(background, whole.background_ZYX)


def test_levels_of_an_embedding_are_its_metric_graph():
    spec = embedding_spec()
    network = embedding_network(spec)
    patch = image_of(spec.patch)
    with torch.inference_mode():
        levels = Levels(network, spec, ALL, device="cpu", batch=2).of([patch])[0]
        outputs = network(torch.from_numpy(np.stack([patch, 0 * patch])).float()[:, None] / 255)
        edges, _ = metric_affinities(outputs["embedding"], METRIC, 1.5)
        background = torch.sigmoid(outputs["background"])
    expected = torch.cat([edges, background], 1)[0] * 65535
    assert levels.shape == (13, *spec.output)
    assert (levels - expected).abs().max() <= 0.51


@pytest.mark.parametrize("offsets", [METRIC, FURTHER, (*NEAREST, (0, 2, -1), (-1, 0, 3))])
def test_what_depends_on_edges_alone_is_the_same_in_all_orientations(offsets):
    spec = with_background(affinity_spec(offsets))
    plain = predict_volume(Edgewise(offsets), spec, image_of(), manner=ALL)
    turned = predict_volume(Edgewise(offsets), spec, image_of(), manner=Manner("all", "flips16"))
    np.testing.assert_array_equal(turned.codes_CZYX, plain.codes_CZYX)
    np.testing.assert_array_equal(turned.background_ZYX, plain.background_ZYX)
    assert plain.codes_CZYX.std() > 10


def test_orientations_are_averaged():
    spec = affinity_spec(NEAREST)
    torch.manual_seed(1)
    network, image = build(spec.architecture), image_of((6, 20, 20))
    turned = predict_volume(network, spec, image, manner=Manner(augment="flips16")).codes_CZYX
    flipped = predict_volume(network, spec, image[:, ::-1].copy(), manner=Manner(augment="flips16")).codes_CZYX
    assert (predict_volume(network, spec, image).codes_CZYX != turned).mean() > 0.2
    np.testing.assert_array_equal(flipped[0], turned[0][:, ::-1])
    np.testing.assert_array_equal(flipped[1][:, 1:], turned[1][:, 1:][:, ::-1])


def test_patches_without_wanted_voxels_are_skipped_and_the_others_do_not_notice():
    spec = affinity_spec()
    torch.manual_seed(1)
    engine, image = Engine(build(spec.architecture), spec, manner=ALL), image_of((9, 61, 38))
    wanted = np.zeros(image.shape, bool)
    wanted[:, :9], wanted[:4, 50:, 30:] = True, True
    box = {"origin": (0, 0, 0), "begin": (0, 0, 0), "end": image.shape, "layer": image.shape}
    whole, some = engine.answer(image, **box), engine.answer(image, **box, wanted_ZYX=wanted)
    np.testing.assert_array_equal(some.codes_CZYX[:, wanted], whole.codes_CZYX[:, wanted])
    assert whole.skipped == 0
    assert some.skipped > whole.patches / 3
    assert some.patches + some.skipped == whole.patches
    nothing = engine.answer(image, **box, wanted_ZYX=np.zeros(image.shape, bool))
    assert (nothing.patches, nothing.codes_CZYX.any()) == (0, False)


def test_empty_patches_are_background_and_not_evaluated():
    spec = embedding_spec()
    network, image = embedding_network(spec), image_of((9, 31, 90))
    image[:, :, 30:] = 0
    manner = Manner("all", skip_empty=True)
    whole = predict_volume(network, spec, image, manner=manner)
    assert 0 < whole.empty < whole.patches + whole.empty
    assert not whole.codes_CZYX[..., 60:].any()
    assert whole.background_ZYX is not None
    assert (whole.background_ZYX[..., 60:] == 255).all()
    plain = predict_volume(network, spec, image, manner=ALL)
    np.testing.assert_array_equal(whole.codes_CZYX[..., :20], plain.codes_CZYX[..., :20])
    codes, background = assemble(Engine(network, spec, batch=3, manner=manner), image, (5, 20, 40))
    np.testing.assert_array_equal(codes, whole.codes_CZYX)
    np.testing.assert_array_equal(background, whole.background_ZYX)


def test_bfloat16_is_near_float32():
    spec = affinity_spec(NEAREST)
    torch.manual_seed(1)
    network = build(spec.architecture)
    exact, narrow = (
        predict_volume(network, spec, image_of(), manner=Manner(precision=p)).codes_CZYX.astype(int)
        for p in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - narrow).mean() < 8


def test_what_cannot_work_is_refused():
    sparse = affinity_spec(stride=(3, 16, 10))
    with pytest.raises(WeightsInvalid, match="lie in no patch"):
        ALL.edges(sparse)
    assert Manner().edges(sparse) == NEAREST
    oblong = affinity_spec(NEAREST, patch=(6, 20, 24))
    with pytest.raises(WeightsInvalid, match="exchanges y and x"):
        Engine(build(oblong.architecture), oblong, manner=Manner(augment="flips16"))
