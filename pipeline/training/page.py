"""`training.html`: how a training stands, in one file that needs no other: curves, scores, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline import pictures
from pipeline.figures import STYLE as CUTS
from pipeline.pages import COUNTED, bar, duration, moment, page, pairs, table, text
from pipeline.pictures import Rgb
from pipeline.png import rgb_uri
from pipeline.progress import now
from pipeline.training import curves
from pipeline.training.judge import Look
from pipeline.training.log import Log

REFRESH_S = 30
MOST_ROWS = 20
RECENT = 9  # reports that the pace is the median of
HEADLINES = {"running": "Running", "done": "Done", "stopped": "Stopped: the same command goes on"}
COLOURS = {"stopped": "waiting"}
MEASURES = ("voi", "voi_split", "voi_merge", "arand", "threshold", "held_out_auc", "held_out_loss")
TOLD = {"voi": "VOI", "voi_split": "split", "voi_merge": "merge", "arand": "ARAND", "threshold": "threshold"}
TOLD |= {"held_out_auc": "AUC", "held_out_loss": "held-out loss"}
LOSSES = ("loss", "internal", "external", "background")
SEEN = re.compile(r'<section id="seen">.*?</section>', re.DOTALL)


@dataclass(frozen=True)
class Standing:
    """What is told beside the log."""

    name: str
    state: str
    steps: int
    about: Mapping[str, Any]  # facts of the network and its recipe
    best: Mapping[str, Any]  # step, score and name of the best network so far; empty if there is none
    evaluate_every: int = 0


def training_page(standing: Standing, log: Log, seen: str = "") -> str:
    """The page; `seen` are the pictures of the last evaluation."""
    step = log.entries[-1]["step"] if log.entries else 0
    body = (
        _header(standing, log, step),
        _tiles(standing, log),
        bar({**dict.fromkeys(COUNTED, 0), "done": step}, standing.steps, large=True),
        f'<p class="soft">step {step:,} of {standing.steps:,}: {100 * step // max(1, standing.steps)} %</p>',
        _plots(standing, log),
        seen,
        f"<h2>Evaluations</h2>{_evaluations(standing, log)}",
        f"<h2>Recipe</h2>{pairs((name, text(value)) for name, value in standing.about.items())}",
        _footer(standing),
    )
    title = f"{100 * step // max(1, standing.steps)} % {standing.name} · neurotile training"
    refresh = REFRESH_S if standing.state == "running" else None
    return page(title, "\n".join(body), state=standing.state, refresh_s=refresh, style=CUTS + curves.STYLE)


# ---- how far it is -------------------------------------------------------------------------------------------------
def _header(standing: Standing, log: Log, step: int) -> str:
    colour = COLOURS.get(standing.state, standing.state)
    told = [f"{duration(log.seconds)} of steps so far" if step < standing.steps else f"took {duration(log.seconds)}"]
    pace = recent_pace(log)
    if pace:
        told.append(f"{pace:.3g} s per step")
    if pace and step < standing.steps:
        told.append(f"{duration(seconds_left(standing, log, step))} left")
    return (
        f'<header><p class="kicker">neurotile training</p><h1>{text(standing.name)}</h1>'
        f'<p class="state {text(colour)}">{text(HEADLINES.get(standing.state, standing.state))}</p>'
        f'<div class="soft">{text(" · ".join(told) if step else "no step reported yet")}</div></header>'
    )


def _footer(standing: Standing) -> str:
    written = f"written {moment(now())}"
    if standing.state == "running":
        written += ", again with the next report; if this time stands still, the process was killed: the same command "
        written += "goes on from the last state"
    return f'<footer class="soft">{text(written)}</footer>'


def recent_pace(log: Log) -> float:
    """Seconds a step takes: the median of the last reports."""
    paces = [pace for _, pace in log.curve("seconds_per_step")[-RECENT:]]
    return median(paces) if paces else 0.0


def seconds_left(standing: Standing, log: Log, step: int) -> float:
    """Steps at the recent pace, and the evaluations that are due as long as the last one took."""
    left = standing.steps - step
    taken = log.curve("evaluation_seconds")
    every = standing.evaluate_every or standing.steps
    evaluations = -(-standing.steps // every) - step // every
    return left * recent_pace(log) + (evaluations * taken[-1][1] if taken else 0.0)


def _tiles(standing: Standing, log: Log) -> str:
    """The numbers that say how good it is."""
    loss, best = log.curve("loss"), standing.best
    shown = []
    if loss:
        mean = curves.running_mean(loss) or loss
        shown.append((f"{mean[-1][1]:.4g}", "loss, training"))
    if best:
        told = "VOI, bits" if best["name"] == "voi" else "loss, held out"
        shown.append((f"{best['score']:.4g}", f"best {told} · step {best['step']:,}"))
    for name, said in (("voi_split", "split"), ("voi_merge", "merge")):
        if name in best.get("metrics", {}):
            shown.append((f"{best['metrics'][name]:.3g}", f"of it {said}"))
    auc = log.curve("held_out_auc")
    if auc:
        shown.append((f"{auc[-1][1]:.4f}", "AUC of edges, held out"))
    if not shown:
        return '<div class="tiles"></div>'
    tiles = "".join(f'<div><b>{text(value)}</b><span class="soft">{text(said)}</span></div>' for value, said in shown)
    return f'<div class="tiles four">{tiles}</div>'


# ---- curves --------------------------------------------------------------------------------------------------------
def _plots(standing: Standing, log: Log) -> str:
    last, best = standing.steps, standing.best.get("step", 0)
    loss = {name: log.curve(name) for name in LOSSES}
    voi = {"sum": log.curve("voi"), "split": log.curve("voi_split"), "merge": log.curve("voi_merge")}
    auc = {name or "mean": log.curve(f"held_out_auc{name and '_' + name}") for name in ("", "z", "y", "x")}
    held = {name: log.curve(f"held_out_{name}") for name in LOSSES}
    rate = {"rate": log.curve("rate")}
    drawn = (
        ("Loss", "on training crops", curves.plot(loss, last, by_decade=True, noisy=True)),
        ("VOI", "bits, held out", curves.plot(voi, last, mark=best)),
        ("AUC", "of nearest edges, held out", curves.plot(auc, last, from_zero=False, mark=best)),
        ("Loss", "held out", curves.plot(held, last, by_decade=True, mark=best)),
        ("Learning rate", "", curves.plot(rate, last)),
    )
    parts = (
        f"<div><h3>{text(title)}<span>{text(told)}{', logarithmic' if 'logarithmic' in plotted else ''}</span></h3>"
        f"{plotted}</div>"
        for title, told, plotted in drawn
        if plotted
    )
    return f'<div class="plots">{"".join(parts)}</div>'


def _evaluations(standing: Standing, log: Log) -> str:
    judged = [entry for entry in log.entries if any(name in entry for name in MEASURES)]
    if not judged:
        every = standing.evaluate_every
        return f'<p class="soft">none yet{f"; every {every:,} steps" if every else "; after the last step"}</p>'
    names = [name for name in MEASURES if any(name in entry for entry in judged)]
    best = standing.best.get("step")
    rows = (
        (
            f"{entry['step']:,}{' (best)' if entry['step'] == best else ''}",
            *(f"{entry[name]:.4f}" if name in entry else "" for name in names),
        )
        for entry in judged[-MOST_ROWS:][::-1]
    )
    return table(("step", *(TOLD[name] for name in names)), rows)


# ---- pictures ------------------------------------------------------------------------------------------------------
def seen_by(look: Look, step: int) -> str:
    """The pictures of an evaluation, as a part of the page."""
    figures = "".join(
        f'<figure class="third"><div class="shot"><img alt="{text(name)}" src="{rgb_uri(drawn)}"></div>'
        f"<figcaption><b>{text(name)}</b> · {text(told)}</figcaption></figure>"
        for name, told, drawn in _shots(look)
    )
    said = f'<p class="soft">The middle section of the first held-out volume, at step {step:,}.</p>'
    return f'<section id="seen"><h2>What it sees</h2>{said}<div class="cuts">{figures}</div></section>'


def seen_before(old_page: str) -> str:
    """The pictures in a page that was written earlier."""
    found = SEEN.search(old_page)
    return found[0] if found else ""


def _shots(look: Look) -> Iterator[tuple[str, str, Rgb]]:
    certain = [0] * 255 + [pictures.TOP]
    along = "edges along x red, y green, z blue"
    yield "Image", "at the network's voxel size", pictures.grey(look.image_YX)
    yield "Truth", "one colour per object", pictures.overlay(look.image_YX, look.truth_YX)
    if look.segments_YX is not None:
        matched = pictures.matching_colours(look.segments_YX, look.truth_YX)
        alike = "a segment has the colour of its object if each is the other's best match"
        yield "Segmentation", alike, pictures.overlay(look.image_YX, look.segments_YX, matched)
    yield "Affinities", along, pictures.affinities(look.predicted_CYX, look.code_table)  # type: ignore[arg-type]
    yield "True affinities", along, pictures.affinities(look.target_CYX, certain)  # type: ignore[arg-type]
    least = pictures.least_affinity(look.predicted_CYX, look.code_table)  # type: ignore[arg-type]
    yield "Boundaries", "the lesser affinity of x and y: dark where objects part", least
