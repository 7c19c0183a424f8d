from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from models.augmentation.alone import NOTHING, alone
from models.augmentation.misalignment import Misalignment
from models.augmentation.plain import Plain
from models.augmentation.profiles import PROFILES, isotropic, published, validation
from models.augmentation.recipe import Augmentation, Recipe, apply, augment, margin, prepare

PATCH = (8, 24, 24)
NM = (30.0, 6.0, 6.0)
RECIPES: list[Recipe] = [published(NM), validation(NM), isotropic((8.0, 8.0, 8.0)), Plain()]


def crop(recipe: Recipe, patch: tuple[int, int, int] = PATCH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = [p + m for p, m in zip(patch, margin(recipe, patch), strict=True)]
    return rng.random(shape, np.float32), rng.integers(1, 1 << 40, shape).astype(np.uint64)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_patch_comes_out_and_the_generator_decides_everything(recipe: Recipe):
    image, labels = crop(recipe)
    before = image.copy(), labels.copy()
    seen = set()
    for seed in range(60):
        changed, truth = augment(image, labels, recipe, PATCH, np.random.default_rng(seed))
        assert changed.shape == truth.shape == PATCH
        assert changed.dtype == np.float32
        assert truth.dtype == labels.dtype
        assert changed.flags.c_contiguous
        assert truth.flags.c_contiguous
        assert 0 <= changed.min() <= changed.max() <= 1
        assert np.isin(truth, labels).all()  # no id is invented, 0 neither: nothing was filled
        again = augment(image, labels, recipe, PATCH, np.random.default_rng(seed))
        np.testing.assert_array_equal(changed, again[0])
        np.testing.assert_array_equal(truth, again[1])
        seen.add(changed.tobytes())
    assert len(seen) == 60
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("patch", [PATCH, (3, 10, 17), (1, 8, 8)])
def test_the_margin_is_enough(recipe: Recipe, patch: tuple[int, int, int]):
    most = np.add(patch, margin(recipe, patch))
    sources = [prepare(recipe, patch, np.random.default_rng(seed)).source for seed in range(500)]
    assert (np.array(sources) <= most).all()
    assert margin(recipe, patch)[0] == 0


def test_a_crop_that_is_too_small_is_refused():
    recipe = published(NM)
    image, labels = crop(Plain())
    recipe = replace(recipe, warp=replace(recipe.warp, probability=1.0))
    with pytest.raises(ValueError, match="margin"):
        augment(image, labels, recipe, PATCH, np.random.default_rng(0))


def test_reading_only_what_is_needed_gives_the_same():
    recipe = published(NM)
    image, labels = crop(recipe)
    for seed in range(20):
        whole = augment(image, labels, recipe, PATCH, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        geometry = prepare(recipe, PATCH, rng)
        part = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(image.shape, geometry.source, strict=True))
        read = apply(image[part].copy(), labels[part].copy(), recipe, geometry, rng)
        np.testing.assert_array_equal(whole[0], read[0])
        np.testing.assert_array_equal(whole[1], read[1])


def test_misalignment_and_missing_sections_take_turns():
    turns: Counter[str] = Counter()
    for seed in range(4000):
        geometry = prepare(published(NM), (20, 8, 8), np.random.default_rng(seed))
        assert not (geometry.shift and geometry.missing)
        turns["shift"] += geometry.shift is not None
        turns["missing"] += geometry.missing
        turns["warp"] += geometry.mapping is not None
    assert turns["missing"] == pytest.approx(2000, abs=150)
    assert turns["shift"] == pytest.approx(0.7 * 2000, abs=150)
    assert turns["warp"] == pytest.approx(0.7 * 4000, abs=150)


def test_a_crop_has_a_misalignment_or_missing_sections_and_never_both():
    missing = replace(published(NM).missing_section, black=1.0, probability=1.0)
    recipe = replace(NOTHING, misalignment=Misalignment(), missing_section=missing)
    image, labels = crop(recipe)
    image = np.ones_like(image)
    for seed in range(40):
        geometry = prepare(recipe, PATCH, np.random.default_rng(seed))
        changed, _ = augment(image, labels, recipe, PATCH, np.random.default_rng(seed))
        assert geometry.missing == bool((changed == 0).any())


def test_only_what_moves_touches_labels():
    still = [c.recipe for c in alone(published(NM)) if c.name not in ("translation", "warp", "flip")]
    for recipe in still:
        image, labels = crop(recipe)
        for seed in range(10):
            geometry = prepare(recipe, PATCH, np.random.default_rng(seed))
            shift = geometry.shift
            begin = (0, max(0, -shift.y), max(0, -shift.x)) if shift else (0, 0, 0)
            changed, truth = augment(image, labels, recipe, PATCH, np.random.default_rng(seed))
            begin = [
                (n - s) // 2 + b for n, s, b in zip(image.shape, geometry.source, begin, strict=True)
            ]  # where the sections that did not move come from
            there = tuple(slice(b, b + p) for b, p in zip(begin, PATCH, strict=True))
            np.testing.assert_array_equal(truth, labels[there])
            if shift:
                assert (changed == image[there]).all(axis=(1, 2)).sum() >= PATCH[0] - 1


def test_every_change_is_found_alone():
    names = [change.name for change in alone(published(NM))]
    assert names == [
        "greyscale", "translation", "slip", "missing section", "occlusion", "out of focus", "warp", "flip",
    ]  # fmt: skip
    chances = {change.name: round(change.probability, 3) for change in alone(published(NM))}
    assert chances["translation"] == 0.25
    assert chances["slip"] == 0.1
    assert chances["missing section"] == 0.45
    assert [c.name for c in alone(Plain())] == ["greyscale", "missing section", "out of focus", "noise", "flip"]


@pytest.mark.parametrize("recipe", [published(NM), Plain()])
def test_a_change_alone_is_always_made(recipe: Recipe):
    for change in alone(recipe):
        image, labels = crop(change.recipe)
        inner = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(image.shape, PATCH, strict=True))
        changed = [augment(image, labels, change.recipe, PATCH, np.random.default_rng(s))[0] for s in range(8)]
        assert sum(not np.array_equal(one, image[inner]) for one in changed) >= 7


