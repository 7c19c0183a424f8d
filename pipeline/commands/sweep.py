"""`neurotile sweep RUN`: the scores at many thresholds, from the merge tree that is there."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.terminal import print_json
from pipeline.errors import ConfigError
from pipeline.ops.sweep import Point, best
from pipeline.rundir import RunFolder
from pipeline.thresholds import scores_at, sweepable


def sweep(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    thresholds: Annotated[str | None, Parameter(help="other thresholds, `0.2,0.25,0.3`")] = None,
    truth: Annotated[str | None, Parameter(help="label volume to compare with, FILE or FILE.h5:dataset")] = None,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Print VOI and ARAND at many thresholds and mark the best. Writes nothing."""
    found = sweepable(RunFolder(run), truth)
    points = scores_at(found, _numbers(thresholds) if thresholds is not None else None)
    least, own = best(points), found.plan.config.relabel.threshold
    if json:
        told = None if least is None else least.threshold
        print_json({"run": str(run), "threshold": own, "best": told, "points": [asdict(p) for p in points]})
        return 0
    sys.stdout.write("threshold  VOI split  VOI merge  VOI, bits    ARAND   segments\n")
    for point in points:
        marks = ["best"] * (point == least) + ["this run"] * (point.threshold == own)
        sys.stdout.write(_line(point) + (f"  <- {', '.join(marks)}" if marks else "") + "\n")
    if least is not None and least.threshold != own:
        sys.stdout.write(f"its labels: neurotile segment {run} --threshold {least.threshold:g}\n")
    return 0


def _line(point: Point) -> str:
    measures = (_number(value) for value in (point.voi_split, point.voi_merge, point.voi))
    return f"{point.threshold:<9g}{'  '.join(['', *measures])}  {_number(point.arand, 7)}  {point.segments:>9,}"


def _number(value: float | None, width: int = 9) -> str:
    return f"{'undefined' if value is None else format(value, '.4f'):>{width}}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--thresholds {text!r} is no list of numbers", way_out="write them as 0.2,0.25,0.3"
        ) from None
