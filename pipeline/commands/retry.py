"""`neurotile retry RUN`: give failed blocks another chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.execute import execute


def retry(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    workers: int | None = None,
    executor: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Run the blocks that failed once more, and everything that waited for them."""
    flags = {"workers": workers, "executor": executor}
    return execute(run, None, flags, update=False, retry=True, accept_holes=False, as_json=json, quiet=quiet)
