"""The generator: position alone decides, and what comes out is a volume of neurites."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as components

from pipeline.errors import WrongShape, WrongVoxelSize
from pipeline.geometry import Box
from pipeline.ops import forest as trees
from pipeline.ops import micrograph, position_hash, synthesize
from pipeline.ops.loops import NO_LOOPS, loops
from pipeline.ops.neurites import skeleton
from pipeline.ops.synthesize import generate
from pipeline.ops.warped_cells import advance, cells, enclose, warp_of

ENDLESS = (10**6, 10**6, 10**6)
EM_NM = (30.0, 6.0, 6.0)
WHOLE = (6, 60, 70)


def make(box: Box, *, seed: int = 3, voxel_size_nm: Any = EM_NM, self_touching: bool = False) -> Any:
    return generate(box, seed=seed, shape=ENDLESS, voxel_size_nm=voxel_size_nm, self_touching=self_touching)


# ---- position alone -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("origin", [(0, 0, 0), (10**5, 40_000, 90_001)])
@pytest.mark.parametrize(("voxel_size_nm", "folds"), [(EM_NM, False), (EM_NM, True), ((8, 8, 8), False)])
def test_any_box_is_a_crop_of_any_larger_one(origin: Any, voxel_size_nm: Any, folds: bool) -> None:
    whole = Box.of_shape(WHOLE).shift(origin)
    image, truth = make(whole, voxel_size_nm=voxel_size_nm, self_touching=folds)

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        low = [data.draw(st.integers(0, n - 1)) for n in WHOLE]
        high = [data.draw(st.integers(b + 1, n)) for b, n in zip(low, WHOLE, strict=True)]
        box = Box(tuple(low), tuple(high)).shift(origin)  # type: ignore[arg-type]
        part_image, part_truth = make(box, voxel_size_nm=voxel_size_nm, self_touching=folds)
        assert np.array_equal(part_image, image[box.slices(origin)])
        assert np.array_equal(part_truth, truth[box.slices(origin)])

    check()


def test_the_bytes_are_the_same_everywhere() -> None:
    """Written down once, on x86-64. A change of the generator changes it: raise the schema of the stage then."""
    image, truth = make(Box((40, 500, 800), (44, 564, 864)), seed=11)
    found = hashlib.sha256(image.tobytes() + truth.astype("<u8").tobytes()).hexdigest()
    assert found == "9c921d049df6c44b66214e588b1468fad05d4b33b80f2cd1d4f5844679b996a6"


def test_seeds_and_options_make_other_volumes() -> None:
    box = Box((0, 0, 0), (4, 60, 60))
    first = make(box)
    assert not np.array_equal(first[1], make(box, seed=4)[1])
    assert not np.array_equal(first[0], make(box, voxel_size_nm=(30, 12, 12))[0])


def test_an_empty_box() -> None:
    assert make(Box((1, 1, 1), (1, 5, 5)))[0].shape == (0, 4, 4)


def test_boxes_outside_and_impossible_voxels_are_refused() -> None:
    with pytest.raises(WrongShape, match="way out"):
        generate(Box((0, 0, 0), (2, 2, 9)), seed=0, shape=(2, 2, 8), voxel_size_nm=EM_NM)
    for size in ((0, 6, 6), (30, 6, 600)):
        with pytest.raises(WrongVoxelSize, match="way out"):
            generate(Box((0, 0, 0), (2, 2, 2)), seed=0, shape=ENDLESS, voxel_size_nm=size)


# ---- what it is a picture of ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def block() -> Any:
    return make(Box((100, 1000, 1000), (132, 1256, 1256)), seed=5)


def test_objects_hold_together(block: Any) -> None:
    _, truth = block
    names, inverse, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    dense = inverse.reshape(truth.shape)
    assert names[0] == 0
    assert names[-1] < 2**63
    assert 20 <= names.size <= 200
    assert 0.1 < sizes[0] / truth.size < 0.25
    pieces = np.stack([dense, components(dense, connectivity=1)])[:, dense > 0]
    parts, counts = np.unique(pieces, axis=1, return_counts=True)
    largest = [counts[parts[0] == name].max() for name in range(1, names.size)]
    assert sum(largest) > 0.95 * sizes[1:].sum()


def test_neighbours_are_parted_by_membrane_within_a_section(block: Any) -> None:
    _, truth = block
    for a, b in ((truth[:, 1:], truth[:, :-1]), (truth[:, :, 1:], truth[:, :, :-1])):
        touching = (a != b) & (a > 0) & (b > 0)
        assert touching.mean() < 1e-3


def test_membranes_are_dark_and_the_image_uses_the_range(block: Any) -> None:
    image, truth = block
    assert image[truth == 0].mean() < image[truth > 0].mean() - 25
    assert 20 < image.std() < 60
    assert 100 < image.mean() < 180


def test_sections_are_displaced_brighter_darker_and_sometimes_missing() -> None:
    keys = micrograph.appearance(5)
    sections = [micrograph.section(keys, z) for z in range(5000)]
    shifts = np.array([(s.shift_y, s.shift_x) for s in sections])
    assert np.abs(shifts).max() <= synthesize.SHIFT_VX
    assert 0.005 < np.mean([s.missing for s in sections]) < 0.02
    assert 0.01 < (np.abs(shifts) > 2).any(axis=1).mean() < 0.05
    gone = next(z for z, s in enumerate(sections) if s.missing)
    image, truth = make(Box((gone, 0, 0), (gone + 1, 128, 128)), seed=5)
    assert image.std() < 5
    assert np.unique(truth).size > 3, "the truth goes on through a missing section"


def test_neurites_that_fold_back_touch_themselves() -> None:
    low, high = np.zeros(3), np.full(3, 4000.0)
    plain, folded = skeleton(5, False, low, high), skeleton(5, True, low, high)
    assert not plain.joint.any()
    assert np.array_equal(plain.part, plain.label)
    assert folded.joint.any()
    assert np.unique(folded.label).size < np.unique(folded.part).size
    for part in np.unique(folded.part):
        assert np.unique(folded.label[folded.part == part]).size == 1
    box = Box((0, 0, 0), (60, 300, 300))
    one, two = make(box, seed=5)[1], make(box, seed=5, self_touching=True)[1]
    assert np.unique(two).size < np.unique(one).size
    both = (one > 0) & (two > 0)
    assert 0.02 < (one[both] != two[both]).mean() < 0.6


# ---- kernels against slow and obvious ones --------------------------------------------------------------------------
def test_hashes_against_arithmetic_modulo_two_to_the_64th() -> None:
    low = 2**64 - 1

    def mix(v: int) -> int:
        v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) & low
        v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) & low
        return v ^ (v >> 31)

    rng = np.random.default_rng(0)
    for key, z, y, x in rng.integers(-(2**62), 2**62, (50, 4)).tolist():
        expected = mix((key + z * 0xD6E8FEB86659FD93 + y * 0xA0761D6478BD642F + x * 0xE7037ED1A0B428DB) & low)
        found = np.uint64(position_hash.hash3(np.uint64(key & low), z, y, x))
        assert int(found) == expected
        assert [float(position_hash.share(found, n)) for n in range(4)] == [
            ((expected >> (16 * n)) & 0xFFFF) / 65536 for n in range(4)
        ]


def test_noise_is_smooth_and_bounded() -> None:
    key = np.uint64(99)
    line = np.array([position_hash.noise2(key, 0.3, -2 + i / 200) for i in range(800)])
    assert np.abs(line).max() <= 1
    assert np.abs(np.diff(line)).max() < 0.02
    space = np.array([position_hash.noise3(key, i / 200, -0.5, 7.25) for i in range(400)])
    assert space.min() >= 0
    assert space.max() < 1
    assert np.abs(np.diff(space, axis=0)).max() < 0.01
    bells = np.array([position_hash.bell(np.uint64(position_hash.hash3(key, 0, 0, i))) for i in range(20_000)])
    assert abs(bells.mean()) < 0.03
    assert abs(bells.std() - 1) < 0.03


def random_rank(seed: int, n: int) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(seed)
    row = synthesize.empty_row(16)
    row.point[:] = rng.uniform(-50, 50, (3, 16))
    capsules = rng.uniform(-200, 200, (12, 9)).astype(np.float32)
    capsules[:, 3], capsules[:, 7] = rng.uniform(50, 100, 12), rng.uniform(-20, 20, 12)
    capsules[:, 8] = 1 / (capsules[:, 4:7] ** 2).sum(axis=1)
    return row, [tuple(capsule) for capsule in capsules]


@pytest.mark.parametrize("n", [1, 5, 15, 16])
def test_ranks_against_numpy(n: int) -> None:
    """Compiled kernels have been seen to differ from their own source; so they are compared."""
    row, capsules = random_rank(n, n)
    ratios = np.empty((12, n), np.float32)
    row.rank[:] = synthesize.NOBODY
    for slot, c in enumerate(capsules):
        start, edge = np.array(c[:3])[:, None], np.array(c[4:7])[:, None]
        away = row.point[:, :n] - start
        t = np.clip((away * edge).sum(axis=0) * c[8], 0, 1)
        ratios[slot] = ((away - t * edge) ** 2).sum(axis=0) / (c[3] + t * c[7]) ** 2
        synthesize.measure(c, row, n)
        np.testing.assert_allclose(row.ratio[:n], ratios[slot], rtol=1e-4)
        ratios[slot] = row.ratio[:n]
        synthesize.gather(row, slot, n)
        if slot % 3 == 2:  # parts of three capsules
            synthesize.place_part(row, n)
            row.rank[0] = synthesize.NOBODY
    parts = ratios.reshape(4, 3, n).min(axis=1)
    order = np.argsort(parts, axis=0)
    assert np.array_equal((row.rank[1, :n] & synthesize.SLOT) // 3, order[0])
    assert np.array_equal((row.rank[2, :n] & synthesize.SLOT) // 3, order[1])
    assert np.array_equal(row.rank[1, :n] & synthesize.SLOT, ratios.argmin(axis=0))


def test_no_capsule_that_matters_is_left_out() -> None:
    box = Box((20, 100, 100), (28, 180, 180))
    lattice = cells(box, EM_NM, 5)
    corners = lattice.corner.reshape(-1, 3)
    parts = skeleton(5, False, corners.min(axis=0), corners.max(axis=0))
    none = loops(5, NO_LOOPS, warp_of(5))
    scene = synthesize.Scene(lattice, parts, micrograph.appearance(5), np.array([box.begin, box.end]), False, none)
    cell, row, found = synthesize.empty_cell(), synthesize.empty_row(16), np.empty((3, 1024))
    rng = np.random.default_rng(0)
    for _ in range(40):
        where = tuple(int(rng.integers(0, n - 1)) for n in lattice.corner.shape[:3])
        centre, far = enclose(lattice, where, cell.origin, cell.frame)
        count, limit = synthesize.survey(parts, centre, far, found)
        kept = synthesize.admit(scene, found, count, limit, cell)
        first = [int(v) for v in (lattice.begin + where) * lattice.pitch]
        advance(lattice, where, cell.origin, (first[0], first[1], first[2], 16), row.point)
        synthesize.compete(scene, cell, kept, row, 16)
        points = (row.point.astype(np.float64) + cell.origin[:, None]).T[:, None]
        start, edge = parts.capsule[:, :3], parts.capsule[:, 4:7] - parts.capsule[:, :3]
        t = np.clip(((points - start) * edge).sum(axis=2) / (edge**2).sum(axis=1), 0, 1)
        away = np.linalg.norm(points - start - t[..., None] * edge, axis=2)
        ratio = away / (parts.capsule[:, 3] + t * (parts.capsule[:, 7] - parts.capsule[:, 3]))
        assert kept < synthesize.MOST
        for i in range(16):
            nearest = {name: ratio[i, parts.part == name].min() for name in np.unique(parts.part)}
            best, other = sorted(nearest.values())[:2]
            one, two = (int(rank & synthesize.SLOT) for rank in row.rank[1:, i])
            assert nearest[cell.part[one]] == pytest.approx(best, rel=1e-3)
            assert nearest[cell.part[two]] == pytest.approx(other, rel=1e-3)


def test_the_memory_of_the_forest_changes_nothing() -> None:
    roomy = trees.forest(8, True, 10_000)
    cramped = roomy._replace(memo_node=np.zeros(2, np.int64), memo_wish=np.zeros(2, np.int8))
    for node in ((z, y, x) for z in range(4) for y in range(4) for x in range(4)):
        assert trees.thin_wish(roomy, node) == trees.thin_wish(cramped, node)
        assert trees.thin_root(roomy, node) == trees.thin_root(cramped, node)
        assert trees.thick_out(roomy, node) == trees.thick_out(cramped, node)
        assert trees.fold(roomy, node) == trees.fold(cramped, node)


def test_names_of_nodes_are_never_shared() -> None:
    last = 2**trees.AXIS_BITS - 1 - trees.ORIGIN
    axis = (-trees.ORIGIN, -1, 0, 1, last)
    names = {int(trees.pack(level, z, y, x)) for level in (0, 1) for z in axis for y in axis for x in axis}
    assert len(names) == 2 * len(axis) ** 3
    assert min(names) > 0
    assert max(names) < 2**62
