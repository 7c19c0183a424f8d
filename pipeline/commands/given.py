"""Volumes that the command line names in place of the config's; relative paths count from the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.config import RunConfig, parse

GivenAffinities = Annotated[
    str | None,
    Parameter(help="start from these affinities, and run no network: FILE, FILE.h5:dataset or FILE.npz:name"),
]
GivenTruth = Annotated[str | None, Parameter(help="label volume to score against, FILE or FILE.h5:dataset")]


def with_volumes(
    config: RunConfig, *, image: str | None = None, affinities: str | None = None, truth: str | None = None
) -> RunConfig:
    """The config with other volumes; a generated one goes when a file is named."""
    if image is None and affinities is None and truth is None:
        return config
    data: dict[str, Any] = config.model_dump()
    if image is not None or affinities is not None:
        data["input"]["synthetic"] = None
    if image is not None:
        data["input"]["image"] = _absolute(image)
    if affinities is not None:
        data["affinities"] = (data["affinities"] or {}) | {"path": _absolute(affinities), "from_labels": None}
    if truth is not None:
        data["input"]["truth"] = _absolute(truth)
    return parse(data, where="the command line")


def _absolute(location: str) -> str:
    return str(Path(location).absolute())
