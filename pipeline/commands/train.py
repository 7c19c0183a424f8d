"""`neurotile train CONFIG`: train a network on generated volumes."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline import training


def train(
    config: Annotated[Path, Parameter(help="TOML file of a training, such as configs/tiny_train.toml")],
    out: Annotated[Path | None, Parameter(help="folder for weights, spec and resume state; default: runs/NAME")] = None,
    *,
    show_augmentation: Annotated[
        Path | None, Parameter(help="draw what is done to the crops into this PNG file, and train nothing")
    ] = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Train a network, or go on with a training that was interrupted."""
    if show_augmentation is not None:
        training.show_augmentation(config, show_augmentation)
        sys.stderr.write(f"{show_augmentation}\n")
        return 0
    result = training.train_from_config(config, out, on_progress=_ignore if quiet else _tell)
    if json:
        sys.stdout.write(json_format.dumps(result) + "\n")
    else:
        metrics = ", ".join(f"{name} {value:g}" for name, value in result["metrics"].items())
        sys.stderr.write(f"{result['weights']}: {result['parameters']:,} parameters, {metrics}\n")
    return 0


def _tell(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    sys.stderr.write(f"step {step} of {steps}: {numbers}\n")
    sys.stderr.flush()


def _ignore(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Say nothing."""
