"""The plot of thresholds, and where a bridge is."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.sweep import Point, best
from pipeline.tree_report import LABELS_APART, place_of, plot, with_own

POINTS = [Point(round(t / 10, 1), 9, t / 10, 0.3 / t, t / 10 + 0.3 / t, 0.1) for t in range(1, 10)]


def test_the_plot_has_a_point_for_every_threshold_and_names_the_ones_that_matter() -> None:
    drawn = plot(POINTS, 0.4, best(POINTS))
    svg = ElementTree.fromstring(re.match(r"<svg.*?</svg>", drawn).group())  # type: ignore[union-attr]
    kinds = [circle.get("class") for circle in svg.iter("circle")]
    assert kinds.count("point") == 8
    assert kinds.count("own") == kinds.count("best") == 1
    marked = {mark.text for mark in svg.iter("text") if mark.get("class") == "mark"}
    assert marked == {"0.4", f"{best(POINTS).threshold:g}"}  # type: ignore[union-attr]
    for circle in svg.iter("circle"):
        assert 0 <= float(circle.get("cx", -1)) <= 720
        assert 0 <= float(circle.get("cy", -1)) <= 420
    assert "<script" not in drawn


def test_labels_that_would_cover_each_other_are_left_out() -> None:
    crowd = [Point(t / 100, 9, 0.5 + t / 1e4, 0.5, 1.0 + t / 1e4, 0.1) for t in range(20, 60)]
    labels = re.findall(r">(0\.[2-5]\d?)</text>", plot(crowd, 0.3, best(crowd)))
    assert 2 <= len(labels) < 20  # ticks of the axes among them
    assert LABELS_APART > 10


def test_nothing_measured_is_no_plot() -> None:
    assert plot([Point(0.5, 0, None, None, None, None)], 0.5, None) == ""


def test_the_runs_own_threshold_is_among_the_points() -> None:
    scores = {"voi_split": 0.1, "voi_merge": 0.2, "voi": 0.3, "arand": 0.4, "segments": 5}
    assert with_own(POINTS, 0.4, scores) == POINTS
    found = with_own(POINTS, 0.45, scores)
    assert [point.threshold for point in found[3:6]] == [0.4, 0.45, 0.5]
    assert found[4] == Point(0.45, 5, 0.1, 0.2, 0.3, 0.4)
    assert with_own(POINTS, 0.45, {}) == POINTS


def test_a_tie_names_a_voxel_of_the_layer() -> None:
    assert place_of(2 << CHANNEL_SHIFT | ((4 * 7 + 5) * 11 + 6), (9, 7, 11)) == (4, 5, 6)