def test_nothing_is_nothing():
    image, labels = crop(NOTHING)
    same, unchanged = augment(image, labels, NOTHING, PATCH, np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(unchanged, labels)


# ---- profiles ------------------------------------------------------------------------------------------------------
def test_the_defaults_are_the_published_numbers():
    assert published(NM) == Augmentation()
    assert margin(published(NM), (20, 160, 160)) == (0, 171, 171)


def test_lengths_follow_the_voxel_size():
    half = published((29.0, 12.0, 12.0))
    assert half.misalignment.shift_vx == 8
    assert half.occlusion.side_vx == (3, 15)
    assert half.occlusion.flatness == pytest.approx(12 / 29)
    assert half.out_of_focus.sigma_vx == 2.5
    assert half.warp == published(NM).warp


def test_validation_leaves_out_boxes_warp_and_interpolation():
    recipe = validation(NM)
    assert recipe.misalignment == Misalignment(interpolate=False)
    assert [c.name for c in alone(recipe)] == [
        "greyscale", "translation", "slip", "missing section", "out of focus", "flip",
    ]  # fmt: skip
    assert replace(
        recipe, **{n: getattr(published(NM), n) for n in ("misalignment", "occlusion", "warp")}
    ) == published(NM)


def test_isotropic_volumes_have_no_sections_to_misplace():
    names = [change.name for change in alone(isotropic((8.0, 8.0, 8.0)))]
    assert not {"translation", "slip", "missing section"} & set(names)
    assert isotropic((8.0, 8.0, 8.0)).occlusion.flatness == 1
    assert set(PROFILES) == {"published", "validation", "isotropic"}
