import numpy as np
import pytest
import torch

from models.offsets import AFFINITY_6NM, AFFINITY_12NM, METRIC, ends
from models.spec import NEAREST
from models.symmetries import FLIPS16, NONE, Symmetry, channels_back

SETS = (METRIC, AFFINITY_12NM, AFFINITY_6NM, NEAREST)


def edgewise(image: torch.Tensor, offsets) -> torch.Tensor:
    """A value for every edge inside the patch that depends on its two voxels alone; -1 elsewhere."""
    edges = torch.full((1, len(offsets), *image.shape[2:]), -1.0)
    for channel, offset in enumerate(offsets):
        here, there = ends(image.shape[2:], offset)
        edges[:, channel][:, *here] = image[:, 0][:, *here] * image[:, 0][:, *there]
    return edges


def test_there_are_sixteen_and_each_is_undone():
    patch = torch.arange(3 * 4 * 4).reshape(1, 1, 3, 4, 4)
    turned = {tuple(symmetry.turn(patch).flatten().tolist()) for symmetry in FLIPS16}
    assert len(turned) == len(FLIPS16) == 16
    assert all(torch.equal(symmetry.undo(symmetry.turn(patch)), patch) for symmetry in FLIPS16)
    assert NONE[0] == FLIPS16[0] == Symmetry()


@pytest.mark.parametrize("offsets", SETS)
def test_published_offsets_have_every_channel_in_every_orientation(offsets):
    for symmetry in FLIPS16:
        sources = symmetry.sources(offsets)
        assert sorted(source[0] for source in sources if source is not None) == list(range(len(offsets)))


@pytest.mark.parametrize("offsets", [METRIC, NEAREST, (*NEAREST, (0, 2, -1), (-1, 0, 3))])
def test_turned_back_edges_are_those_of_the_patch_as_it_was(offsets):
    image = torch.from_numpy(np.random.default_rng(0).integers(1, 100, (1, 1, 5, 14, 14))).float()
    expected = edgewise(image, offsets)
    told = np.zeros(len(offsets), int)
    for symmetry in FLIPS16:
        sources = symmetry.sources(offsets)
        back = channels_back(symmetry.undo(edgewise(symmetry.turn(image), offsets)), offsets, sources)
        for channel, source in enumerate(sources):
            told[channel] += source is not None
            here, _ = ends(image.shape[2:], offsets[channel])
            wanted = expected[0, channel][here] if source else torch.zeros_like(expected[0, channel][here])
            assert torch.equal(back[0, channel][here], wanted), (symmetry, channel)
    assert told[:3].tolist() == [16, 16, 16]
    assert told.min() >= 4
