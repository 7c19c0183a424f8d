"""The weights that a training keeps, rewritten at every evaluation.

NAME.safetensors, NAME.json, NAME.md   the best network by its score on the held-out volumes: the least VOI, or where
                                       no VOI is measured the last network
NAME-last.safetensors, NAME-last.json  the last one, where that is another matter
best.json                              step and score of the best one: a training that goes on compares with it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.spec import WeightsSpec, load_spec
from pipeline import durable
from pipeline.training.card import card
from pipeline.training.judge import score_of
from pipeline.training.settings import TrainConfig

if TYPE_CHECKING:
    from torch import nn


class Keeper:
    """Writes weights into a training's folder."""

    def __init__(self, config: TrainConfig, folder: Path, machine: str) -> None:
        self._config, self._machine = config, machine
        self._note = folder / "best.json"
        self.weights = folder / f"{config.name}.safetensors"
        self._last = folder / f"{config.name}-last.safetensors"
        self.best: dict[str, Any] = json.loads(self._note.read_text("utf-8")) if self._note.exists() else {}

    @property
    def by_score(self) -> bool:
        """Whether the best network is kept, and not the last one."""
        return self._config.segmentation is not None or self._config.network.predicts == "embedding"

    def keep(self, network: nn.Module, step: int, metrics: Mapping[str, float]) -> None:
        """Keep what an evaluation found."""
        if not self.by_score:
            self._write(network, step, metrics, self.weights)
            return
        self._write(network, step, metrics, self._last)
        found = score_of(metrics)
        if found is None:
            return
        name, score = found
        if not self.best or score <= self.best["score"] or not self.weights.exists():
            self._write(network, step, metrics, self.weights)
            self.best = {"step": step, "name": name, "score": score, "metrics": dict(metrics)}
            durable.replace_file(self._note, (json.dumps(self.best) + "\n").encode())

    def begin(self, step: int) -> None:
        """A training that starts anew has no best network yet."""
        if step == 0:
            self.best = {}
            self._note.unlink(missing_ok=True)

    @property
    def kept(self) -> WeightsSpec | None:
        """The spec of the weights that are there."""
        return load_spec(str(self.weights)) if self.weights.exists() else None

    def _write(self, network: nn.Module, step: int, metrics: Mapping[str, float], path: Path) -> None:
        import torch

        from models.checkpoint import save_weights

        provenance = {
            "config": self._config.model_dump(mode="json"),
            "metrics": dict(metrics),
            "step": step,
            "torch": torch.__version__,
        }
        spec = save_weights(network, self._config.network.spec(provenance), path)
        if path == self.weights:
            facts = {
                "size_bytes": path.stat().st_size,
                "parameters": sum(p.numel() for p in network.parameters()),
                "step": step,
                "metrics": metrics,
                "machine": self._machine,
            }
            durable.replace_file(path.with_suffix(".md"), card(self._config, spec, facts).encode())
