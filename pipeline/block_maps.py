"""A task's blocks as a small picture, coloured by state.

1. Few blocks: a panel for every layer of blocks along z, a square for every block.
2. More: one picture that looks through the grid along z, or along another axis if that keeps far more squares (a stack
   of single blocks would be one square otherwise). A square shows the most severe of failed, waiting and running blocks
   behind it; without any of these, the more of its blocks are done (or masked) the stronger its colour.
   It is drawn larger as long as there is something to see: blocks that run, wait, failed or are to do.
3. Beyond `LONGEST` squares along an axis neighbours share a pixel by the same rule.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.png import palette_uri

Index = tuple[int, int, int]
Counts = NDArray[np.int64]

LETTERS = {"m": "masked", "d": "done", ".": "to do", "r": "running", "w": "waiting", "f": "failed"}
COLOURS = {  # good on white and on black; failed and done differ in lightness too
    "masked": (163, 168, 178),
    "done": (47, 143, 131),
    "running": (61, 126, 219),
    "waiting": (222, 160, 48),
    "failed": (211, 61, 42),
}

WIDE_PX, HIGH_PX = 180, 84
HIGHER_PX = 150
SQUARE_PX = (5, 13)  # smallest and largest square of a panel
PANEL_GAP_PX = 8
LONGEST = 400
ALONG_Z = 4  # another axis must keep so many times as many squares
SHADES = 8
AXES = "zyx"


@lru_cache(maxsize=64)  # tasks that are over are drawn once, not whenever the page is written
def block_map(states: str, grid: Index) -> str:
    """HTML of the map; `states` has one letter a block in z, y, x order."""
    if len(states) != grid[0] * grid[1] * grid[2]:
        return ""
    letters_ZYX = np.frombuffer(states.encode("ascii"), np.uint8).reshape(grid)
    px = _square_px(grid)
    if px:
        return f'<div class="map">{"".join(_panel(layer, px) for layer in letters_ZYX)}</div>'
    axis = min(range(3), key=lambda a: grid[a] if a else grid[a] / ALONG_Z)
    return f'<div class="map">{_through(letters_ZYX, axis)}</div>'


def style() -> str:
    """The colours of states as CSS variables: whatever has the class of a state can use `var(--state)`."""
    rules = (f".{name}{{--state:rgb({red},{green},{blue})}}" for name, (red, green, blue) in COLOURS.items())
    return "".join(rules) + ".to-do{--state:var(--empty)}"


# ---- panels --------------------------------------------------------------------------------------------------------
def _square_px(grid: Index) -> int:
    """The side of a square with which all layers fit beside each other and in rows; 0 if none does."""
    layers, rows, columns = grid
    for px in range(SQUARE_PX[1], SQUARE_PX[0] - 1, -1):
        across = (WIDE_PX + PANEL_GAP_PX) // (columns * px + PANEL_GAP_PX)
        down = (HIGH_PX + PANEL_GAP_PX) // (rows * px + PANEL_GAP_PX)
        if across * down >= layers:
            return px
    return 0


def _panel(letters_YX: NDArray[np.uint8], px: int) -> str:
    """One path for every state: squares with a gap."""
    gap = 2 if px >= 9 else 1
    side = px - gap
    paths = []
    for letter, name in LETTERS.items():
        at = np.argwhere(letters_YX == ord(letter)).tolist()
        if at:
            squares = "".join(f"M{x * px} {y * px}h{side}v{side}h-{side}z" for y, x in at)
            paths.append(f'<path class="{name.replace(" ", "-")}" d="{squares}"/>')
    height, width = (count * px - gap for count in letters_YX.shape)
    return (
        f'<svg role="img" aria-label="{_told(letters_YX)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(paths)}</svg>'
    )


# ---- one picture ---------------------------------------------------------------------------------------------------
def _through(letters_ZYX: NDArray[np.uint8], axis: int) -> str:
    shaded, palette, opacity = _shaded(letters_ZYX, axis)
    rows, columns = (extent for a, extent in enumerate(letters_ZYX.shape) if a != axis)
    settled = ((letters_ZYX == ord("d")) | (letters_ZYX == ord("m"))).all()
    scale = min(WIDE_PX / columns, (HIGH_PX if settled else HIGHER_PX) / rows)
    width, height = max(6, round(columns * scale)), max(6, round(rows * scale))
    told = f"{_told(letters_ZYX)}; looking along {AXES[axis]}"
    uri = palette_uri(shaded, palette, opacity)
    return f'<img alt="{told}" title="{told}" width="{width}" height="{height}" src="{uri}">'


def _shaded(
    letters_ZYX: NDArray[np.uint8], axis: int
) -> tuple[NDArray[np.uint8], list[tuple[int, int, int]], list[int]]:
    """Palette indices of the squares, the palette's colours, and their opacity."""
    counts = {name: _counted(letters_ZYX == ord(letter), axis) for letter, name in LETTERS.items()}
    total = sum(counts.values(), np.zeros(1, np.int64))
    settled = counts["done"] + counts["masked"]
    shade = -(-settled * SHADES // total)  # rounded up: the first done block shows
    shade -= (shade == SHADES) & (settled < total)  # and full colour means all of them
    indices = np.where(counts["done"] > 0, shade, shade + SHADES)
    indices[settled == 0] = 0
    palette = [(0, 0, 0), *[COLOURS["done"]] * SHADES, *[COLOURS["masked"]] * SHADES]
    opacity = [0, *[255 * shade // SHADES for shade in range(1, SHADES + 1)] * 2]
    for name in ("running", "waiting", "failed"):
        indices[counts[name] > 0] = len(palette)
        palette.append(COLOURS[name])
        opacity.append(255)
    return indices.astype(np.uint8), palette, opacity


def _counted(found_ZYX: NDArray[np.bool_], axis: int) -> Counts:
    """How many blocks of a state lie behind every pixel."""
    counted: Counts = found_ZYX.sum(axis=axis, dtype=np.int64)
    for across in (0, 1):
        step = -(-counted.shape[across] // LONGEST)
        if step > 1:
            counted = np.add.reduceat(counted, np.arange(0, counted.shape[across], step), axis=across)
    return counted


def _told(letters: NDArray[np.uint8]) -> str:
    """The same in words."""
    counts = {name: int(np.count_nonzero(letters == ord(letter))) for letter, name in LETTERS.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
