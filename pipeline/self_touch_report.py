"""What the report says about self-touch: counts of decisions, how right they are, and a gallery of candidates.

`told` takes plain arrays and makes HTML; where a run keeps them is the business of `self_touch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline.ops.merge_effect import Point
from pipeline.outcome import Outcome
from pipeline.pages import table, text
from pipeline.self_touch_gallery import DECISIONS, Decided, gallery
from pipeline.self_touch_gallery import STYLE as GALLERY_STYLE
from pipeline.self_touch_truth import STYLE as TRUTH_STYLE
from pipeline.self_touch_truth import other_thresholds, scatter, verdicts
from pipeline.stages.evaluate import TOTAL
from pipeline.stages.merge_effect import MergeEffect
from pipeline.stages.self_touch import SelfTouch

NONE = "No pair of segments is a candidate."
STYLE = GALLERY_STYLE + TRUTH_STYLE
CLOSE = 1e-3  # distances that other hardware might put on the other side of the threshold
MEANING = (
    "A candidate is a pair of segments that touch in at least two places, one of which looks like the inside of a "
    "cell: either one object that was cut by mistake, or two that lie side by side. At the contact with the highest "
    "score an embedding net says how far apart the two are; nearer than the threshold they are merged."
)


def self_touch(outcome: Outcome) -> str:
    """What a run has decided; nothing if it looks for no self-touches."""
    stage = outcome.plan.find(SelfTouch)
    if stage is None or not stage.active:
        return ""
    if not _done(outcome, [ref.task for ref in stage.decision_refs()]):
        return _soft("Decisions about self-touches follow when all blocks are done.")
    table, settings = stage.decisions(), outcome.plan.config.self_touch
    if not table:
        return _soft(NONE)
    judged = outcome.plan.find(MergeEffect)
    decided = Decided(table, settings.theta_d, stage.voxel_size, settings.window, partial(stage.views, table))
    if judged is None or not judged.active:
        return told(decided)
    if not _done(outcome, [judged.task(TOTAL)]):
        return told(decided) + _soft("not available: the decisions have not been compared with the truth")
    return told(replace(decided, effect=judged.effect()), judged.points())


def _done(outcome: Outcome, tasks: Iterable[str]) -> bool:
    surveys = (outcome.surveys.get(task) for task in tasks)
    return all(survey is not None and len(survey.current) == survey.total for survey in surveys)


def told(decided: Decided, points: Sequence[Point] = ()) -> str:
    """The section, of all candidates of a run; `points` are other thresholds, if there is a truth."""
    if not decided.size:
        return _soft(NONE)
    rounds = np.unique(decided.table["round"]).size
    return (
        counts(decided)
        + _soft(MEANING)
        + scatter(decided)
        + verdicts(decided)
        + other_thresholds(points, decided.threshold, rounds=rounds)
        + gallery(decided)
    )


def counts(decided: Decided) -> str:
    """A row for every round: candidates, and what was decided."""
    decision, of_round = decided.table["decision"], decided.table["round"]
    near = np.abs(decided.table["distance"] - decided.threshold) < CLOSE
    rows = []
    for number in np.unique(of_round).tolist():
        own = of_round == number
        kinds = (f"{int((own & (decision == kind)).sum()):,}" for kind in DECISIONS)
        rows.append((f"round {number}", f"{int(own.sum()):,}", *kinds, f"{int((own & near).sum()):,}"))
    return table(("", "candidates", *DECISIONS.values(), f"within {CLOSE:g} of the threshold"), rows)


def _soft(said: str) -> str:
    return f'<p class="soft">{text(said)}</p>'
