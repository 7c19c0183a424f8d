import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.ops.background import widen_background

LABELS = hnp.arrays(
    np.uint64, st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 3)
)


def reference(labels: np.ndarray) -> np.ndarray:
    out = labels.copy()
    for z, y, x in np.ndindex(*labels.shape):
        around = labels[z, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        if len(np.unique(around[around > 0])) > 1:
            out[z, y, x] = 0
    return out


@given(LABELS)
def test_it_matches_brute_force(labels: np.ndarray):
    np.testing.assert_array_equal(widen_background(labels), reference(labels))


def test_no_two_labels_touch_in_the_plane_afterwards():
    labels = np.random.default_rng(0).integers(1, 4, (3, 20, 20)).repeat(4, 1).repeat(4, 2).astype(np.uint64)
    widened = widen_background(labels)
    for axis in (1, 2):
        a, b = np.delete(widened, 0, axis), np.delete(widened, -1, axis)
        assert not ((a != b) & (a > 0) & (b > 0)).any()
