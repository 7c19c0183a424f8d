import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.label_parts import background_target, find_parts

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
LABELS = SHAPES.flatmap(lambda s: hnp.arrays(np.uint64, s, elements=st.sampled_from([0, 0, 3, 5, (1 << 62) + 1])))


def reference(labels: np.ndarray, dust_vx: int) -> tuple[np.ndarray, list[int]]:
    """Flood fill from every voxel in turn."""
    parts, objects, seen = np.zeros(labels.shape, int), [], labels == 0
    for start in np.ndindex(*labels.shape):
        if seen[start]:
            continue
        members, seen[start] = [start], True
        for here in members:
            for step in np.ndindex(3, 3, 3):
                there = tuple(np.add(here, step) - 1)
                inside = all(0 <= p < n for p, n in zip(there, labels.shape, strict=True))
                if inside and not seen[there] and labels[there] == labels[start]:
                    seen[there] = True
                    members.append(there)
        if len(members) >= dust_vx:
            objects.append(int(labels[start]))
            parts[tuple(np.transpose(members))] = len(objects)
    return parts, objects


@given(LABELS, st.integers(1, 5))
def test_parts_match_a_flood_fill(labels: np.ndarray, dust_vx: int):
    found = find_parts(labels, dust_vx=dust_vx)
    parts, objects = reference(labels, dust_vx)
    # The same parts under other numbers, and the numbers are 1 .. C.
    pairs = set(zip(found.parts_ZYX.ravel().tolist(), parts.ravel().tolist(), strict=True)) | {(0, 0)}
    assert sorted(ours for ours, _ in pairs) == sorted(theirs for _, theirs in pairs) == list(range(len(objects) + 1))
    assert all(found.objects[ours - 1] == objects[theirs - 1] for ours, theirs in pairs if ours)


def test_dust_is_what_has_less_than_ten_voxels():
    labels = np.zeros((1, 5, 10), np.uint64)
    labels[0, 0, :9], labels[0, 2, :] = 4, 6
    found = find_parts(labels)
    assert found.objects.tolist() == [6]
    assert (found.parts_ZYX > 0).sum() == 10


def test_masked_voxels_do_not_join_parts():
    labels = np.full((1, 5, 10), 7, np.uint64)
    mask = np.ones(labels.shape, bool)
    assert find_parts(labels, mask).objects.tolist() == [7]
    mask[0, 2] = False
    found = find_parts(labels, mask)
    assert found.objects.tolist() == [7, 7]
    assert np.unique(found.parts_ZYX[0], axis=1).ravel().tolist() == [1, 1, 0, 2, 2]


def test_a_corner_joins():
    labels = np.zeros((2, 10, 11), np.uint64)
    labels[0, :10, 0], labels[1, 9, 1:] = 3, 3
    labels[0, 0, 0] = 3
    assert find_parts(labels).objects.tolist() == [3]


def test_nothing_has_no_parts():
    found = find_parts(np.zeros((2, 3, 4), np.uint64))
    assert len(found.objects) == 0
    assert not found.parts_ZYX.any()


def test_myelin_is_background_for_the_mask_but_a_part_for_the_embedding():
    labels = np.array([[[0, 1, 2, 9]]], np.uint64)
    assert background_target(labels).ravel().tolist() == [True, False, False, False]
    assert background_target(labels, {2, 9}).ravel().tolist() == [True, False, True, True]
    assert find_parts(labels, dust_vx=1).objects.tolist() == [1, 2, 9]
