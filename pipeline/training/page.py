"""`training.html`: how a training stands, in one file that needs no other: curves, scores, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import pictures
from pipeline.figures import STYLE as CUTS
from pipeline.pages import duration, page, pairs, table, text
from pipeline.pictures import Rgb
from pipeline.png import rgb_uri
from pipeline.training import curves
from pipeline.training.judge import Look
from pipeline.training.log import Log

REFRESH_S = 30
MOST_ROWS = 20
HEADLINES = {"running": "Running", "done": "Done", "stopped": "Stopped: the same command goes on"}
COLOURS = {"stopped": "waiting"}
MEASURES = ("voi", "voi_split", "voi_merge", "arand", "threshold", "held_out_auc", "held_out_loss")


@dataclass(frozen=True)
class Standing:
    """What is told beside the log."""

    name: str
    state: str
    steps: int
    about: Mapping[str, Any]  # facts of the network and its recipe
    best: Mapping[str, Any]  # step, score and name of the best network so far; empty if there is none


def training_page(standing: Standing, log: Log, look: Look | None) -> str:
    """The page."""
    step = log.entries[-1]["step"] if log.entries else 0
    body = (
        _header(standing, log, step),
        f"<h2>Loss</h2>{_terms(log, standing.steps)}",
        _section("VOI on the held-out volumes, bits", log, standing, voi=True),
        _section("On the held-out volumes", log, standing, voi=False),
        f"<h2>What it sees</h2>{_pictures(look)}" if look else "",
        f"<h2>Evaluations</h2>{_evaluations(log)}",
        f"<h2>Learning rate</h2>{curves.plot({'rate': log.curve('rate')}, standing.steps)}",
        f"<h2>Recipe</h2>{pairs((name, text(value)) for name, value in standing.about.items())}",
    )
    title = f"{100 * step // max(1, standing.steps)} % {standing.name} · neurotile training"
    refresh = REFRESH_S if standing.state == "running" else None
    return page(title, "\n".join(body), state=standing.state, refresh_s=refresh, style=CUTS + curves.STYLE)


def _header(standing: Standing, log: Log, step: int) -> str:
    colour = COLOURS.get(standing.state, standing.state)
    lines = [f"step {step:,} of {standing.steps:,}"]
    pace = log.curve("seconds_per_step")
    if pace:
        left = (standing.steps - step) * pace[-1][1]
        lines[0] += f", {pace[-1][1]:.2f} s per step" + (f", {duration(left)} left" if left else "")
    if standing.best:
        best = standing.best
        lines.append(f"best so far: {best['name']} {best['score']:.4g} at step {best['step']:,}")
    told = "".join(f'<div class="soft">{text(line)}</div>' for line in lines)
    return (
        f'<header><p class="kicker">neurotile training</p><h1>{text(standing.name)}</h1>'
        f'<p class="state {text(colour)}">{text(HEADLINES.get(standing.state, standing.state))}</p>{told}</header>'
    )


def _terms(log: Log, steps: int) -> str:
    shown = {"loss": log.curve("loss"), "internal": log.curve("internal"), "external": log.curve("external")}
    return curves.plot(shown, steps, by_decade=True)


def _section(title: str, log: Log, standing: Standing, *, voi: bool) -> str:
    names = {"sum": "voi", "split": "voi_split", "merge": "voi_merge"} if voi else {}
    names = names or {"loss": "held_out_loss", "AUC of affinities": "held_out_auc"}
    drawn = curves.plot({told: log.curve(name) for told, name in names.items()}, standing.steps)
    return f"<h2>{text(title)}</h2>{drawn}" if drawn else ""


def _evaluations(log: Log) -> str:
    judged = [entry for entry in log.entries if any(name in entry for name in MEASURES)]
    if not judged:
        return '<p class="soft">none yet</p>'
    names = [name for name in MEASURES if any(name in entry for entry in judged)]
    rows = (
        (f"{entry['step']:,}", *(f"{entry[name]:.4f}" if name in entry else "" for name in names))
        for entry in judged[-MOST_ROWS:][::-1]
    )
    return table(("step", *names), rows)


# ---- pictures ------------------------------------------------------------------------------------------------------
def _pictures(look: Look) -> str:
    figures = "".join(
        f'<figure class="third"><div class="shot"><img alt="{text(name)}" src="{rgb_uri(drawn)}"></div>'
        f"<figcaption><b>{text(name)}</b> · {text(told)}</figcaption></figure>"
        for name, told, drawn in _shots(look)
    )
    return f'<div class="cuts">{figures}</div>'


def _shots(look: Look) -> Iterator[tuple[str, str, Rgb]]:
    certain = [0] * 255 + [pictures.TOP]
    along = "along x red, y green, z blue"
    yield "Image", "the middle section of the first held-out volume", pictures.grey(look.image_YX)
    yield "Target", along, pictures.affinities(look.target_CYX, certain)  # type: ignore[arg-type]
    yield "Affinities", along, pictures.affinities(look.predicted_CYX, look.code_table)  # type: ignore[arg-type]
    yield "Truth", "one colour per object", pictures.overlay(look.image_YX, look.truth_YX)
    if look.segments_YX is not None:
        matched = pictures.matching_colours(look.segments_YX, look.truth_YX)
        alike = "at the best threshold; a segment has the colour of its object if each is the other's best match"
        yield "Segmentation", alike, pictures.overlay(look.image_YX, look.segments_YX, matched)
