"""`neurotile run CONFIG`: segment a volume; on an existing directory, go on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.commands.execute import execute
from pipeline.commands.given import GivenAffinities, GivenTruth, with_volumes
from pipeline.config import load
from pipeline.errors import ConfigError


def run(
    config: Annotated[Path | None, Parameter(help="TOML file; left out: go on with the run in --out as it is")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="run directory; default: runs/NAME, after the config")] = None,
    input: Annotated[
        str | None, Parameter(help="image to use instead of the config's, FILE or FILE.h5:dataset")
    ] = None,
    affinities: GivenAffinities = None,
    truth: GivenTruth = None,
    update: Annotated[bool, Parameter(help="the config has changed: re-run exactly the blocks it affects")] = False,
    accept_holes: Annotated[
        bool, Parameter(help="mask the blocks that failed, and finish; the report says so")
    ] = False,
    workers: Annotated[int | None, Parameter(help="worker processes; of the gpu pool too if it runs on CPUs")] = None,
    executor: Annotated[str | None, Parameter(help="serial or daisy")] = None,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
    quiet: Annotated[bool, Parameter(help="no progress")] = False,
) -> int:
    """Segment a volume, or go on with a run. Nothing is done twice: what has a valid receipt stays."""
    volumes = {"--input": input, "--affinities": affinities, "--truth": truth}
    if config is None and any(volumes.values()):
        named = " and ".join(flag for flag, value in volumes.items() if value)
        raise ConfigError(f"{named} needs a config", way_out="name the config whose volume it replaces")
    root = out or _default_root(config)
    parsed = None if config is None else with_volumes(load(config), image=input, affinities=affinities, truth=truth)
    overrides = {"workers": workers, "executor": executor}
    return execute(
        root, parsed, overrides, update=update, retry=False, accept_holes=accept_holes, as_json=json, quiet=quiet
    )


def _default_root(config: Path | None) -> Path:
    if config is None:
        raise ConfigError("there is nothing to run", way_out="give a config file, or --out with the folder of a run")
    if config.is_dir():
        raise ConfigError(
            f"{config} is a folder, not a config", way_out=f"to go on with the run in it: neurotile run --out {config}"
        )
    return Path("runs") / config.stem
