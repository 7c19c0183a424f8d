"""Decisions against the truth: the plot's marks, counts of right and wrong, other thresholds."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from self_touch_cases import candidates

from pipeline.ops.merge_effect import Effect, Point
from pipeline.ops.self_touch import ABSTAINED, APART, REFUSED
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.self_touch_truth import HEIGHT, MOST, WIDTH, other_thresholds, scaled, scatter, verdicts


def svg_of(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*?</svg>", drawn).group())  # type: ignore[union-attr]


def test_every_candidate_with_a_distance_has_a_mark_in_each_panel() -> None:
    found = candidates()
    svg, decision = svg_of(scatter(found)), found.table["decision"]
    kinds = [mark.get("class") for mark in svg.iter() if mark.tag != "line"]
    for kind, name in ((MERGED, "merged"), (APART, "apart"), (REFUSED, "refused")):
        assert kinds.count(name) == 3 * int((decision == kind).sum())
    assert "abstained" not in kinds  # they have no distance
    assert "6 without a distance are left out." in scatter(found)
    for circle in svg.iter("circle"):
        assert 0 < float(circle.get("cx", -1)) < WIDTH
        assert 0 < float(circle.get("cy", -1)) < HEIGHT


def test_better_is_below_the_line_of_no_change_and_nearer_is_left_of_the_threshold() -> None:
    found = candidates(2)
    table = {**found.table, "distance": np.array([0.5, 2.5]), "decision": np.array([MERGED, APART])}
    svg = svg_of(scatter(replace(found, table=table, effect=Effect(np.array([-0.1, 0]), np.array([0, 1e-4])))))
    zero = float(next(line.get("y1", "") for line in svg.iter("line") if line.get("class") == "zero"))
    limits = [float(line.get("x1", "")) for line in svg.iter("line") if line.get("class") == "limit"]
    marks = {kind: [c for c in svg.iter("circle") if c.get("class") == kind] for kind in ("merged", "apart")}
    for panel, limit in enumerate(limits):
        merged, apart = marks["merged"][panel], marks["apart"][panel]
        assert float(merged.get("cx", "")) < limit < float(apart.get("cx", ""))
    heights = {kind: [float(c.get("cy", "")) - zero for c in found] for kind, found in marks.items()}
    assert heights["merged"] == pytest.approx([heights["merged"][2], 0, heights["merged"][2]])
    assert heights["merged"][2] > 50
    assert heights["apart"] == pytest.approx([0, heights["apart"][2], heights["apart"][2]])
    assert heights["apart"][2] < -10


def test_a_power_of_ten_is_a_step() -> None:
    assert scaled(np.array([0.0])).tolist() == [0.0]
    steps = np.diff(scaled(np.array([1e-3, 1e-2, 1e-1])))
    assert steps == pytest.approx(1.0, abs=0.01)
    assert scaled(np.float64(-0.01)) == -scaled(np.float64(0.01))


def test_of_very_many_the_largest_changes_are_drawn() -> None:
    drawn = scatter(candidates(4000))
    assert f"Of 3,600 candidates the {MOST:,} with the largest changes are drawn." in drawn
    assert drawn.count("<circle") + drawn.count("<rect") == 3 * MOST


def test_without_truth_or_distance_there_is_nothing() -> None:
    assert scatter(candidates(truth=False)) == verdicts(candidates(truth=False)) == ""
    found = candidates(3)
    assert scatter(replace(found, table={**found.table, "distance": np.full(3, np.nan)})) == ""


def test_right_and_wrong_are_counted_by_decision() -> None:
    found = candidates(6)
    decision = np.array([MERGED, MERGED, APART, ABSTAINED, REFUSED, APART])
    change = np.array([-1.0, 1.0, 1.0, -1.0, 1.0, 0.0])
    told = verdicts(replace(found, table={**found.table, "decision": decision}, effect=Effect(change, np.zeros(6))))
    zero = '<td class="none">0</td>'
    for row in (
        f"<td>merged</td><td>1</td><td>1</td>{zero}",
        f"<td>kept apart</td>{zero}<td>1</td><td>1</td>",
        f"<td>abstained</td><td>1</td>{zero}{zero}",
        f"<td>refused by a guard</td>{zero}<td>1</td>{zero}",
        "3 of 5 decisions are right",
    ):
        assert row in told


def test_other_thresholds_name_this_run_and_the_best() -> None:
    points = [Point(2.0, 7, 0.1, 0.3, 0.4, 0.2), Point(1.5, 5, 0.1, 0.2, 0.3, 0.2), Point(1.0, 2, 0.4, 0.1, 0.5, None)]
    told = other_thresholds(points, 2.0)
    assert told.index("<tr><td>1<") < told.index("<tr><td>1.5<") < told.index("<tr><td>2<")
    assert "<td>0.3000</td><td>0.2000</td><td>best</td>" in told
    assert "<td>0.4000</td><td>0.2000</td><td>this run</td>" in told
    assert "undefined" in told
    more = other_thresholds([*points, Point(2.5, 7, 0.1, 0.3, 0.4, 0.2), Point(1.75, 5, 0.1, 0.2, 0.3, 0.2)], 2.0)
    assert more == told  # the same merges once
    assert "<td>2.5</td>" in other_thresholds([*points, Point(2.5, 7, 0.1, 0.3, 0.4, 0.2)], 2.5)
    assert "first round" not in told
    assert "first round" in other_thresholds(points, 1.5, rounds=2)
    assert "best, this run" in other_thresholds(points, 1.5)
    assert other_thresholds([Point(1.0, 0, None, None, None, None)], 1.0) == ""
