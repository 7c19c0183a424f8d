import pytest
import torch

from models.rsunet import RSUNet, build, parameters


def test_the_published_size():
    network = RSUNet((16, 32, 64, 128), {"embedding": 24, "background": 1})
    assert parameters(network) == pytest.approx(2.66e6, rel=0.005)


def test_heads_have_the_extent_of_the_image():
    network = build({"name": "rsunet", "widths": [4, 6, 8], "heads": {"affinity": 3, "background": 1}})
    out = network(torch.rand(2, 1, 5, 16, 12))
    assert out["affinity"].shape == (2, 3, 5, 16, 12)
    assert out["background"].shape == (2, 1, 5, 16, 12)


def test_a_patch_does_not_see_its_batch():
    torch.manual_seed(0)
    network = RSUNet((4, 6), {"affinity": 3}).eval()
    images = torch.rand(3, 1, 6, 16, 16)
    with torch.inference_mode():
        together = network(images)["affinity"]
        other = images.clone()
        other[1:] = 0
        assert torch.equal(network(other)["affinity"][0], together[0])


def test_biases_start_at_zero_and_weights_with_kaiming_spread():
    torch.manual_seed(0)
    network = RSUNet((32, 32), {"affinity": 3})
    assert network.heads["affinity"].bias.abs().max() == 0
    weight = network.encoders[0].first.conv.weight
    assert weight.std().item() == pytest.approx((2 / (32 * 27)) ** 0.5, rel=0.05)


def test_an_embedding_is_scaled_and_cropped():
    network = build({"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 5, "background": 1}, "crop": [1, 2, 3]})
    image = torch.rand(2, 1, 5, 16, 12)
    assert network.heads.scale.item() == pytest.approx(0.1)
    with torch.no_grad():
        out = network(image)
        assert out["embedding"].shape == (2, 5, 3, 12, 6)
        assert out["background"].shape == (2, 1, 3, 12, 6)
        network.heads.scale.fill_(1.0)
        again = network(image)
        torch.testing.assert_close(again["embedding"], 10 * out["embedding"])
        assert torch.equal(again["background"], out["background"])
        whole = network.heads["embedding"](network.trunk(image))
    assert torch.equal(again["embedding"], whole[:, :, 1:-1, 2:-2, 3:-3])


def test_the_published_extent():
    network = RSUNet((2, 2, 2, 2), {"embedding": 24, "background": 1}, (2, 16, 16))
    with torch.inference_mode():
        out = network(torch.rand(1, 1, 20, 128, 128))
    assert out["embedding"].shape == (1, 24, 16, 96, 96)
    assert out["background"].shape == (1, 1, 16, 96, 96)


def test_heads_answer_in_float32_whatever_the_trunk_runs_in():
    torch.manual_seed(0)
    network = RSUNet((4, 6), {"embedding": 5, "background": 1}).eval()
    image = torch.rand(1, 1, 4, 16, 16)
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(image)
        half = network.to(torch.bfloat16)(image.to(torch.bfloat16))
    for name, values in exact.items():
        assert mixed[name].dtype == half[name].dtype == torch.float32
        assert not torch.equal(mixed[name], values)
        torch.testing.assert_close(mixed[name], values, rtol=0.1, atol=0.1)


def test_only_an_embedding_has_a_scale():
    assert not any("scale" in name for name in RSUNet((4, 6), {"affinity": 3}).state_dict())
    assert "heads.scale" in RSUNet((4, 6), {"embedding": 3, "background": 1}).state_dict()
