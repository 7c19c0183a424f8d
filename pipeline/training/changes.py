"""What is different from the training that a folder holds: said when its state is of another recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.errors import WeightsInvalid
from models.spec import load_spec
from pipeline.training.settings import TrainConfig

MOST = 4
DECIDE = ("network", "volumes", "sample", "training", "augmentation")
MACHINE = ("evaluate_every", "report_every", "save_every", "device", "compile", "precision", "threads", "loaders")


def changed(config: TrainConfig, folder: Path) -> str:
    """The keys that differ from those of the weights that are kept there, with both values; nothing if unknown."""
    before = _before(config.name, folder)
    if before is None:
        return ""
    old, new = (dict(_flat("", {key: data.get(key) for key in DECIDE})) for data in (before, _plain(config)))
    told = [
        f"{key} is {new.get(key)!r}, was {old.get(key)!r}" for key in {**old, **new} if old.get(key) != new.get(key)
    ]
    if not told:
        return ": the data, or the weights that it started from, are others"
    more = f", and {len(told) - MOST} more" if len(told) > MOST else ""
    return f": {'; '.join(told[:MOST])}{more}"


def _before(name: str, folder: Path) -> Mapping[str, Any] | None:
    for kept in (f"{name}-last", name):
        try:
            config = load_spec(str(folder / f"{kept}.json"), verify=False).training.get("config")
        except WeightsInvalid:
            continue
        if isinstance(config, Mapping):
            return config
    return None


def _plain(config: TrainConfig) -> Mapping[str, Any]:
    return config.model_dump(mode="json")


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Keys with dots, and their values; what belongs to the machine is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if prefix != "training." or key not in MACHINE:
                yield from _flat(f"{prefix}{key}.", inner)
    elif isinstance(value, list) and value and all(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value):
            yield from _flat(f"{prefix}{number}.", inner)
    else:
        yield prefix.removesuffix("."), value
