"""The page of a training, its curves, and the log that they are drawn from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from models.spec import smooth_code_table
from pipeline.training.curves import Scale, decades, plot, round_numbers, running_mean, thinned
from pipeline.training.judge import Look
from pipeline.training.log import Log
from pipeline.training.page import Standing, recent_pace, seconds_left, seen_before, seen_by, training_page

BEST = {"step": 200, "name": "voi", "score": 0.75, "metrics": {"voi_split": 0.5, "voi_merge": 0.25}}


def log_of(entries: list[dict[str, float]]) -> Log:
    log = Log(Path("none"))
    log.entries = entries
    return log


def standing(state: str = "running", **best: object) -> Standing:
    return Standing("<cells>", state, 400, {"network": "rsunet & heads"}, best, evaluate_every=100)


def trained() -> Log:
    told = [{"step": s, "loss": 100 / s, "rate": 1e-3, "seconds_per_step": 2.0} for s in range(10, 301, 10)]
    for entry in told[9::10]:
        entry |= {"voi": 1.0, "voi_split": 0.5, "voi_merge": 0.5, "held_out_auc": 0.9, "evaluation_seconds": 50.0}
    return log_of(told)


# ---- curves --------------------------------------------------------------------------------------------------------
def test_axes_have_round_numbers():
    assert round_numbers(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert round_numbers(0, 4000) == [0, 1000, 2000, 3000, 4000]
    assert round_numbers(0.913, 0.987) == [0.92, 0.94, 0.96, 0.98]
    assert round_numbers(3.0, 3.0) == [3.0]
    assert decades(0.11, 0.28) == [0.12, 0.15, 0.2, 0.25]
    assert decades(1e-4, 10.0) == [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]


def test_values_lie_where_the_axis_says():
    linear = Scale(1.0, 3.0, 100, by_decade=False, from_zero=True)
    assert linear.y(0.0) > linear.y(1.0) > linear.y(3.0)
    assert linear.y(0.0) - linear.y(1.5) == pytest.approx(linear.y(1.5) - linear.y(3.0))
    logarithmic = Scale(0.01, 1.0, 100, by_decade=True, from_zero=True)
    assert logarithmic.logarithmic
    assert logarithmic.y(0.01) - logarithmic.y(0.1) == pytest.approx(logarithmic.y(0.1) - logarithmic.y(1.0))
    assert not Scale(0.9, 1.0, 100, by_decade=True, from_zero=True).logarithmic  # too much alike
    assert not Scale(0.0, 1.0, 100, by_decade=True, from_zero=True).logarithmic


def test_a_plot_without_points_is_nothing():
    assert plot({"loss": []}, 10) == ""
    assert plot({"loss": [(1, math.nan)]}, 10) == ""
    assert "best" in plot({"loss": [(1, 2.0)]}, 10, mark=1)
    assert "best" not in plot({"loss": [(1, 2.0)]}, 10)


def test_noise_is_drawn_faintly_under_its_mean():
    curve = [(s, float(s % 2)) for s in range(1, 101)]
    drawn = plot({"loss": curve}, 100, noisy=True)
    assert drawn.count("<polyline") == 2
    assert drawn.count('class="faint"') == 1
    assert running_mean(curve)[-1] == (100, pytest.approx(0.5))
    assert running_mean(curve[:5]) == []
    assert len(thinned([(s, 1.0) for s in range(5000)])) <= 402


# ---- the page ------------------------------------------------------------------------------------------------------
def test_the_page_tells_how_far_and_how_good():
    page = training_page(standing(**BEST), trained())
    for told in ("10 min 00 s of steps so far", "2 s per step", "step 300 of 400: 75 %", "best VOI, bits", "step 200"):
        assert told in page, told
    assert "4 min 10 s left" in page  # 100 steps of 2 s, and an evaluation of 50 s
    assert "200 (best)" in page
    assert 'http-equiv="refresh"' in page
    assert "&lt;cells&gt;" in page
    assert "<cells>" not in page
    assert "rsunet &amp; heads" in page


def test_a_page_of_nothing_yet():
    page = training_page(standing(), log_of([]))
    assert "no step reported yet" in page
    assert "none yet; every 100 steps" in page


def test_a_single_slow_report_does_not_change_the_forecast():
    log = trained()
    log.entries[-1]["seconds_per_step"] = 1000.0
    assert recent_pace(log) == 2.0
    assert seconds_left(standing(), log, 300) == 250.0


def test_pictures_outlive_a_process():
    plane = np.arange(64, dtype=np.uint64).reshape(8, 8) // 20
    codes = np.full((3, 8, 8), 200, np.uint8)
    look = Look(np.zeros((8, 8), np.uint8), codes, codes, plane, plane, smooth_code_table())
    seen = seen_by(look, 200)
    assert seen.count("data:image/png") == 6
    assert seen_before(training_page(standing(), trained(), seen)) == seen
    assert seen_before(training_page(standing(), trained())) == ""


# ---- the log -------------------------------------------------------------------------------------------------------
def test_a_repeated_evaluation_adds_to_its_line(tmp_path: Path):
    log = Log(tmp_path / "log.jsonl")
    log.begin(0)
    log.add(10, {"loss": 1.0, "seconds_per_step": 2.0})
    log.add(20, {"loss": 0.5, "seconds_per_step": 4.0})
    log.add(20, {"voi": 2.0})
    assert [(e["step"], e.get("loss"), e.get("voi")) for e in log.entries] == [(10, 1.0, None), (20, 0.5, 2.0)]
    assert log.seconds == 60.0
    with log.path.open("a") as file:
        file.write(json.dumps({"step": 30, "loss": 9.0}) + '\n{"step": 2')
    again = Log(log.path)
    again.begin(20)
    assert [(e["step"], e.get("loss"), e.get("voi")) for e in again.entries] == [(10, 1.0, None), (20, 0.5, 2.0)]
    assert len(log.path.read_text().splitlines()) == 2
