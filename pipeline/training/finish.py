"""After a training: the post-processing of its weights is tuned on its held-out volumes, and stored with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import WeightsInvalid
from models.spec import encoded
from pipeline import durable
from pipeline.errors import BadWeights
from pipeline.training.apply import Runtime, look_at
from pipeline.training.card import with_recipes
from pipeline.training.session import device_of
from pipeline.training.settings import Labelled, TrainConfig, load
from pipeline.training.tune import OF_AFFINITIES, OF_EMBEDDINGS, Tell, Tuner
from pipeline.training.volumes import tuned_on
from workers.fence import Fence


def tune_weights(
    path: Path, out: Path | None, *, tell: Tell = lambda _: None, device: str | None = None
) -> Mapping[str, Any]:
    """Tune the weights that a training has kept; returns their recipes, the best one first."""
    config = load(path)
    weights = (out or Path("runs") / config.name) / f"{config.name}.safetensors"
    if not weights.exists():
        raise BadWeights("there are no weights yet", where=str(weights), way_out=f"train them: neurotile train {path}")
    fence = Fence(weights.parent / "fence")  # a training there may be about to replace them
    fence.acquire(patience_s=0.0)
    try:
        return _tune(config, path, weights, tell, device)
    finally:
        fence.release()


def _tune(config: TrainConfig, path: Path, weights: Path, tell: Tell, device: str | None) -> Mapping[str, Any]:
    from models.checkpoint import load_network

    try:
        network, spec = load_network(str(weights))
    except WeightsInvalid as error:
        raise BadWeights(error.what, where=error.where or str(weights), way_out="put the right file back") from None
    settings = config.training
    runtime = Runtime(device_of(device or settings.device), settings.threads, settings.precision)
    volumes = []
    for name, volume in zip(_names(config), tuned_on(config, path.parent), strict=True):
        tell(f"{name}: predicting {' x '.join(map(str, volume.image.shape))} voxels")
        volumes.append(look_at(name, network, spec, volume, runtime))
    recipes = Tuner(volumes, tell).recipes(OF_AFFINITIES if spec.delta is None else OF_EMBEDDINGS)
    durable.replace_file(weights.with_suffix(".json"), encoded(replace(spec, recipes=recipes)))
    card = weights.with_suffix(".md")
    durable.replace_file(card, with_recipes(card.read_text(encoding="utf-8"), recipes).encode())
    return recipes


def _names(config: TrainConfig) -> list[str]:
    """What the held-out volumes are called."""
    volumes = config.tuning or config.validation
    if not isinstance(volumes, tuple):
        return [f"generated, seed {seed}" for seed in volumes.seeds]
    return [_region(volume) for volume in volumes]


def _region(volume: Labelled) -> str:
    file = Path(volume.image.partition(":")[0]).name
    last = "" if volume.end is None else f" to {volume.end[0] - 1}"
    return file if not volume.begin[0] and not last else f"{file}, z from {volume.begin[0]}{last}"
