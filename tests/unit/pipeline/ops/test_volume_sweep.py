"""A volume as one block: the same fragments and scores as its parts say."""

from __future__ import annotations

import numpy as np
import pytest

from models.spec import smooth_code_table
from pipeline.ops.evaluate import pairs, scores
from pipeline.ops.scores import Score
from pipeline.ops.volume_sweep import graph_of, merge_fragments, merges_of, segment_volume

TABLE = smooth_code_table()


def two_rooms() -> tuple[np.ndarray, np.ndarray]:
    """Two rooms with a wall of weak edges, one of them cut once by a weaker one."""
    truth = np.ones((3, 8, 12), np.uint64)
    truth[:, :, 6:] = 2
    codes = np.full((3, 3, 8, 12), 255, np.uint8)
    codes[0, 0], codes[1, :, 0], codes[2, :, :, 0] = 0, 0, 0
    codes[2, :, :, 3] = 160
    codes[2, :, :, 6] = 60
    return codes, truth


def test_rooms_are_found_at_the_right_threshold():
    codes, truth = two_rooms()
    whole = segment_volume(codes, TABLE, low=0.02, high=0.999, floor=0.05)
    assert np.unique(whole.fragments_ZYX).size == 3
    points = whole.scores(truth, (0.1, 0.5, 0.9))
    assert [point.segments for point in points] == [1, 2, 3]
    assert points[1].voi == 0
    for point in points:
        labels = whole.segments(point.threshold)
        told = scores(pairs(truth, labels))
        assert point.voi == pytest.approx(told["voi"])
        assert np.unique(labels).size == point.segments


def test_further_channels_do_not_count():
    codes, _ = two_rooms()
    more = np.concatenate([codes, np.zeros_like(codes[:2])])
    ways = {"low": 0.02, "high": 0.999, "floor": 0.05}
    one, other = (segment_volume(c, TABLE, **ways) for c in (codes, more))
    np.testing.assert_array_equal(one.segments(0.3), other.segments(0.3))


@pytest.mark.parametrize("score", [Score("mean"), Score("max"), Score("quantile", 50)])
def test_one_graph_serves_every_score_and_floats_go_like_codes(score: Score):
    codes, _ = two_rooms()
    fragments = segment_volume(codes, TABLE, low=0.02, high=0.999, floor=0.05).fragments_ZYX
    shares = (np.asarray(TABLE)[codes] / 65535).astype(np.float32)
    expected = merges_of(fragments, codes, TABLE, floor=0.05, score=score)
    for values, table in ((codes, np.asarray(TABLE)), (shares, None)):
        found = merge_fragments(fragments, graph_of(fragments, values, table, histograms=True), floor=0.05, score=score)
        assert found.tree.score.size == 2
        np.testing.assert_array_equal(found.tree.score, expected.tree.score)
        np.testing.assert_array_equal(found.segments(0.3), expected.segments(0.3))
