"""How good merge decisions are where there is a truth: a plot, counts of right and wrong, and other thresholds.

1. The plot has three panels: L1 distance against the change of VOI split, VOI merge and their sum, if a candidate alone
   were merged.
2. Changes span orders of magnitude around 0, and their sign matters most: heights are sign(v) log10(1 + |v| / SMALL).
   So what is far smaller than SMALL bits lies on the line of 0, and a power of ten is one step everywhere else.
3. At most MOST candidates are drawn, those with the largest changes of the sum: a page must stay small.

The plot is inline SVG in the page's own colours, so that it is light or dark with the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.merge_effect import Effect, Point, best
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.pages import table, text
from pipeline.self_touch_gallery import DECISIONS, KINDS, MINUS, Decided

SMALL = 1e-5  # bits
MOST = 1500
WIDTH, HEIGHT = 1020, 340
LEFT, TOP, BOTTOM, GAP = 58, 42, 44, 22
PANELS = ("VOI split", "VOI merge", "VOI sum")
LOOKS = {"merged": "filled circles", "apart": "rings", "abstained": "crosses", "refused": "squares"}

STYLE = """
.scatter{display:block;width:100%;min-width:760px;height:auto;margin:18px 0 4px;color:var(--ink);font-size:12px}
.scatter text{fill:var(--soft)}.scatter .title{fill:var(--ink);font-weight:600;font-size:13px}
.scatter .grid{stroke:var(--line)}.scatter .zero{stroke:var(--soft)}
.scatter .limit{stroke:#d33d2a;stroke-dasharray:4 3}.scatter .limit-name{fill:#d33d2a}
.scatter .merged{fill:#2f8f83;fill-opacity:.75}.scatter .apart{fill:none;stroke:#3d7edb;stroke-width:1.6}
.scatter .abstained{fill:none;stroke:#8a919b;stroke-width:1.6}.scatter .refused{fill:#dea030;fill-opacity:.85}
"""


@dataclass(frozen=True)
class _Frame:
    """Where a panel is, and what its axes reach."""

    left: float
    width: float
    farthest: float  # distance
    low: float  # scaled changes
    high: float

    def x(self, distance: float) -> float:
        """Across."""
        return self.left + self.width * distance / self.farthest

    def y(self, height: float) -> float:
        """Down, from a scaled change."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - height) / (self.high - self.low)


# ---- the plot ------------------------------------------------------------------------------------------------------
def scatter(decided: Decided) -> str:
    """Distance against the changes of VOI; nothing without a truth or without a distance."""
    effect = decided.effect
    if effect is None:
        return ""
    distance = decided.table["distance"]
    known = np.flatnonzero(np.isfinite(distance) & np.isfinite(effect.sum))
    if not known.size:
        return ""
    shown = np.sort(known[np.argsort(-np.abs(effect.sum[known]), kind="stable")][:MOST])
    drawn = "".join(_panels(decided, effect, shown))
    said = "Distance of mean embeddings against the change of VOI split, merge and sum, a mark for each candidate"
    svg = f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{drawn}</svg>'
    return f'<div class="wide">{svg}</div>{_caption(decided, shown.size, known.size)}'


def _panels(decided: Decided, effect: Effect, rows: NDArray[np.integer]) -> Iterator[str]:
    distance, decision = decided.table["distance"], decided.table["decision"]
    changes = [scaled(values) for values in (effect.split, effect.merge, effect.sum)]
    every = np.concatenate([values[rows] for values in changes])
    farthest = max(2 * decided.threshold, float(distance[rows].max()) * 1.04) or 1.0
    low, high = min(-1.0, every.min()) - 0.3, max(1.0, every.max()) + 0.3
    wide = (WIDTH - LEFT - 2 * GAP - 8) / 3
    for place, (title, heights) in enumerate(zip(PANELS, changes, strict=True)):
        frame = _Frame(LEFT + place * (wide + GAP), wide, farthest, low, high)
        yield _axes(frame, title, decided.threshold, numbered=place == 0)
        for row in rows[np.argsort(decision[rows] == MERGED, kind="stable")]:  # merged ones on top
            yield _mark(KINDS[int(decision[row])], frame.x(float(distance[row])), frame.y(float(heights[row])))


def scaled(bits: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Heights of changes."""
    return np.asarray(np.sign(bits) * np.log10(1 + np.abs(bits) / SMALL))


def _axes(frame: _Frame, title: str, threshold: float, *, numbered: bool) -> str:
    """Grid lines with numbers, the threshold, and what the panel is."""
    right, foot = frame.left + frame.width, HEIGHT - BOTTOM
    parts = [f'<text class="title" x="{frame.left:.1f}" y="14">change of {title}, bits</text>']
    for bits in _ticks(frame):
        y, kind = frame.y(float(scaled(np.float64(bits)))), "grid" if bits else "zero"
        parts.append(f'<line class="{kind}" x1="{frame.left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>')
        if numbered:
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_change(bits)}</text>')
    step = _step(frame.farthest)
    for n in range(int(frame.farthest / step) + 1):
        x = frame.x(n * step)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{foot}"/>')
        parts.append(f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{n * step:g}</text>')
    x = frame.x(threshold)
    parts.append(f'<line class="limit" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{foot}"/>')
    parts.append(f'<text class="limit-name" x="{x:.1f}" y="{TOP - 9}" text-anchor="middle">{threshold:g}</text>')
    middle = frame.left + frame.width / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">L1 distance</text>')
    return "".join(parts)


def _ticks(frame: _Frame) -> list[float]:
    """0, and powers of ten on both sides, from ten times SMALL on."""
    first = round(math.log10(SMALL)) + 1
    powers = [10.0**n for n in range(first, first + math.ceil(max(frame.high, -frame.low)))]
    every = [*(-power for power in powers), 0.0, *powers]
    return [bits for bits in every if frame.low <= float(scaled(np.float64(bits))) <= frame.high]


def _change(bits: float) -> str:
    """A round change."""
    return "0" if bits == 0 else f"{MINUS if bits < 0 else '+'}{np.format_float_positional(abs(bits), trim='-')}"


def _step(farthest: float) -> float:
    """Of 1, 2, 5, 10, ... the least step with at most seven ticks."""
    power = 10.0 ** math.floor(math.log10(farthest / 7))
    return next(step * power for step in (1, 2, 5, 10) if farthest / (step * power) <= 7)


def _mark(kind: str, x: float, y: float) -> str:
    if kind in ("merged", "apart"):
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if kind == "refused":
        return f'<rect class="{kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<path class="{kind}" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'


def _caption(decided: Decided, shown: int, known: int) -> str:
    present = np.unique(decided.table["decision"]).tolist()
    looks = ", ".join(f"{LOOKS[KINDS[kind]]}: {name}" for kind, name in DECISIONS.items() if kind in present)
    told = (
        "Each candidate as if it alone were merged: below 0 the merge makes VOI better. "
        f"{looks[:1].upper()}{looks[1:]}; the dashed line is the threshold. Heights are logarithmic on both sides of 0."
    )
    if shown < known:
        told += f" Of {known:,} candidates the {shown:,} with the largest changes are drawn."
    if missing := decided.size - known:
        told += f" {missing:,} without a distance are left out."
    return f'<p class="soft">{text(told)}</p>'


# ---- counts --------------------------------------------------------------------------------------------------------
def verdicts(decided: Decided) -> str:
    """Of every kind of decision, for how many candidates a merge would have been right."""
    if decided.effect is None:
        return ""
    change, decision = decided.effect.sum, decided.table["decision"]
    falls, rises = change < 0, change > 0
    rows = []
    for kind, name in DECISIONS.items():
        own = decision == kind
        better, worse = int((own & falls).sum()), int((own & rises).sum())
        rows.append((name, f"{better:,}", f"{worse:,}", f"{int(own.sum()) - better - worse:,}"))
    known = falls | rises
    right = int((known & (falls == (decision == MERGED))).sum())
    told = (
        f"{right:,} of {int(known.sum()):,} decisions are right: merged where VOI falls, not merged where it rises. "
        "Unchanged: nothing that counts in the truth lies in one of the two."
    )
    head = ("decision", "a merge lets VOI fall", "lets it rise", "unchanged")
    return table(head, rows) + f'<p class="soft">{text(told)}</p>'


def other_thresholds(points: Sequence[Point], own: float, *, rounds: int = 1) -> str:
    """What other thresholds of the distance would have given, each result once; nothing if nothing is measured."""
    least = best(points)
    if least is None:
        return ""
    marks = {own: "this run"}
    marks[least.threshold] = "best, this run" if least.threshold == own else "best"
    ordered = sorted(points, key=lambda p: p.threshold)
    before = [-1, *(point.accepted for point in ordered)]
    rows = (
        (f"{p.threshold:g}", f"{p.accepted:,}", *_measures(p), marks.get(p.threshold, ""))
        for p, last in zip(ordered, before, strict=False)
        if p.accepted != last or p.threshold in marks
    )
    head = ("threshold of the distance", "merged", "VOI split, bits", "VOI merge, bits", "VOI sum", "ARAND", "")
    first = " In the first round; later ones would have other candidates." if rounds > 1 else ""
    told = (
        "All candidates below a threshold merged, but for those that abstain or that a guard refuses; thresholds that "
        f"merge no more than the one before are left out.{first}"
    )
    return table(head, rows) + f'<p class="soft">{text(told)}</p>'


def _measures(point: Point) -> Iterable[str]:
    values = (point.voi_split, point.voi_merge, point.voi, point.arand)
    return tuple("undefined" if value is None else f"{value:.4f}" for value in values)
