import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lattice import WEIGHT_BITS, Axis, Lattice, nearest_codes
from models.spec import smooth_code_table

AXES = st.builds(
    lambda length, patch, share, crop: Axis(length, patch, max(1, min(patch - 1, round(patch * share))), crop),
    st.integers(1, 70),
    st.integers(2, 20),
    st.floats(0.05, 1),
    st.integers(0, 9),
)


@given(AXES)
def test_the_last_patch_is_the_first_to_reach_the_end(axis: Axis):
    assert (axis.count - 1) * axis.stride + axis.patch >= axis.length
    assert axis.count == 1 or (axis.count - 2) * axis.stride + axis.patch < axis.length


@given(AXES, st.data())
def test_touching_is_what_brute_force_finds(axis: Axis, data: st.DataObject):
    begin = data.draw(st.integers(0, axis.length - 1))
    end = data.draw(st.integers(begin + 1, axis.length))
    brute = [k for k in range(axis.count) if k * axis.stride < end and k * axis.stride + axis.patch > begin]
    assert list(axis.touching(begin, end)) == brute


@given(AXES)
def test_positions_mirror_like_numpy(axis: Axis):
    beyond = axis.count * axis.stride + axis.patch + axis.crop
    mirrored = np.pad(np.arange(axis.length), (axis.crop, beyond), mode="reflect")
    for k in range(axis.count):
        seen = mirrored[k * axis.stride :][: axis.patch + 2 * axis.crop]
        np.testing.assert_array_equal(axis.positions(k), seen)


@given(AXES, st.data())
def test_the_context_holds_every_position(axis: Axis, data: st.DataObject):
    begin = data.draw(st.integers(0, axis.length - 1))
    end = data.draw(st.integers(begin + 1, axis.length))
    positions = np.concatenate([axis.positions(k) for k in axis.touching(begin, end)])
    assert axis.context(begin, end) == (positions.min(), positions.max() + 1)


def nearest_patch(axis: Axis, voxel: int) -> int:
    """The patch whose centre is nearest, of those that hold a voxel; the first of two."""
    return min(axis.touching(voxel, voxel + 1), key=lambda k: (abs(2 * (voxel - k * axis.stride) - axis.patch + 1), k))


def owners_are_the_nearest(axis: Axis) -> bool:
    """Whether every patch has the voxels that are nearest to its centre, and every part of the axis its owners."""
    nearest = [nearest_patch(axis, voxel) for voxel in range(axis.length)]
    for begin in range(0, axis.length, 5):
        for end in range(begin + 1, axis.length + 1, 3):
            if [k for k, low, high in axis.owners(begin, end) for _ in range(low, high)] != nearest[begin:end]:
                return False
    own = [axis.own(k) for k in range(axis.count)]
    return nearest == [k for k, (low, high) in enumerate(own) for _ in range(low, high)]


@settings(deadline=None)
@given(AXES)
def test_every_voxel_belongs_to_the_patch_whose_centre_is_nearest(axis: Axis):
    assert owners_are_the_nearest(axis)


@pytest.mark.parametrize("patch", [7, 8])  # with a voxel half-way, and without
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_border_that_is_off_by_one_is_noticed(monkeypatch: pytest.MonkeyPatch, patch: int, wrong: int):
    axis, own = Axis(40, patch, 4), Axis.own
    assert owners_are_the_nearest(axis)
    moved = {0: 0, axis.length: axis.length}
    monkeypatch.setattr(Axis, "own", lambda self, k: tuple(moved.get(n, n + wrong) for n in own(self, k)))
    assert not owners_are_the_nearest(axis)


