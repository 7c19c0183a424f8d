"""Curves over steps as inline SVG, in the page's own colours. Numbers in, a string out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.pages import text

Curve = Sequence[tuple[int, float]]

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 14, 40
TICKS = 4
MOST_POINTS = 400
COLOURS = ("#3d7edb", "#2f8f83", "#dea030")
SPREAD = 20.0  # what differs less needs no logarithms

STYLE = """
.plot{display:block;width:100%;max-width:760px;height:auto;margin:10px 0;color:var(--ink);font-size:12px}
.plot text{fill:var(--soft)}.plot .grid{stroke:var(--line)}.plot polyline{fill:none;stroke-width:1.6}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:7px;vertical-align:middle}
"""


def plot(curves: Mapping[str, Curve], last_step: int, *, by_decade: bool = False) -> str:
    """All curves over the same steps; nothing if there is no point. By decade: as logarithms."""
    drawn = {name: _thinned(curve) for name, curve in curves.items() if curve}
    values = [value for curve in drawn.values() for _, value in curve]
    if not values:
        return ""
    scale = _Scale(min(values), max(values), last_step, by_decade)
    parts = [scale.grid()]
    legend = []
    for (name, curve), colour in zip(drawn.items(), COLOURS, strict=False):
        points = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in curve)
        parts.append(f'<polyline points="{points}" stroke="{colour}"/>')
        step, value = curve[-1]
        parts.append(f'<circle cx="{scale.x(step):.1f}" cy="{scale.y(value):.1f}" r="3" fill="{colour}"/>')
        legend.append(f'<span><i style="background:{colour}"></i>{text(name)}: {value:.4g}</span>')
    said = ", ".join(drawn) + " over steps"
    shape = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(said)}"'
    return f'<div class="legend">{"".join(legend)}</div><svg class="plot" {shape}>{"".join(parts)}</svg>'


class _Scale:
    """From steps and values to pixels."""

    def __init__(self, low: float, high: float, last_step: int, by_decade: bool) -> None:
        self._log = by_decade and low > 0 and high > SPREAD * low
        low, high = (math.log10(low), math.log10(high)) if self._log else (min(0.0, low), high)
        room = 0.05 * (high - low) or 1.0
        self._low, self._high = (low - room if self._log else low), high + room
        self._last = max(1, last_step)

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self._last

    def y(self, value: float) -> float:
        return self._at(math.log10(value) if self._log else value)

    def _at(self, shown: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (shown - self._low) / (self._high - self._low))

    def grid(self) -> str:
        parts = []
        for n in range(TICKS + 1):
            shown = self._low + (self._high - self._low) * n / TICKS
            value = 10**shown if self._log else shown
            y, x = self._at(shown), self.x(self._last * n / TICKS)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{round(self._last * n / TICKS):,}</text>'
            )
        return "".join(parts)


def _thinned(curve: Curve) -> Curve:
    """At most so many points: the mean of neighbours; the last one stays as it is."""
    group = -(-len(curve) // MOST_POINTS)
    if group <= 1:
        return curve
    cut = [curve[begin : begin + group] for begin in range(0, len(curve) - 1, group)]
    means = [(piece[-1][0], sum(value for _, value in piece) / len(piece)) for piece in cut]
    return [*means, curve[-1]]
