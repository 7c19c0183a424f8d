"""What the report says about the merge tree: scores by threshold, with a plot, and the largest objects.

The plot is inline SVG in the page's own colours, so that it is light or dark with the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.geometry import AXES, Index
from pipeline.ops.classes import CONFLICT
from pipeline.ops.edges import CHANNEL_SHIFT
from pipeline.ops.objects import Objects
from pipeline.ops.sweep import Point, best
from pipeline.ops.thresholds import FULL_SCALE
from pipeline.outcome import Outcome
from pipeline.pages import table, text
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.classes import ClassVotes
from pipeline.stages.evaluate import TOTAL
from pipeline.stages.relabel import Relabel
from pipeline.stages.sweep import Sweep

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 60, 16, 46
LABELS_APART = 15.0  # pixels between labels of points
TICKS = 5

STYLE = """
.plot{display:block;width:100%;max-width:760px;height:auto;margin:18px 0;color:var(--ink);font-size:12px}
.plot text{fill:var(--soft)}.plot .mark{fill:var(--ink);font-weight:600}.plot .grid{stroke:var(--line)}
.plot polyline{fill:none;stroke:#3d7edb;stroke-width:1.5}.plot circle{fill:#3d7edb}
.plot .best{fill:none;stroke:#2f8f83;stroke-width:2}.plot .own{fill:#dea030}
"""

NO_TREE = "This run has no merge tree: its segments are its fragments."


# ---- thresholds ----------------------------------------------------------------------------------------------------
def thresholds(outcome: Outcome, scores: Mapping[str, Any]) -> str:
    """Scores at many thresholds; nothing if there is nothing to compare with."""
    plan = outcome.plan
    if plan.facts["truth"] is None:
        return ""
    if plan.find(Agglomerate) is None:
        return _soft(NO_TREE)
    stage = plan.find(Sweep)
    if stage is None:
        return _soft("The config asks for no sweep of thresholds (sweep.thresholds is empty).")
    survey = outcome.surveys.get(stage.task(TOTAL))
    if survey is None or not survey.current:
        return _soft("not available: the sweep has not been done")
    own = plan.config.relabel.threshold
    points = with_own(stage.stored_points(), own, scores)
    least = best(points)
    marks = {own: "this run"}
    if least is not None:
        marks[least.threshold] = "best, this run" if least.threshold == own else "best"
    rows = ((f"{p.threshold:g}", *_measures(p), f"{p.segments:,}", marks.get(p.threshold, "")) for p in points)
    head = ("threshold", "VOI split, bits", "VOI merge, bits", "VOI sum", "ARAND", "segments", "")
    told = "From one count of fragments against the truth. The best threshold is the one with the least VOI sum."
    if least is not None and least.threshold != own:
        told += f" Its labels: neurotile segment {outcome.folder.root} --threshold {least.threshold:g}"
    return plot(points, own, least) + table(head, rows) + _soft(told)


def with_own(points: Iterable[Point], own: float, scores: Mapping[str, Any]) -> list[Point]:
    """The points, and the run's own as it was evaluated if it is not among them."""
    found = {point.threshold: point for point in points}
    if own not in found and scores:
        measures = (scores[name] for name in ("voi_split", "voi_merge", "voi", "arand"))
        found[own] = Point(own, int(scores["segments"]), *measures)
    return [found[threshold] for threshold in sorted(found)]


def plot(points: Sequence[Point], own: float, least: Point | None) -> str:
    """VOI split (up) against VOI merge (to the right), a point for every threshold; nothing if none is measured."""
    measured = ((p.threshold, p.voi_merge, p.voi_split) for p in points)
    known = [(t, merge, split) for t, merge, split in measured if merge is not None and split is not None]
    if not known:
        return ""
    most = [max(max(p[axis] for p in known), 1e-6) * 1.05 for axis in (1, 2)]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    at = {t: (LEFT + wide * merge / most[0], TOP + high * (1 - split / most[1])) for t, merge, split in known}
    parts = [_axes(most, wide, high)]
    parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at.values())}"/>')
    special = {own} | ({least.threshold} if least is not None else set())
    labelled = [at[t] for t in special if t in at]
    for threshold, (x, y) in at.items():
        kind = "own" if threshold == own else "point"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if kind == "own" else 3.5}"/>')
        if least is not None and threshold == least.threshold:
            parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="8.5"/>')
        far = all(abs(x - u) + abs(y - v) > LABELS_APART for u, v in labelled)
        if threshold in special or far:
            mark = ' class="mark"' if threshold in special else ""
            parts.append(f'<text{mark} x="{x + 11:.1f}" y="{y - 6:.1f}">{threshold:g}</text>')
            labelled.append((x, y))
    said = "VOI split against VOI merge at every threshold"
    shape = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}"'
    caption = "Labelled with thresholds: this run's in yellow, the best one ringed. Nearer to the corner is better."
    return f'<svg class="plot" {shape}>{"".join(parts)}</svg>{_soft(caption)}'


