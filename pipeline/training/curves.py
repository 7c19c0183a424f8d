"""Curves over steps as inline SVG, in the page's own colours. Numbers in, a string out.

1. An axis has ticks at 1, 2, 2.5 or 5 times a power of ten. By decade, where the values differ enough: logarithms.
2. A long noisy curve is drawn faintly, with its running mean over it.
3. A marked step (the best network's) is a dashed line through the plot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.pages import text

Curve = Sequence[tuple[int, float]]

WIDTH, HEIGHT = 500, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 18, 30
TICKS = 4  # about
MOST_POINTS = 400
COLOURS = ("#3d7edb", "#2f8f83", "#dea030", "#b0589f")
SPREAD = 1.5  # values that differ less need no logarithms
NOISY = 24  # points from which a mean is worth drawing
MEAN_OVER = 12  # that share of a curve, as its divisor
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
IN_A_DECADE = (
    (1.0,),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
)
MOST_TICKS = 6

STYLE = """
.plots{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:34px 40px;margin:44px 0 0}
.plots>div{min-width:0}.plots h3{margin:0 0 4px;font-size:16px}.plots h3 span{color:var(--soft);font-weight:400;
font-size:13px;margin-left:8px}
.plot{display:block;width:100%;height:auto;margin:8px 0 0;color:var(--ink);font-size:12px}
.plot text{fill:var(--soft)}.plot .grid{stroke:var(--line)}
.plot polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}.plot .faint{stroke-width:1;opacity:.35}
.plot .mark{stroke:var(--soft);stroke-dasharray:3 4}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13px;color:var(--soft)}.legend b{color:var(--ink)}
.legend i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:7px;vertical-align:middle}
@media(max-width:720px){.plots{grid-template-columns:minmax(0,1fr)}}
"""


def plot(
    curves: Mapping[str, Curve],
    last_step: int,
    *,
    by_decade: bool = False,
    from_zero: bool = True,
    noisy: bool = False,
    mark: int = 0,
) -> str:
    """All curves over the same steps; nothing if there is no point."""
    drawn = {name: [(step, v) for step, v in curve if math.isfinite(v)] for name, curve in curves.items()}
    drawn = {name: curve for name, curve in drawn.items() if curve}
    values = [value for curve in drawn.values() for _, value in curve]
    if not values:
        return ""
    scale = Scale(min(values), max(values), last_step, by_decade=by_decade, from_zero=from_zero)
    parts, legend = [scale.grid(), scale.marked(mark)], []
    for (name, curve), colour in zip(drawn.items(), COLOURS, strict=False):
        mean = running_mean(curve) if noisy else []
        if mean:
            parts.append(_line(curve, scale, colour, faint=True))
        shown = mean or curve
        parts.append(_line(shown, scale, colour))
        step, value = shown[-1]
        parts.append(f'<circle cx="{scale.x(step):.1f}" cy="{scale.y(value):.1f}" r="3.2" fill="{colour}"/>')
        legend.append(f'<span><i style="background:{colour}"></i>{text(name)} <b>{value:.4g}</b></span>')
    said = ", ".join(drawn) + " over steps" + (", logarithmic" if scale.logarithmic else "")
    shape = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(said)}"'
    return f'<div class="legend">{"".join(legend)}</div><svg class="plot" {shape}>{"".join(parts)}</svg>'


def _line(curve: Curve, scale: Scale, colour: str, *, faint: bool = False) -> str:
    points = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in thinned(curve))
    kind = ' class="faint"' if faint else ""
    return f'<polyline{kind} points="{points}" stroke="{colour}"/>'


class Scale:
    """From steps and values to pixels."""

    def __init__(self, low: float, high: float, last_step: int, *, by_decade: bool, from_zero: bool) -> None:
        self.logarithmic = by_decade and low > 0 and high > SPREAD * low
        if self.logarithmic:
            self.ticks = decades(low, high)
            low, high = math.log10(low), math.log10(high)
            room = 0.06 * (high - low)
            self._low, self._high = low - room, high + room
        else:
            low = min(0.0, low) if from_zero else low
            self.ticks = round_numbers(low, high)
            room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
            self._low = low if low == 0 else low - room
            self._high = high + room
        self._last = max(1, last_step)

    def x(self, step: float) -> float:
        """Where a step is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self._last

    def y(self, value: float) -> float:
        """Where a value is."""
        shown = math.log10(value) if self.logarithmic else value
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (shown - self._low) / (self._high - self._low))

    def grid(self) -> str:
        """Lines and numbers."""
        parts = []
        for value in self.ticks:
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
        for step in round_numbers(0, self._last):
            if step == round(step):
                shown = f'<text x="{self.x(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'
                parts.append(shown)
        return "".join(parts)

    def marked(self, step: int) -> str:
        """The dashed line of the best step."""
        if not step:
            return ""
        x = self.x(step)
        anchor = "end" if step > self._last / 2 else "start"
        aside = x + (-5 if anchor == "end" else 5)
        line = f'<line class="mark" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        return f'{line}<text x="{aside:.1f}" y="{TOP - 4}" text-anchor="{anchor}">best</text>'


def round_numbers(low: float, high: float) -> list[float]:
    """About four round numbers from low to high, both ends included where they are round."""
    if high <= low:
        return [low]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in ROUND if factor * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Round numbers whose logarithms lie well apart: the finest set with few enough of them, or the coarsest."""
    found: list[float] = []
    for factors in IN_A_DECADE:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        finer = [float(f"{f * 10.0**p:.6g}") for p in powers for f in factors if low <= f * 10.0**p <= high]
        if found and len(finer) > MOST_TICKS:
            break
        found = finer
    return found


def running_mean(curve: Curve) -> list[tuple[int, float]]:
    """The mean of the points before each one; nothing for a short curve."""
    if len(curve) < NOISY:
        return []
    count = max(5, len(curve) // MEAN_OVER)
    mean, total = [], 0.0
    for number, (step, value) in enumerate(curve):
        total += value - (curve[number - count][1] if number >= count else 0.0)
        mean.append((step, total / min(number + 1, count)))
    return mean


def thinned(curve: Curve) -> Curve:
    """At most so many points: the mean of neighbours; the last one stays as it is."""
    group = -(-len(curve) // MOST_POINTS)
    if group <= 1:
        return curve
    cut = [curve[begin : begin + group] for begin in range(0, len(curve) - 1, group)]
    means = [(piece[-1][0], sum(value for _, value in piece) / len(piece)) for piece in cut]
    return [*means, curve[-1]]
