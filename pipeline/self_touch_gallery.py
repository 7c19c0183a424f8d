"""Candidates for a merge as people see them: image, both segments, embedding, distance, and what was decided.

Plain arrays in, HTML out. The ones that tell most come first: those nearest to the threshold, then merges. No script;
the dashed frame of the focal window is laid over the pictures, so that no voxel is painted over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import AXES, Index, VoxelSize
from pipeline.ops.candidate_views import FIRST, OTHER, SECOND, Views
from pipeline.ops.merge_effect import Effect
from pipeline.ops.self_touch import ABSTAINED, APART, REFUSED
from pipeline.ops.self_touch import MERGE as MERGED
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.pages import text
from pipeline.pictures import Rgb, grey, overlay, picture_shape
from pipeline.png import rgb_uri

DECISIONS = {MERGED: "merged", APART: "kept apart", ABSTAINED: "abstained", REFUSED: "refused by a guard"}
KINDS = {MERGED: "merged", APART: "apart", ABSTAINED: "abstained", REFUSED: "refused"}  # in style sheets
COLOURS = {FIRST: (61, 126, 219), SECOND: (240, 128, 20)}
NEAREST = ("Nearest to the threshold", 8)
GROUPS = (
    ("Merged", MERGED, 8),
    ("Refused by a guard", REFUSED, 3),
    ("Kept apart", APART, 3),
    ("Abstained", ABSTAINED, 2),
)
PICTURE_PX = 192
BAR_WIDTH = 240
MINUS = "\u2212"

STYLE = """
.touches{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:30px 34px;margin:14px 0 30px}
.touch .views{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:5px}
.touch .view{position:relative}.touch .view img{display:block;width:100%;height:auto;border-radius:3px;
background:var(--empty)}
.touch .view i{position:absolute;border:1px dashed rgba(255,255,255,.85);box-shadow:0 0 0 1px rgba(0,0,0,.25)}
.touch .verdict{display:flex;flex-wrap:wrap;align-items:center;gap:2px 14px;margin:9px 0 2px}
.touch .verdict b{display:flex;align-items:center;gap:7px;font-weight:600}
.touch .verdict b:before{content:"";width:9px;height:9px;border-radius:2px;background:var(--state)}
.touch .verdict svg{width:150px;height:14px;margin-left:auto}.touch p{margin:0}
.merged{--state:#2f8f83}.apart{--state:#3d7edb}.abstained{--state:#8a919b}.refused{--state:#dea030}
.touch .right{color:#2f8f83}.touch .wrong{color:#d33d2a}
.touch .verdict rect{fill:var(--empty)}.touch .verdict .below{fill:#2f8f83;opacity:.35}
.touch .verdict line{stroke:#d33d2a;stroke-width:2}.touch .verdict circle{fill:var(--ink)}
.swatch{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:5px}
@media(max-width:720px){.touches{grid-template-columns:minmax(0,1fr)}}
"""


@dataclass(frozen=True)
class Decided:
    """What was decided, and how; the columns of `table` are those of the stage's decisions."""

    table: Mapping[str, NDArray[Any]]
    threshold: float  # of the distance
    voxel_size: VoxelSize
    window: Index  # the focal window
    views: Callable[[NDArray[np.integer]], Views]  # of some rows
    effect: Effect | None = None  # if there is a truth

    @property
    def size(self) -> int:
        """How many."""
        return int(self.table["s1"].size)


def gallery(decided: Decided) -> str:
    """At most two dozen candidates in groups; nothing if there are none."""
    groups = chosen(decided.table["distance"], decided.table["decision"], decided.threshold)
    if not groups:
        return ""
    views = decided.views(np.concatenate([rows for _, rows in groups]))
    parts, seen = [_legend(decided)], 0
    for title, rows in groups:
        cards = (_card(decided, int(row), views, seen + n) for n, row in enumerate(rows))
        parts.append(f'<h3>{text(title)}</h3><div class="touches">{"".join(cards)}</div>')
        seen += rows.size
    return "".join(parts)


def chosen(
    distance: NDArray[np.float64], decision: NDArray[np.integer], threshold: float
) -> list[tuple[str, NDArray[np.integer]]]:
    """Titles, and the rows that are shown under them: every row once, those nearest to the threshold first."""
    gap = np.where(np.isnan(distance), np.inf, np.abs(distance - threshold))
    order = np.argsort(gap, kind="stable")
    title, most = NEAREST
    near = order[(decision[order] != ABSTAINED) & np.isfinite(gap[order])][:most]
    groups = [(title, near)]
    rest = order[~np.isin(order, near)]
    groups += [(title, rest[decision[rest] == kind][:most]) for title, kind, most in GROUPS]
    return [(title, rows) for title, rows in groups if rows.size]


def _legend(decided: Decided) -> str:
    first, second = (
        f'<span class="swatch" style="background:rgb{COLOURS[side]}"></span>{name}'
        for side, name in ((FIRST, "the first segment"), (SECOND, "the second"))
    )
    extent = " \u00d7 ".join(str(n) for n in decided.window)
    return (
        f'<p class="soft">The section through the best contact of each pair. Left: the image. Middle: {first}, '
        f"{second}. Right: the embedding, its first three principal components as red, green and blue; colours of "
        f"different candidates cannot be compared. Dashed: the focal window ({extent} voxels) in which means are "
        f"taken. The bar: the distance of the means from 0 to {2 * decided.threshold:g}, with a mark at the "
        f"threshold {decided.threshold:g}; nearer than that, segments are merged.</p>"
    )


def _card(decided: Decided, row: int, views: Views, place: int) -> str:
    kind = int(decided.table["decision"][row])
    return (
        f'<div class="touch {KINDS[kind]}">{_pictures(decided, row, views, place)}'
        f'<div class="verdict"><b>{DECISIONS[kind]}</b>{_distance(decided, row)}{_bar(decided, row)}</div>'
        f'{_by_truth(decided, row)}<p class="soft">{text(_told(decided, row))}</p></div>'
    )


def _pictures(decided: Decided, row: int, views: Views, place: int) -> str:
    table = decided.table
    at = ", ".join(str(table[axis][row]) for axis in AXES)
    image_YX, sides_YX = views.image_NYX[place], views.sides_NYX[place]
    both_YX = np.where(sides_YX == OTHER, 0, sides_YX)
    drawn = (
        (f"Image around {at}", grey(image_YX)),
        (f"Segments {table['s1'][row]} in blue and {table['s2'][row]} in orange", overlay(image_YX, both_YX, COLOURS)),
        (f"Embedding around {at} as colours", views.colours_NYXC[place]),
    )
    return f'<div class="views">{"".join(_view(decided, alt, picture) for alt, picture in drawn)}</div>'


def _view(decided: Decided, alt: str, picture: Rgb) -> str:
    """A picture in the tissue's proportions, the focal window framed."""
    extent = (picture.shape[0], picture.shape[1])
    height, width = picture_shape(extent, decided.voxel_size.nm[1:], PICTURE_PX)
    spans = []
    for side, length, whole in zip(("top", "left"), decided.window[1:], extent, strict=True):
        spans.append(f"{side}:{100 * (whole // 2 - length // 2) / whole:.2f}%")
    for side, length, whole in zip(("height", "width"), decided.window[1:], extent, strict=True):
        spans.append(f"{side}:{100 * length / whole:.2f}%")
    return (
        f'<div class="view"><img alt="{text(alt)}" width="{width}" height="{height}" src="{rgb_uri(picture)}">'
        f'<i style="{";".join(spans)}"></i></div>'
    )


def _distance(decided: Decided, row: int) -> str:
    distance = decided.table["distance"][row]
    if np.isnan(distance):
        return "<span>no distance</span>"
    sign = "<" if distance < decided.threshold else "\u2265"
    return f"<span>distance {distance:.4f} {text(sign)} {decided.threshold:g}</span>"


def _by_truth(decided: Decided, row: int) -> str:
    """Whether the truth agrees."""
    if decided.effect is None:
        return ""
    change = float(decided.effect.sum[row])
    if np.isnan(change) or change == 0:
        return '<p class="soft">The truth does not tell.</p>'
    right = (change < 0) == (int(decided.table["decision"][row]) == MERGED)
    word = "right" if right else "wrong"
    return f'<p class="{word}">{word} by the truth: VOI {signed(change)} bits if merged</p>'


def _bar(decided: Decided, row: int) -> str:
    """Where the distance lies between 0 and twice the threshold."""
    distance, middle = float(decided.table["distance"][row]), BAR_WIDTH / 2
    dot = ""
    if not np.isnan(distance):
        share = distance / decided.threshold if decided.threshold else 2.0
        x = min(max(share * middle, 6), BAR_WIDTH - 6)
        dot = f'<circle cx="{x:.1f}" cy="11" r="5.5"/>'
    return (
        f'<svg viewBox="0 0 {BAR_WIDTH} 22" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="0" y="8" width="{BAR_WIDTH}" height="6" rx="3"/>'
        f'<rect class="below" x="0" y="8" width="{middle}" height="6" rx="3"/>'
        f'<line x1="{middle}" y1="0" x2="{middle}" y2="22"/>{dot}</svg>'
    )


def _told(decided: Decided, row: int) -> str:
    table = decided.table
    score = int(table["score_sum"][row]) / max(int(table["edges"][row]) * FULL_SCALE, 1)
    rounds = f"round {table['round'][row]} \u00b7 " if np.unique(table["round"]).size > 1 else ""
    at = ", ".join(str(table[axis][row]) for axis in AXES)
    return (
        f"{rounds}segments {table['s1'][row]} and {table['s2'][row]} at {at} \u00b7 "
        f"{table['contacts'][row]:,} contacts, the best one of {table['edges'][row]:,} edges scores {score:.2f} \u00b7 "
        f"{table['voxels_1'][row]:,} and {table['voxels_2'][row]:,} voxels in the window"
    )


def signed(bits: float) -> str:
    """A change, with its sign."""
    if bits == 0:
        return "0"
    digits = f"{abs(bits):.1e}" if abs(bits) < 1e-3 else f"{abs(bits):.4f}"
    mantissa, _, power = digits.partition("e-")
    shown = f"{mantissa}\u00a0\u00b7\u00a010<sup>{MINUS}{int(power)}</sup>" if power else digits
    return f"{MINUS if bits < 0 else '+'}{shown}"