def test_a_box_falls_into_the_own_parts_of_its_patches():
    lattice = Lattice((9, 30, 41), (4, 12, 16), (3, 7, 10), (1, 2, 2))
    for begin, end in [((0, 0, 0), lattice.shape), ((2, 5, 11), (7, 30, 12))]:
        times, corner = np.zeros(lattice.shape, int), np.array(lattice.patch)
        for index, low, high in lattice.owners(begin, end):
            assert (np.array(low) >= lattice.begin(index)).all()
            assert (np.array(high) <= lattice.begin(index) + corner).all()
            times[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += 1
        inside = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        assert (times[inside] == 1).all()
        assert times.sum() == times[inside].size


def reference_weights(axis: Axis, offset: int) -> dict[tuple[int, int], float]:
    """Normalised bumps of all patches that know an edge, by the formula."""
    weights = {}
    for voxel in range(axis.length):
        known = {}
        for k in range(axis.count):
            i = voxel - k * axis.stride
            if 0 <= i < axis.patch and 0 <= i + offset < axis.patch and 0 <= voxel + offset < axis.length:
                u = np.longdouble(i + 1) / (axis.patch + 1)
                known[k] = -((u * (1 - u)) ** np.longdouble(-1.5))
        top = max(known.values(), default=0)
        total = sum(np.exp(bump - top) for bump in known.values())
        weights |= {(k, voxel): float(np.exp(bump - top) / total) for k, bump in known.items()}
    return weights


@settings(deadline=None, max_examples=40)
@given(AXES, st.sampled_from([0, -1, 1, -4]))
def test_weights_follow_the_formula(axis: Axis, offset: int):
    expected = reference_weights(axis, offset)
    for k in range(axis.count):
        for position, weight in enumerate(axis.weights(k, offset)):
            wanted = expected.get((k, k * axis.stride + position), 0.0)
            assert abs(int(weight) - wanted * (1 << WEIGHT_BITS)) <= 0.5 + 1e-6


@settings(deadline=None, max_examples=40)
@given(AXES, st.sampled_from([0, -1, 1, -5]))
def test_every_edge_in_the_layer_is_known_and_no_other(axis: Axis, offset: int):
    total = axis.normaliser(0, axis.length, offset)
    inside = [0 <= voxel + offset < axis.length for voxel in range(axis.length)]
    if axis.stride + abs(offset) <= axis.patch:
        np.testing.assert_array_equal(total > 0, inside)
    assert not total[~np.array(inside)].any()
    # The sums stay near one, so that sums of weight times level stay below 2**53.
    assert total.max(initial=0) <= (1 << WEIGHT_BITS) + axis.patch
    for begin in range(0, axis.length, 7):
        end = min(axis.length, begin + 5)
        np.testing.assert_array_equal(axis.normaliser(begin, end, offset), total[begin:end])


@pytest.mark.parametrize("crop", [(0, 0, 0), (1, 3, 2)])
def test_cut_reads_the_mirrored_layer(crop: tuple[int, int, int]):
    layer = np.random.default_rng(0).integers(0, 255, (5, 9, 30), dtype=np.uint8)
    lattice = Lattice(layer.shape, (8, 8, 8), (6, 6, 6), crop)
    mirrored = np.pad(layer, [(c, 40) for c in crop], mode="reflect")
    begin, end = (1, 2, 9), (4, 9, 17)
    low, high = lattice.context(begin, end)
    context = layer[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    indices = list(lattice.touching(begin, end))
    assert len(indices) == lattice.count(begin, end)
    for index in indices:
        corner = lattice.begin(index)
        expected = mirrored[tuple(slice(c, c + 8 + 2 * m) for c, m in zip(corner, crop, strict=True))]
        np.testing.assert_array_equal(lattice.cut(context, low, index), expected)


@pytest.mark.parametrize("table", [smooth_code_table(), (0, 0, 5, 5, 7, *([100] * 250), 65535)])
def test_codes_are_the_nearest_entries(table: tuple[int, ...]):
    codes = nearest_codes(table)
    entries = np.array(table)
    assert codes.shape == (65536,)
    for level in [0, 1, 2, 5, 6, 99, 100, 32767, 32768, 32817, 65534, 65535]:
        distances = np.abs(entries - level)
        assert distances[codes[level]] == distances.min()
    assert codes[0] == 0
    assert entries[codes[65535]] == 65535
    np.testing.assert_array_equal(codes[list(table)], [table.index(value) if value else codes[0] for value in table])
