"""`neurotile report RUN`: write report.html anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.terminal import print_json
from pipeline.config import parse
from pipeline.report import write_report
from pipeline.run import dry_survey
from pipeline.rundir import RunFolder


def report(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Write the report page from what the run has stored so far."""
    folder = RunFolder(run)
    record = folder.load()
    config = parse(record["config"], where=str(folder.record))
    page = write_report(dry_survey(folder, config, record["facts"]))
    if json:
        print_json({"report": str(page)})
    else:
        print(page)
    return 0
