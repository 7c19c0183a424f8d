"""Loops and their known answers: one id, a membrane between the arms, and a connection at the bend."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from skimage.measure import label as components

from pipeline.geometry import Box, Index
from pipeline.ops.loops import SITE_NM, VIEW_NM, loop_at, loops, site_of
from pipeline.ops.loops import inward as to_own
from pipeline.ops.loops import outward as from_own
from pipeline.ops.micrograph import appearance, section
from pipeline.ops.self_contacts import SelfContact, self_contacts
from pipeline.ops.synthesize import generate
from pipeline.ops.warped_cells import unwarp, warp, warp_of

ENDLESS = (10**6, 10**6, 10**6)
NET_NM = (30.0, 12.0, 12.0)
VIEW: Index = (20, 128, 128)
SEED = 2
SOMEWHERE = Box((30, 175, 175), (60, 525, 525))  # four sites, all lengths and kinds


def make(box: Box, kinds: str | None = "both", voxel_size_nm: Any = NET_NM, seed: int = SEED) -> Any:
    return generate(box, seed=seed, shape=ENDLESS, voxel_size_nm=voxel_size_nm, loop_kinds=kinds)


def answers(box: Box = SOMEWHERE, kinds: str = "both", seed: int = SEED) -> tuple[SelfContact, ...]:
    return self_contacts(box, seed=seed, voxel_size_nm=NET_NM, loop_kinds=kinds)


def centred(voxel: Index, shape: Index = VIEW) -> Box:
    z, y, x = (v - n // 2 for v, n in zip(voxel, shape, strict=True))
    return Box.of_shape(shape).shift((z, y, x))


def at(array_ZYX: Any, voxel: Index, box: Box) -> int:
    return int(array_ZYX[tuple(v - b for v, b in zip(voxel, box.begin, strict=True))])


@pytest.fixture(scope="module")
def whole() -> list[tuple[SelfContact, Any, Any]]:
    return [(one, *make(one.box)) for one in answers()]


# ---- position alone -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("voxel_size_nm", [NET_NM, (30.0, 6.0, 6.0)])
def test_blocks_equal_the_whole(voxel_size_nm: Any) -> None:
    corner = answers()[0].contact
    factor = int(12 // voxel_size_nm[2])
    box = centred((corner[0], factor * corner[1], factor * corner[2]), (8, 96, 96))
    image, truth = make(box, voxel_size_nm=voxel_size_nm)
    for z, y, x in product((0, 4), (0, 48), (0, 48)):
        part = Box.of_shape((4, 48, 48)).shift((z, y, x)).shift(box.begin)
        part_image, part_truth = make(part, voxel_size_nm=voxel_size_nm)
        assert np.array_equal(part_image, image[part.slices(box.begin)])
        assert np.array_equal(part_truth, truth[part.slices(box.begin)])


def test_lists_of_blocks_are_the_list_of_the_whole() -> None:
    parts = [
        Box((z, y, x), (z + 15, y + 70, x + 70))
        for z, y, x in product((30, 45), range(175, 525, 70), range(175, 525, 70))
    ]
    assert sorted(one.label for part in parts for one in answers(part)) == sorted(one.label for one in answers())
    assert len({one.label for one in answers()}) == len(answers()) == 4


def test_without_loops_there_are_none() -> None:
    box = centred(answers()[0].contact, (4, 40, 40))
    plain, also = make(box, None), generate(box, seed=SEED, shape=ENDLESS, voxel_size_nm=NET_NM)
    assert np.array_equal(plain[0], also[0])
    assert np.array_equal(plain[1], also[1])
    assert not np.array_equal(plain[1], make(box)[1])


# ---- the answers are right ------------------------------------------------------------------------------------------
def test_both_arms_are_one_id_and_there_is_a_membrane_between_them(whole: Any) -> None:
    for one, image, truth in whole:
        assert [at(truth, side, one.box) for side in one.sides] == [one.label, one.label]
        assert at(truth, one.contact, one.box) == 0
        assert at(truth, one.bend, one.box) == one.label
        inside = one.contact_box.clip(one.box).slices(one.box.begin)
        dark = image[inside][truth[inside] == 0].astype(float)
        assert dark.mean() < image[truth == one.label].mean() - 20


def test_the_process_is_one_component_of_all_of_it(whole: Any) -> None:
    for one, _, truth in whole:
        parts = components(truth == one.label, connectivity=3)
        assert at(parts, one.sides[0], one.box) == at(parts, one.sides[1], one.box) > 0
        assert np.bincount(parts.ravel())[1:].max() > 0.999 * (parts > 0).sum()


def test_in_a_view_that_misses_the_bend_the_arms_are_two_components() -> None:
    seen = set()
    for seed in (1, SEED):
        for one in answers(seed=seed):
            view = centred(one.contact)
            parts = components(make(view, seed=seed)[1] == one.label, connectivity=3)
            apart = at(parts, one.sides[0], view) != at(parts, one.sides[1], view)
            in_view = all(b <= v < e for v, b, e in zip(one.bend, view.begin, view.end, strict=True))
            assert (one.far, in_view) in ((True, False), (False, True))
            assert apart == one.far
            seen.add((one.far, one.kind))
    assert {far for far, _ in seen} == {True, False}
    assert {kind for _, kind in seen} == {"touching", "gapped"}


def test_gapped_arms_are_further_apart_than_touching_ones() -> None:
    widths = {kind: [width(one, kind) for one in answers(kinds=kind)] for kind in ("touching", "gapped")}
    assert all(one.kind == kind for kind in widths for one in answers(kinds=kind))
    assert max(widths["touching"]) <= 3
    assert min(widths["gapped"]) >= 3
    assert max(widths["gapped"]) <= 6
    assert np.mean(widths["gapped"]) > np.mean(widths["touching"]) + 1


def width(one: SelfContact, kinds: str) -> int:
    """Background in the section between the arms, along y or x, whichever is shorter."""
    box = centred(one.contact, (1, 41, 41))
    free = make(box, kinds)[1][0] != one.label
    runs = []
    for line in (free[20], free[:, 20]):
        stop = np.flatnonzero(~line)
        runs.append(int(stop[stop > 20].min(initial=41) - stop[stop < 20].max(initial=-1) - 1))
    return min(runs)


def test_the_volume_around_holds_other_objects_and_its_sections_are_aligned() -> None:
    image, truth = make(Box((30, 200, 200), (34, 400, 400)))
    assert np.unique(truth).size > 60
    assert 0.1 < (truth == 0).mean() < 0.3
    assert image[truth == 0].mean() < image[truth > 0].mean() - 25
    keys = appearance(SEED)
    assert any(section(keys, z).shift_y for z in range(30, 34)), "they would be displaced without loops"


# ---- geometry -------------------------------------------------------------------------------------------------------
def test_loops_stay_in_their_sites_and_far_ones_have_their_bend_out_of_view() -> None:
    every = loops(7, 2, warp_of(7, calm=True))
    drawn = [loop_at(every, (z, y, x)) for z, y, x in product(range(6), range(8), range(8))]
    for loop in drawn:
        u, v, w = to_own(loop, from_own(loop, 321.0, -54.0, 17.0))
        assert (round(u, 6), round(v, 6), round(w, 6)) == (321.0, -54.0, 17.0)
        end = 0.5 * (loop.contact + loop.bend)
        bend, contact = from_own(loop, end, 0.0, 0.0), from_own(loop, 0.5 * loop.contact - end, 0.0, 0.0)
        reach = max(abs(bend[1] - contact[1]), abs(bend[2] - contact[2]))
        assert (reach > 0.5 * VIEW_NM[2] + 30) if loop.far else (reach < 0.5 * VIEW_NM[2] - 60)
        site = site_of(loop.z, loop.y, loop.x)
        assert all(site_of(*from_own(loop, u, v, 0.0)) == site for u in (-end, end) for v in (-450.0, 450.0))
    for name in ("far", "flat", "gapped"):
        assert 0.3 < np.mean([getattr(loop, name) for loop in drawn]) < 0.7
    assert SITE_NM[0] > 2 * 300


def test_the_warp_can_be_undone() -> None:
    for calm in (False, True):
        bent = warp_of(3, calm=calm)
        for place in np.random.default_rng(0).uniform(0, 50_000, (50, 3)).tolist():
            there = warp(bent, *place)
            assert np.abs(np.subtract(unwarp(bent, *there), place)).max() < 1e-6
            assert np.abs(np.subtract(there, place)).max() > 1
