import numpy as np
import pytest

from models.offsets import AFFINITY_6NM, AFFINITY_12NM, METRIC, ends
from models.spec import NEAREST


@pytest.mark.parametrize("offset", [(-1, 0, 0), (0, 2, -3), (-4, 0, 0), (4, 0, 0), (-5, 0, 1), (5, 0, 1), (0, 0, -9)])
def test_ends_match_brute_force(offset: tuple[int, int, int]):
    shape = (4, 5, 6)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    here, there = ends(shape, offset)
    expected = []
    for i in np.ndindex(*shape):
        j = tuple(np.add(i, offset))
        if all(0 <= p < n for p, n in zip(j, shape, strict=True)):
            expected.append((numbers[i], numbers[j]))
    assert list(zip(numbers[here].ravel(), numbers[there].ravel(), strict=True)) == expected


@pytest.mark.parametrize("offsets", [AFFINITY_6NM, AFFINITY_12NM, METRIC])
def test_twelve_different_edges_the_nearest_first(offsets: tuple[tuple[int, int, int], ...]):
    assert offsets[:3] == NEAREST
    assert len({max(offset, tuple(-o for o in offset)) for offset in offsets}) == 12
