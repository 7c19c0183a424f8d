"""The gallery: what is shown, in what order, and that the pictures are those of the candidates."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image
from self_touch_cases import candidates

from pipeline.ops.merge_effect import Effect
from pipeline.ops.self_touch import ABSTAINED, APART
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.self_touch_gallery import GROUPS, MINUS, NEAREST, chosen, gallery, signed

MOST = NEAREST[1] + sum(most for _, _, most in GROUPS)


def test_every_candidate_is_shown_once_and_those_nearest_to_the_threshold_first() -> None:
    found = candidates(200)
    distance, decision = found.table["distance"], found.table["decision"]
    groups = chosen(distance, decision, 1.5)
    rows = np.concatenate([own for _, own in groups])
    assert [title for title, _ in groups] == [NEAREST[0], *(title for title, _, _ in GROUPS)]
    assert rows.size == np.unique(rows).size == MOST == 24
    near = groups[0][1]
    assert np.abs(distance[near] - 1.5).max() <= np.nanmin(np.delete(np.abs(distance - 1.5), near))
    for (_, own), (_, kind, _) in zip(groups[1:], GROUPS, strict=True):
        assert (decision[own] == kind).all()
        gaps = np.abs(distance[own] - 1.5)
        assert np.isnan(gaps).all() or (np.diff(gaps) >= 0).all()


def test_few_candidates_are_all_shown_and_empty_groups_are_not() -> None:
    decision = np.array([MERGED, APART, ABSTAINED])
    groups = chosen(np.array([0.1, 9.0, np.nan]), decision, 1.5)
    assert [(title, rows.tolist()) for title, rows in groups] == [(NEAREST[0], [0, 1]), ("Abstained", [2])]
    assert gallery(candidates(0)) == ""


def test_the_pictures_are_those_of_the_candidates() -> None:
    found = candidates()
    page = gallery(found)
    shown = re.findall(r'<img alt="([^"]*)" width="(\d+)" height="(\d+)" src="data:image/png;base64,([^"]*)"', page)
    groups = chosen(found.table["distance"], found.table["decision"], 1.5)
    rows = np.concatenate([own for _, own in groups])
    assert len(shown) == 3 * rows.size
    for place, row in enumerate(rows.tolist()):
        own = shown[3 * place : 3 * place + 3]
        image, sides, colours = (np.asarray(Image.open(BytesIO(base64.b64decode(one[3])))) for one in own)
        assert (image == row).all()
        assert sides[0, 0, 2] > sides[0, 0, 0]  # blue on the left, orange on the right
        assert sides[0, -1, 0] > sides[0, -1, 2]
        assert (sides[-1] == row).all()  # another segment stays grey
        assert colours[0, 0] == 60
        at = ", ".join(str(found.table[axis][row]) for axis in "zyx")
        assert own[0][0] == f"Image around {at}"
        assert str(found.table["s2"][row]) in own[1][0]
    assert {one[1:3] for one in shown} == {("128", "192")}  # 16 x 6 nm by 12 x 12 nm
    assert "top:33.33%;left:31.25%;height:33.33%;width:37.50%" in page


def test_a_card_tells_decision_distance_and_truth() -> None:
    found = candidates(1)
    half, tiny = f"right by the truth: VOI {MINUS}0.5000 bits", f"10<sup>{MINUS}5</sup>"
    for distance, decision, change, told in (
        (0.25, MERGED, -0.5, ("<b>merged</b>", "distance 0.2500 &lt; 1.5", half)),
        (2.5, APART, -2e-5, ("<b>kept apart</b>", "distance 2.5000 ≥ 1.5", "wrong by the truth", tiny)),
        (np.nan, ABSTAINED, 0.0, ("<b>abstained</b>", "no distance", "The truth does not tell.")),
    ):
        table = {**found.table, "distance": np.array([distance]), "decision": np.array([decision])}
        page = gallery(replace(found, table=table, effect=Effect(np.zeros(1), np.array([change]))))
        for words in (*told, "the best one of 60 edges scores 0.50", "1,234 and 0 voxels in the window"):
            assert words in page
        assert "round 1" not in page
    page = gallery(candidates(20, truth=False, rounds=2))
    assert "round 2 · segments" in page
    assert "truth" not in page
    assert "<script" not in page


def test_changes_have_signs() -> None:
    assert [signed(bits) for bits in (0.0, 0.25, -0.001)] == ["0", "+0.2500", f"{MINUS}0.0010"]
    assert signed(-3.21e-7) == f"{MINUS}3.2\u00a0·\u00a010<sup>{MINUS}7</sup>"
