from pathlib import Path

import pytest
import torch

from models.checkpoint import load_network, save_weights
from models.rsunet import parameters
from models.rsunet_p import BatchNorm, RSUNetP, build
from models.spec import NEAREST, WeightsSpec

ARCHITECTURE = {"name": "rsunet_p", "widths": [4, 6], "heads": {"affinity": 3}, "norm": "running"}


def trained() -> RSUNetP:
    """A network whose running statistics are not the first ones."""
    torch.manual_seed(0)
    network = RSUNetP((4, 6), {"affinity": 3}, momentum=0.5)
    for _ in range(3):
        network(torch.rand(2, 1, 4, 16, 16))
    return network.eval()


def test_the_published_size():
    network = RSUNetP((28, 36, 48, 64, 80), {"affinity": 12})
    assert parameters(network) == pytest.approx(1.478e6, rel=0.0005)


def test_heads_have_the_extent_of_the_image_less_the_crop():
    network = build({**ARCHITECTURE, "heads": {"embedding": 5, "background": 1}, "crop": [1, 2, 3]})
    out = network(torch.rand(2, 1, 5, 16, 12))
    assert out["embedding"].shape == (2, 5, 3, 12, 6)
    assert out["background"].shape == (2, 1, 3, 12, 6)


def test_a_patch_does_not_see_its_batch_in_eval_mode():
    network = trained()
    images = torch.rand(3, 1, 4, 16, 16)
    other = images.clone()
    other[1:] = 0
    with torch.inference_mode():
        assert torch.equal(network(other)["affinity"][0], network(images)["affinity"][0])
        network.train()
        assert not torch.equal(network(other)["affinity"][0], network(images)["affinity"][0])


def test_batch_norm_is_pytorchs():
    ours, theirs = BatchNorm(3, 0.1), torch.nn.BatchNorm3d(3)
    for _ in range(3):
        x = 2 + 3 * torch.randn(2, 3, 4, 5, 6)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    x = torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_running_statistics_are_part_of_the_weights(tmp_path: Path):
    network = trained()
    spec = WeightsSpec(ARCHITECTURE, NEAREST, (30.0, 12.0, 12.0), (4, 16, 16), (3, 12, 12))
    save_weights(network, spec, tmp_path / "p.safetensors")
    loaded, _ = load_network(str(tmp_path / "p"))
    image = torch.rand(1, 1, 4, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(image), network(image), rtol=0.02, atol=0.02)
