"""`neurotile verify RUN`: read everything back and compare it with the receipts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.exit_codes import EXIT_DONE, EXIT_FAILED_BLOCKS
from pipeline.commands.terminal import print_json
from pipeline.errors import ConfigError
from pipeline.verify import verify as check


def verify(
    run: Annotated[Path, Parameter(help="run directory")],
    /,
    *,
    sample: Annotated[float, Parameter(help="share of the blocks to check, from 0 to 1")] = 1.0,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
) -> int:
    """Re-read and re-hash stored data. Receipts of damaged blocks are taken back, so that `run` repairs them."""
    if not 0 < sample <= 1:
        raise ConfigError(f"--sample {sample} is not a share", way_out="give a number above 0, up to 1")
    found = check(run, sample=sample)
    if json:
        damaged = [{"block": block, "what": what} for block, what in found.damaged]
        print_json({"checked": found.checked, "masked": found.masked, "stale": found.stale, "damaged": damaged})
    else:
        for block, what in found.damaged:
            sys.stderr.write(f"damaged: {block}: {what}\n")
        sys.stderr.write(f"{found.checked:,} blocks checked, {len(found.damaged):,} damaged\n")
        if found.damaged:
            sys.stderr.write(f"repair: neurotile run --out {run}\n")
    return EXIT_FAILED_BLOCKS if found.damaged else EXIT_DONE
