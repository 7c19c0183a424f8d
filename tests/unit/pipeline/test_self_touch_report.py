"""The section on self-touch: counts by round, and which parts there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from self_touch_cases import candidates

from pipeline.ops.merge_effect import Point
from pipeline.ops.self_touch import ABSTAINED, APART, REFUSED
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.self_touch_report import counts, told


def test_decisions_are_counted_by_round() -> None:
    found = candidates(5)
    table = {
        **found.table,
        "decision": np.array([MERGED, MERGED, APART, REFUSED, ABSTAINED]),
        "distance": np.array([0.1, 1.4995, 1.5005, 0.2, np.nan]),
        "round": np.array([1, 1, 1, 2, 2]),
    }
    told = counts(replace(found, table=table)).replace('<td class="none">0</td>', "<td>0</td>")
    first = "<td>round 1</td><td>3</td><td>2</td><td>1</td><td>0</td><td>0</td><td>2</td>"
    second = "<td>round 2</td><td>2</td><td>0</td><td>0</td><td>1</td><td>1</td><td>0</td>"
    assert f"<tr>{first}</tr><tr>{second}</tr>" in told


def test_the_section_has_all_parts_and_no_script() -> None:
    section = told(candidates(rounds=2), [Point(1.5, 3, 0.1, 0.2, 0.3, 0.4)])
    for part in ('class="scatter"', "decisions are right", "threshold of the distance", 'class="touches"', "round 2"):
        assert part in section
    assert "<script" not in section
    assert len(section) < 200_000


def test_without_a_truth_decisions_are_shown_all_the_same() -> None:
    section = told(candidates(truth=False))
    assert 'class="touches"' in section
    assert "scatter" not in section
    assert "are right" not in section


def test_no_candidates_are_told() -> None:
    assert told(candidates(0)) == '<p class="soft">No pair of segments is a candidate.</p>'


def test_a_threshold_of_nothing_is_shown_as_well() -> None:
    found = replace(candidates(30), threshold=0.0)
    assert 'class="scatter"' in told(found)
    still = replace(found, table={**found.table, "distance": np.zeros(30)})
    assert 'class="touches"' in told(still)
