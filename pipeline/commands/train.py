"""`neurotile train CONFIG`: train a network on generated or labelled volumes."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pipeline import training
from pipeline.errors import ConfigError


def train(
    config: Annotated[Path, Parameter(help="TOML file of a training, such as configs/tiny_train.toml")],
    out: Annotated[Path | None, Parameter(help="folder of weights, state, log and page; default: runs/NAME")] = None,
    *,
    minutes: Annotated[float | None, Parameter(help="stop after so many minutes; the same command goes on")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, Parameter(help="instead of the config's training.device")
    ] = None,
    show_augmentation: Annotated[
        Path | None, Parameter(help="draw what is done to the crops into this PNG file, and train nothing")
    ] = None,
    tune: Annotated[
        bool, Parameter(help="tune the post-processing of the weights that are there, and store it with them")
    ] = False,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Train a network, or go on with a training that was interrupted."""
    if show_augmentation is not None:
        training.show_augmentation(config, show_augmentation)
        sys.stderr.write(f"{show_augmentation}\n")
        return 0
    if minutes is not None and minutes <= 0:
        raise ConfigError(f"--minutes is {minutes:g}", way_out="give a positive number, or leave it out")
    if tune:
        return _tune(config, out, device, as_json=json, quiet=quiet)
    progress = _ignore if quiet else _tell
    result = training.train_from_config(config, out, on_progress=progress, minutes=minutes, device=device)
    code: int = result.pop("exit_code")
    if json:
        sys.stdout.write(json_format.dumps(result) + "\n")
    else:
        sys.stderr.write(_last_words(result))
    return code


def _tune(config: Path, out: Path | None, device: str | None, *, as_json: bool, quiet: bool) -> int:
    tell = (lambda _: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    recipes = training.tune_weights(config, out, tell=tell, device=device)
    if as_json:
        sys.stdout.write(json_format.dumps(recipes) + "\n")
    return 0


def _last_words(result: Mapping[str, Any]) -> str:
    metrics = ", ".join(f"{name} {value:g}" for name, value in result["metrics"].items())
    kept = f"{result['weights']}: {result['parameters']:,} parameters, {metrics}\n" if result["weights"] else ""
    if result["finished"]:
        return kept
    return f"stopped after step {result['step']} of {result['steps']}; the same command goes on from there\n{kept}"


def _tell(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    sys.stderr.write(f"step {step} of {steps}: {numbers}\n")
    sys.stderr.flush()


def _ignore(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Say nothing."""