def _axes(most: Sequence[float], wide: int, high: int) -> str:
    """Grid lines with numbers, and what the axes are."""
    parts = []
    for n in range(TICKS + 1):
        x, y = LEFT + wide * n / TICKS, TOP + high * (1 - n / TICKS)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + high}"/>')
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + wide}" y2="{y:.1f}"/>')
        across, up = (f"{most[axis] * n / TICKS:.2g}" for axis in (0, 1))
        parts.append(f'<text x="{x:.1f}" y="{TOP + high + 17}" text-anchor="middle">{across}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{up}</text>')
    middle = TOP + high / 2
    parts.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">VOI merge, bits</text>')
    turned = f'transform="rotate(-90 13 {middle})"'
    parts.append(f'<text x="13" y="{middle}" text-anchor="middle" {turned}>VOI split, bits</text>')
    return "".join(parts)


# ---- objects -------------------------------------------------------------------------------------------------------
def largest_objects(outcome: Outcome) -> str:
    """The ten largest objects, and the merge that each would fall apart at first."""
    plan = outcome.plan
    if plan.find(Agglomerate) is None:
        return _soft(NO_TREE)
    names = plan.stage(Relabel).names_from
    surveys = (outcome.surveys.get(names.task(sweep.name)) for sweep in names.passes())
    if not all(survey is not None and len(survey.current) == survey.total for survey in surveys):
        return _soft("The largest objects follow when all blocks are done.")
    found = names.largest_objects()
    kinds = () if found.kind is None else ("class",)
    head = ("object", *kinds, "voxels", "share", "weakest bridge", "between, voxels", f"at ({', '.join(AXES)})", "nm")
    rows = (_row(outcome, found, row) for row in range(found.size))
    told = (
        "The weakest bridge is the merge with the lowest score in an object, between its last two parts; with a "
        "threshold above that score the object falls apart there. Its position is one voxel of their contact."
    )
    if guard := plan.config.guards.largest_vx:
        told += f" Merges to more than {guard:,} voxels were refused (guards.largest_vx)."
    return table(head, rows) + _soft(told) + (_soft(_classes_told(outcome)) if kinds else "")


def _classes_told(outcome: Outcome) -> str:
    """What the class mask has changed, from receipts."""
    plan = outcome.plan
    counts: Counter[int] = Counter()
    for found in outcome.noted(ClassVotes.name, "up", "classes"):
        counts.update({int(kind): number for kind, number in found.items()})
    each = ", ".join(f"{class_name(plan.config, kind)}: {counts[kind]:,}" for kind in sorted(counts)) or "none"
    apart = sum(outcome.noted("agglomerate", "up0", "apart"))
    refused = sum(outcome.noted(plan.stage(Relabel).names_from.name, "", "conflicting"))
    told = (
        f"Fragments with a class: {each}. {apart:,} voxel edges between fragments of different classes were dropped. "
    )
    if not plan.config.guards.conflicting_classes:
        return told + "Merges of different classes were allowed (guards.conflicting_classes = false)."
    return told + (
        f"{refused:,} merges above the threshold were refused because the object would have held different classes "
        "(guards.conflicting_classes)."
    )


def class_name(config: RunConfig, kind: int) -> str:
    """What the config calls a class."""
    names = next((mask.names for mask in config.mask if mask.role == "class"), {})
    return {0: "none", CONFLICT: "several"}.get(kind) or names.get(kind, str(kind))


def _row(outcome: Outcome, found: Objects, row: int) -> tuple[str, ...]:
    layer = outcome.plan.layer
    share = f"{100 * int(found.voxels[row]) / layer.roi.voxels:.2f}\u00a0%"
    kind = () if found.kind is None else (class_name(outcome.plan.config, int(found.kind[row])),)
    start = (str(found.name[row]), *kind, f"{int(found.voxels[row]):,}", share)
    if not found.voxels_b[row]:
        return (*start, "one fragment", "", "", "")
    position = place_of(int(found.tie[row]), layer.shape)
    nm = (f"{p * size:,.0f}" for p, size in zip(position, layer.voxel_size.nm, strict=True))
    sides = sorted((int(found.voxels_a[row]), int(found.voxels_b[row])), reverse=True)
    between = " and ".join(f"{side:,}" for side in sides)
    bridge = f"{found.score[row] / FULL_SCALE:.4f}"
    return (*start, bridge, between, ", ".join(str(p) for p in position), ", ".join(nm))


def place_of(tie: int, shape: Index) -> Index:
    """The voxel that stores the edge of a tie, in the layer."""
    flat = tie & ((1 << CHANNEL_SHIFT) - 1)
    rest, x = divmod(flat, shape[2])
    z, y = divmod(rest, shape[1])
    return (z, y, x)


def _measures(point: Point) -> tuple[str, ...]:
    return tuple(_number(value) for value in (point.voi_split, point.voi_merge, point.voi, point.arand))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _soft(said: str) -> str:
    return f'<p class="soft">{text(said)}</p>'
