"""A limited view: what is connected only outside it, differs; and a mutex watershed splits what touches itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.offsets import METRIC, NEAREST
from pipeline.errors import WrongShape
from pipeline.geometry import Box, Index
from pipeline.ops.local_view import View, seen_affinities
from pipeline.ops.mutex_watershed import mutex_watershed
from pipeline.ops.noisy_affinities import noisy_affinities, recipe
from pipeline.ops.self_contacts import self_contacts
from pipeline.ops.synthesize import generate

ENDLESS = (10**6, 10**6, 10**6)
NET_NM = (30.0, 12.0, 12.0)
HOW = recipe(METRIC, seed=1, noise=0.1, smooth_vx=3.0, voxel_pm=(30_000, 12_000, 12_000))
REPELS = 0.5 * 65535


def hairpin(length: int) -> Any:
    """Two arms of one id in a section, a voxel of background between them, connected at one end."""
    labels = np.zeros((1, 11, length), np.uint64)
    labels[:, 1:5], labels[:, 6:10], labels[:, 1:10, :4] = 5, 5, 5
    return labels


def test_arms_repel_where_the_bend_is_out_of_view_and_not_where_it_is_in_view() -> None:
    how = recipe(((0, -5, 0), *NEAREST), seed=0, noise=0.0, smooth_vx=1.0, voxel_pm=(1, 1, 1))
    labels = hairpin(120)
    seen = seen_affinities(labels, how, View((16, 43, 51), (1, 11, 25)))[0, 0, 8]
    plain = noisy_affinities(labels, Box.of_shape((1, 11, 120)), Box.of_shape((1, 11, 120)), how)[0, 0, 8]
    assert (seen[60:] < REPELS).all()
    assert (seen[:25] == plain[:25]).all()
    assert (plain > REPELS).all()


def test_a_large_view_sees_what_the_labels_say() -> None:
    labels = hairpin(40)
    box = Box.of_shape((1, 11, 40))
    seen = seen_affinities(labels, HOW, View((20, 128, 128), (10, 64, 64)))
    assert np.array_equal(seen, noisy_affinities(labels, box, box, HOW))


def test_a_window_that_edges_reach_out_of_is_refused() -> None:
    with pytest.raises(WrongShape, match="way out"):
        seen_affinities(hairpin(40), HOW, View((10, 64, 64), (10, 64, 64)))


def side(segments_ZYX: Any, voxel: Index, box: Box) -> int:
    return int(segments_ZYX[tuple(v - b for v, b in zip(voxel, box.begin, strict=True))])


@pytest.mark.parametrize("seen", [True, False])
def test_mutex_watershed_splits_far_loops_and_merges_no_neighbours(seen: bool) -> None:
    """From edges of the truth itself it splits none: the limited view is what makes it."""
    far = [
        one
        for one in self_contacts(Box((0, 0, 0), (60, 525, 525)), seed=2, voxel_size_nm=NET_NM, loop_kinds="both")
        if one.far and min(one.box.begin) >= 0
    ]
    for one in (next(one for one in far if one.kind == kind) for kind in ("touching", "gapped")):
        _, truth = generate(one.box, seed=2, shape=ENDLESS, voxel_size_nm=NET_NM, loop_kinds="both")
        whole = Box.of_shape(one.box.shape)
        edges = seen_affinities(truth, HOW) if seen else noisy_affinities(truth, whole, whole, HOW)
        mask = edges[:3].max(axis=0) > 0.3 * 65535
        segments, _ = mutex_watershed(edges, METRIC, attractive=3, mask_ZYX=mask)
        arms = [side(segments, voxel, one.box) for voxel in one.sides]
        assert (arms[0] != arms[1]) == seen
        own = segments[truth == one.label]
        assert np.isin(own, arms).mean() > 0.95
        held = truth[np.isin(segments, arms) & (truth > 0)]
        assert (held == one.label).mean() > 0.99
