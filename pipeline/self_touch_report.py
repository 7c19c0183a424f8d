"""What the report says about self-touch: counts of decisions, how right they are, and a gallery of candidates.

`told` takes plain arrays and makes HTML; where a run keeps them is the business of `self_touch`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.ops.merge_effect import Point
from pipeline.pages import table, text
from pipeline.self_touch_gallery import DECISIONS, Candidates, gallery
from pipeline.self_touch_gallery import STYLE as GALLERY_STYLE
from pipeline.self_touch_truth import STYLE as TRUTH_STYLE
from pipeline.self_touch_truth import other_thresholds, scatter, verdicts

STYLE = GALLERY_STYLE + TRUTH_STYLE
CLOSE = 1e-3  # distances that other hardware might put on the other side of the threshold
MEANING = (
    "A candidate is a pair of segments that touch in at least two places, one of which looks like the inside of a "
    "cell: either one object that was cut by mistake, or two that lie side by side. At the contact with the highest "
    "score an embedding net says how far apart the two are; nearer than the threshold they are merged."
)


def told(candidates: Candidates, points: Sequence[Point] = ()) -> str:
    """The section, of all candidates of a run; `points` are other thresholds, if there is a truth."""
    if not candidates.size:
        return _soft("No pair of segments is a candidate.")
    rounds = np.unique(candidates.table["round"]).size
    return (
        counts(candidates)
        + _soft(MEANING)
        + scatter(candidates)
        + verdicts(candidates)
        + other_thresholds(points, candidates.threshold, rounds=rounds)
        + gallery(candidates)
    )


def counts(candidates: Candidates) -> str:
    """A row for every round: candidates, and what was decided."""
    decision, of_round = candidates.table["decision"], candidates.table["round"]
    near = np.abs(candidates.table["distance"] - candidates.threshold) < CLOSE
    rows = []
    for number in np.unique(of_round).tolist():
        own = of_round == number
        kinds = (f"{int((own & (decision == kind)).sum()):,}" for kind in DECISIONS)
        rows.append((f"round {number}", f"{int(own.sum()):,}", *kinds, f"{int((own & near).sum()):,}"))
    return table(("", "candidates", *DECISIONS.values(), f"within {CLOSE:g} of the threshold"), rows)


def _soft(said: str) -> str:
    return f'<p class="soft">{text(said)}</p>'
