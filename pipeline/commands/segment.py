"""`neurotile segment RUN --threshold T`: the labels of another threshold, from the merge tree that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.execute import execute
from pipeline.derived import default_folder, derive


def segment(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    threshold: Annotated[float, Parameter(help="from agglomerate.floor up")],
    out: Annotated[Path | None, Parameter(help="run directory to make; default: RUN/segments/T...")] = None,
    workers: Annotated[int | None, Parameter(help="worker processes")] = None,
    executor: Annotated[str | None, Parameter(help="serial or daisy")] = None,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
    quiet: Annotated[bool, Parameter(help="no progress")] = False,
) -> int:
    """Cut the merge tree at another threshold, without agglomerating again. The run itself stays as it is.

    The result is a run of its own; the same command goes on with it after a stop.
    """
    root = out or default_folder(run, threshold)
    derive(run, threshold, root)
    flags = {"workers": workers, "executor": executor}
    return execute(root, None, flags, update=False, retry=False, accept_holes=False, as_json=json, quiet=quiet)
