"""The weights that a training keeps, rewritten at every evaluation.

NAME.safetensors, NAME.json, NAME.md   the best network by its score on the held-out volumes: the least VOI, or where
                                       no VOI is measured the last network
NAME-last.safetensors, NAME-last.json  the last one, where that is another matter
best.json                              step and score of the best one: a training that goes on compares with it, as
                                       long as it is judged by the same volumes in the same way

Metrics are those of the weights as they are kept, in float16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.spec import WeightsSpec, load_spec
from pipeline import durable
from pipeline.errors import BadWeights
from pipeline.training.card import card
from pipeline.training.judge import score_of
from pipeline.training.settings import TrainConfig

if TYPE_CHECKING:
    from torch import nn


class Keeper:
    """Writes weights into a training's folder."""

    def __init__(
        self, config: TrainConfig, folder: Path, machine: str, *, came: Mapping[str, Any], judged: Sequence[str]
    ) -> None:
        """`came` says where weights and data come from, `judged` are the fingerprints of the held-out volumes."""
        self._config, self._machine, self._came = config, machine, came
        judging = config.model_dump_json(include={"validation", "segmentation"}) + "".join(judged)
        self._judged_by = hashlib.sha256(judging.encode()).hexdigest()[:16]
        self._note = folder / "best.json"
        self.weights = folder / f"{config.name}.safetensors"
        self._last = folder / f"{config.name}-last.safetensors"
        self.best: dict[str, Any] = self._noted()

    @property
    def by_score(self) -> bool:
        """Whether the best network is kept, and not the last one."""
        return self._config.segmentation is not None or self._config.network.predicts == "embedding"

    def _noted(self) -> dict[str, Any]:
        """The best one of before; nothing if it was judged otherwise: scores of other volumes say nothing here."""
        if not self._note.exists():
            return {}
        try:
            best = dict(json.loads(self._note.read_text("utf-8")))
            score, same = float(best["score"]), best.get("judged_by", self._judged_by) == self._judged_by
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadWeights(
                f"the note of the best network cannot be read: {error}",
                where=str(self._note),
                way_out="remove this file: the next evaluation writes it again",
            ) from None
        return {**best, "score": score} if same else {}

    def keep(self, network: nn.Module, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Keep what an evaluation found after so many seconds of steps."""
        if not self.by_score:
            self._write(network, step, metrics, self.weights, seconds)
            return
        self._write(network, step, metrics, self._last, seconds)
        found = score_of(metrics)
        if found is None:
            return
        name, score = found
        best = self.best
        if not best or best["name"] != name or score <= best["score"] or not self.weights.exists():
            self._write(network, step, metrics, self.weights, seconds)
            self.best = {"step": step, "name": name, "score": score, "metrics": dict(metrics)}
            self.best["judged_by"] = self._judged_by
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

    def _write(self, network: nn.Module, step: int, metrics: Mapping[str, float], path: Path, seconds: float) -> None:
        import torch

        from models.checkpoint import save_weights

        provenance = {
            "config": self._config.model_dump(mode="json"),
            "metrics": dict(metrics),
            "step": step,
            "torch": torch.__version__,
            **self._came,
        }
        spec = save_weights(network, self._config.network.spec(provenance), path)
        if path == self.weights:
            facts = {
                "size_bytes": path.stat().st_size,
                "parameters": sum(p.numel() for p in network.parameters()),
                "step": step,
                "metrics": metrics,
                "seconds": seconds,
                "machine": self._machine,
            }
            durable.replace_file(path.with_suffix(".md"), card(self._config, spec, facts).encode())
