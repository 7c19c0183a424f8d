import pytest

from models.architecture import NORMS, read
from models.errors import WeightsInvalid
from models.networks import BUILDERS, build
from models.rsunet import RSUNet
from models.rsunet_p import RSUNetP

EMBEDDING = {"embedding": 24, "background": 1}


def test_every_known_architecture_can_be_built():
    assert set(BUILDERS) == set(NORMS)
    assert isinstance(build({"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}}), RSUNet)
    assert isinstance(build({"name": "rsunet_p", "widths": [4], "heads": EMBEDDING, "norm": "running"}), RSUNetP)


def test_an_architecture_knows_what_patches_it_takes_and_gives():
    stated = read({"name": "rsunet", "widths": [4, 6, 8], "heads": EMBEDDING, "crop": [2, 16, 16]})
    assert stated.divisor == 4
    assert stated.output((20, 128, 128)) == (16, 96, 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet"}, "architecture is 'resnet'; known: 'rsunet', 'rsunet_p'"),
        ({"depth": 3}, r"unknown keys \['depth'\]"),
        ({"name": "rsunet_p"}, "'rsunet_p' has 'running', and must say so"),
        ({"norm": "running"}, "'rsunet' has 'instance'"),
        ({"widths": [4, 0]}, "widths"),
        ({"heads": ["affinity"]}, "heads"),
        ({"heads": {"affinity": 3, "scale": 1}}, "heads"),
        ({"heads": {"affinity": 0}}, "heads"),
        ({"heads": {"background": 1}}, "either 'affinity' or 'embedding'"),
        ({"heads": {"affinity": 3, **EMBEDDING}}, "either 'affinity' or 'embedding'"),
        ({"heads": {"embedding": 24}}, "needs the head 'background'"),
        ({"heads": {"embedding": 24, "background": 2}}, "2 channels, not 1"),
        ({"crop": [2, 16]}, "crop"),
        ({"crop": [2, -1, 0]}, "crop"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(WeightsInvalid, match=message):
        build({"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}, **changes})
