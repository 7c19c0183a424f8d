"""A task's blocks as a small picture: one square a block, coloured by state.

1. Few blocks: one panel for every layer of blocks along z, as SVG with a gap between the squares.
2. More: one panel; each square shows the most severe state of the blocks behind it. It looks along z, unless another
   axis keeps more squares (a stack of single blocks would be one square).
3. Beyond a thousand squares: a PNG of one pixel a square, enlarged by the browser; beyond `LONGEST` squares along an
   axis neighbours share a pixel, again by the most severe state.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.pictures import palette_png_uri

Index = tuple[int, int, int]

# In order of severity: what hides what where blocks share a square.
STATES = {"m": "masked", "d": "done", ".": "to do", "r": "running", "w": "waiting", "f": "failed"}
COLOURS = {  # good on white and on black; failed and done differ in lightness too
    "masked": (163, 168, 178),
    "done": (47, 143, 131),
    "to do": (128, 128, 128),  # transparent: the page's own colour shows
    "running": (61, 126, 219),
    "waiting": (222, 160, 48),
    "failed": (211, 61, 42),
}

PANELS = 16
PANEL_SQUARES = 600
SVG_SQUARES = 1_000
LONGEST = 400
WIDE_PX = 176
AXES = "zyx"

_SEVERITY = np.zeros(256, np.uint8)
for _rank, _letter in enumerate(STATES):
    _SEVERITY[ord(_letter)] = _rank
_NAMES = list(STATES.values())

Severity = NDArray[np.uint8]


def block_map(states: str, grid: Index) -> str:
    """HTML of the map; `states` has one letter a block in z, y, x order, or is empty before the task's first beat."""
    count = grid[0] * grid[1] * grid[2]
    if states and len(states) != count:
        return ""
    letters = np.frombuffer((states or "." * count).encode("ascii"), np.uint8)
    severity = _SEVERITY[letters].reshape(grid)
    if grid[0] <= PANELS and count <= PANEL_SQUARES:
        panels = [_svg(layer, _square_px(grid)) for layer in severity]
        note = "" if grid[0] == 1 else f"{grid[0]} layers along z"
    else:
        axis = max(range(3), key=lambda a: (count // grid[a], -a))
        panels = [_panel(severity.max(axis=axis))]
        note = f"looking along {AXES[axis]}, the worst block shows" if grid[axis] > 1 else ""
    caption = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    return f'<figure class="map"><div>{"".join(panels)}</div>{caption}</figure>'


def _square_px(grid: Index) -> int:
    """Squares as large as the column allows, within reason."""
    return min(14, max(5, WIDE_PX // max(grid[1], grid[2])))


def _panel(severity_YX: Severity) -> str:
    squares = severity_YX.size
    longest = max(severity_YX.shape)
    if squares <= SVG_SQUARES and longest * 4 <= WIDE_PX:
        return _svg(severity_YX, WIDE_PX // longest)
    return _png(_reduced(severity_YX))


def _svg(severity_YX: Severity, px: int) -> str:
    """One path for every state: squares with a gap."""
    rows, columns = severity_YX.shape
    gap = 2 if px >= 8 else 1
    side = px - gap
    paths = []
    for rank, name in enumerate(_NAMES):
        at = np.argwhere(severity_YX == rank)
        if len(at):
            squares = "".join(f"M{x * px} {y * px}h{side}v{side}h-{side}z" for y, x in at.tolist())
            paths.append(f'<path class="{_css(name)}" d="{squares}"/>')
    width, height = columns * px - gap, rows * px - gap
    return (
        f'<svg role="img" aria-label="{_told(severity_YX)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(paths)}</svg>'
    )


def _png(severity_YX: Severity) -> str:
    rows, columns = severity_YX.shape
    scale = WIDE_PX / max(rows, columns)
    width, height = max(6, round(columns * scale)), max(6, round(rows * scale))
    uri = palette_png_uri(severity_YX, [COLOURS[name] for name in _NAMES], clear=_NAMES.index("to do"))
    return f'<img alt="{_told(severity_YX)}" style="width:{width}px;height:{height}px" src="{uri}">'


def _reduced(severity_YX: Severity) -> Severity:
    """No more than LONGEST squares along an axis: the most severe of neighbours."""
    reduced = severity_YX
    for axis in (0, 1):
        step = -(-reduced.shape[axis] // LONGEST)
        if step > 1:
            reduced = np.maximum.reduceat(reduced, np.arange(0, reduced.shape[axis], step), axis=axis)
    return reduced


def _told(severity_YX: Any) -> str:
    counts = np.bincount(severity_YX.reshape(-1), minlength=len(_NAMES)).tolist()
    return ", ".join(f"{count} {name}" for name, count in zip(_NAMES, counts, strict=True) if count)


def _css(name: str) -> str:
    return name.replace(" ", "-")


def state_style() -> str:
    """The style sheet's colours of states: `.done { fill: ...; background: ... }`."""
    coloured = (
        f".{_css(name)}{{--state:rgb{colour}}}".replace(" ", "")
        for name, colour in COLOURS.items()
        if name != "to do"
    )
    return "".join(coloured) + ".to-do{--state:var(--empty)}"
