import math

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from models.augmentation.warp import Mapping, Warp, draw_mapping, warp

PATCHES = [(5, 16, 16), (1, 9, 20), (3, 31, 12), (4, 1, 7), (2, 2, 2)]


def source(mapping: Mapping, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(mapping.source, np.float32), rng.integers(1, 1 << 50, mapping.source).astype(np.uint64)


def place(mapping: Mapping, z: int, y: int, x: int) -> tuple[float, float]:
    """Voxel by voxel as in the module's prose, counted from the centre of the patch."""
    middle = [(n - 1) / 2 for n in mapping.patch]
    dz, dy, dx = (i - m for i, m in zip((z, y, x), middle, strict=True))
    nz, ny, nx = (d / max(m, 0.5) for d, m in zip((dz, dy, dx), middle, strict=True))
    p, r, h = mapping.stretch, mapping.rotation, mapping.shear
    y1 = dy * (1 / mapping.scale + p[0] * nx + p[2] * nz)
    x1 = dx * (1 / mapping.scale + p[1] * ny + p[3] * nz)
    return y1 * math.cos(r + h) + x1 * math.sin(r - h), x1 * math.cos(r - h) - y1 * math.sin(r + h)


def reference(image: np.ndarray, labels: np.ndarray, mapping: Mapping) -> tuple[np.ndarray, np.ndarray]:
    places = np.array([place(mapping, *index) for index in np.ndindex(*mapping.patch)])
    middle = np.array([(n - 1) / 2 for n in mapping.patch[1:]])
    places -= np.floor(places.min(axis=0) + middle + 1e-9) - middle  # a hair: rounding must not cost a voxel
    sections = np.repeat(np.arange(mapping.patch[0]), mapping.patch[1] * mapping.patch[2])
    where = np.stack([sections, *places.T])
    found = map_coordinates(image, where, order=1, mode="nearest").reshape(mapping.patch)
    rounded = np.rint(where).astype(int)
    assert (rounded >= 0).all()
    assert (rounded.max(axis=1) < labels.shape).all()
    return found, labels[tuple(rounded)].reshape(mapping.patch)


@pytest.mark.parametrize("patch", PATCHES)
def test_it_samples_the_places_that_the_prose_names(patch: tuple[int, int, int]):
    for seed in range(25):
        mapping = draw_mapping(Warp(), patch, np.random.default_rng(seed))
        image, labels = source(mapping, seed)
        warped, truth = warp(image, labels, mapping)
        wanted, wanted_labels = reference(image, labels, mapping)
        np.testing.assert_allclose(warped, wanted, atol=2e-5)
        assert (truth == wanted_labels).mean() > 0.999  # halves may round either way
        assert np.isin(truth, labels).all()


def test_no_warp_reads_more_than_the_largest_source():
    for change in (Warp(), Warp(rotation_deg=360, shear_deg=10, scale=0.4, stretch=0.2), Warp(rotation_deg=5)):
        for patch in (*PATCHES, (20, 80, 80)):
            most = change.largest_source(patch)
            for seed in range(300):
                needed = draw_mapping(change, patch, np.random.default_rng(seed)).source
                assert all(n <= m for n, m in zip(needed, most, strict=True))


def test_the_box_is_tight_and_nothing_is_read_outside():
    for seed in range(200):
        mapping = draw_mapping(Warp(), (6, 24, 20), np.random.default_rng(seed))
        middle, along_z = mapping.places()
        ends = np.stack([middle - along_z, middle + along_z])
        low, high = ends.min(axis=(0, 2, 3)), ends.max(axis=(0, 2, 3))
        extent = np.array(mapping.source[1:])
        assert (low > -1e-6).all()
        assert (high < extent - 1 + 1e-6).all()
        assert (low < 1).all()
        assert (high >= extent - 2 - 1e-6).all()


def test_nothing_to_do_changes_nothing():
    mapping = Mapping((3, 8, 9))
    image, labels = source(mapping)
    warped, truth = warp(image, labels, mapping)
    np.testing.assert_array_equal(warped, image[:, :8, :9])
    np.testing.assert_array_equal(truth, labels[:, :8, :9])


def test_a_quarter_turn_is_a_quarter_turn():
    mapping = Mapping((2, 9, 9), rotation=math.pi / 2)
    image, labels = source(mapping)
    warped, truth = warp(image, labels, mapping)
    inner = (slice(None), slice(0, 9), slice(0, 9))
    turned = [np.rot90(labels[inner], k, (1, 2)) for k in (1, 3)]
    assert any(np.array_equal(truth, candidate) for candidate in turned)
    assert any(np.allclose(warped, np.rot90(image[inner], k, (1, 2)), atol=1e-5) for k in (1, 3))


def test_a_crop_of_another_extent_is_refused():
    mapping = Mapping((3, 8, 8), rotation=0.3)
    image, labels = source(mapping)
    with pytest.raises(ValueError, match="was given"):
        warp(image[:, 1:], labels[:, 1:], mapping)
