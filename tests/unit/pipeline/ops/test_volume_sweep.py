"""A volume as one block: the same fragments and scores as its parts say."""

from __future__ import annotations

import numpy as np
import pytest

from models.spec import smooth_code_table
from pipeline.ops.evaluate import pairs, scores
from pipeline.ops.scores import Score
from pipeline.ops.thresholds import absolute_codes
from pipeline.ops.volume_sweep import Segmented, graph_of, merge_fragments
from pipeline.ops.whole_volume import watershed_volume

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


def segmented(codes: np.ndarray) -> Segmented:
    table = np.asarray(TABLE)
    fragments = watershed_volume(codes, *absolute_codes(table, 0.02, 0.999), 0, 0)
    return merge_fragments(fragments, graph_of(fragments, codes, table), floor=0.05)


def test_rooms_are_found_at_the_right_threshold():
    codes, truth = two_rooms()
    whole = segmented(codes)
    assert np.unique(whole.fragments_ZYX).size == 3
    points = whole.scores(truth, (0.1, 0.5, 0.9))
    assert [point.segments for point in points] == [1, 2, 3]
    assert points[1].voi == 0
    for point in points:
        labels = whole.segments(point.threshold)
        told = scores(pairs(truth, labels))
        assert point.voi == pytest.approx(told["voi"])
        assert np.unique(labels).size == point.segments


@pytest.mark.parametrize("score", [Score("mean"), Score("max"), Score("quantile", 50)])
def test_one_graph_serves_every_score_and_floats_go_like_codes(score: Score):
    codes, _ = two_rooms()
    fragments = segmented(codes).fragments_ZYX
    shares = (np.asarray(TABLE)[codes] / 65535).astype(np.float32)
    table = np.asarray(TABLE)
    own = graph_of(fragments, codes, table, histograms=score.name == "quantile")
    expected = merge_fragments(fragments, own, floor=0.05, score=score)
    for values, meaning in ((codes, table), (shares, None)):
        graph = graph_of(fragments, values, meaning, histograms=True)
        found = merge_fragments(fragments, graph, floor=0.05, score=score)
        assert found.tree.score.size == 2
        np.testing.assert_array_equal(found.tree.score, expected.tree.score)
        np.testing.assert_array_equal(found.segments(0.3), expected.segments(0.3))
