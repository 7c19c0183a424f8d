"""`neurotile audit RUN`: prove the one answer on the run's own data."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.audit import Audit, whole_blocks
from pipeline.audit import audit as examine
from pipeline.commands.exit_codes import EXIT_DONE, EXIT_FAILED_BLOCKS
from pipeline.commands.terminal import print_json
from pipeline.errors import ConfigError
from pipeline.geometry import AXES, Box
from pipeline.outcome import Outcome
from pipeline.run import dry_survey
from pipeline.rundir import RunFolder
from pipeline.work import recorded_config

FACES_SHOWN = 20


def audit(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    roi: Annotated[
        str | None, Parameter(help="region Z0:Z1,Y0:Y1,X0:X1 in voxels of the layer, widened to whole blocks")
    ] = None,
    recompute: Annotated[
        bool, Parameter(negative="--no-recompute", help="compute the region's affinities again and compare")
    ] = True,
    scratch: Annotated[Path | None, Parameter(help="where to work; default: the system's folder for such")] = None,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Segment a part of a run as one block and on the run's grid, and compare; likewise its affinities."""
    folder = RunFolder(run)
    outcome = dry_survey(folder, recorded_config(folder), folder.load()["facts"])
    _refuse_unfinished(outcome)
    plan = outcome.plan
    region = whole_blocks(plan, None if roi is None else parse_box(roi))
    place = Path(tempfile.mkdtemp(prefix="neurotile-audit-", dir=scratch))
    try:
        found = examine(plan, region, place, recompute=recompute, tell=_say)
    finally:
        shutil.rmtree(place)
    if json:
        print_json(as_json(found))
    else:
        sys.stderr.write("\n".join(lines(found)) + "\n")
    return EXIT_DONE if found.passed else EXIT_FAILED_BLOCKS


def parse_box(text: str) -> Box:
    """A box as people write it: Z0:Z1,Y0:Y1,X0:X1."""
    try:
        z, y, x = ((int(begin), int(end)) for begin, end in (part.split(":") for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"{text!r} is no region", way_out="write it as Z0:Z1,Y0:Y1,X0:X1") from None
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def lines(found: Audit) -> list[str]:
    """The findings for people."""
    told = [f"region {found.region}, {found.blocks:,} blocks of the run"]
    if found.codes is not None:
        codes = found.codes
        equal = "all equal to the stored bytes" if not codes.differing else f"{codes.differing:,} DIFFER"
        most = f", by up to {codes.largest} codes" if codes.differing else ""
        told.append(f"affinities: {codes.edges:,} in {codes.blocks:,} blocks computed again, {equal}{most}")
    for name, count, differing in (
        ("fragments", found.fragments, found.differing_fragments_vx),
        ("segments", found.segments, found.differing_segments_vx),
    ):
        equal = "equal as one block and on the run's grid" if not differing else f"DIFFERENT in {differing:,} voxels"
        told.append(f"labels: {count:,} {name}, {equal}")
    if found.faces:
        told.append("planes between blocks, the worst first:")
        told += [f"  {face}" for face in found.faces[:FACES_SHOWN]]
    told.append("one answer: confirmed" if found.passed else "one answer: NOT confirmed")
    return told


def as_json(found: Audit) -> dict[str, Any]:
    """The findings for programs."""
    faces = [{**asdict(face), "axis": AXES[face.axis]} for face in found.faces]
    region = {"begin": found.region.begin, "end": found.region.end}
    return {**asdict(found), "region": region, "faces": faces, "passed": found.passed}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _refuse_unfinished(outcome: Outcome) -> None:
    left = sum(survey.total - len(survey.current) for survey in outcome.surveys.values())
    if left:
        root = outcome.folder.root
        raise ConfigError(
            f"{left:,} blocks of this run are not done",
            where=str(root),
            way_out=f"finish it first: neurotile run --out {root}",
        )
