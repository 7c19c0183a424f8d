"""How a network is judged while it is trained: it is applied to held-out volumes as it will be applied to others.

Codes come from the engine, over the whole held-out region (`predict_codes`). From the same codes:
1. AUC and loss of the nearest edges (ops/affinity_score.py): cheap, the mean over the volumes.
2. If the config has a [segmentation]: VOI, the mean over the volumes by their labelled voxels. Affinities go through
   watershed and mean affinity at every threshold (ops/volume_sweep.py), and the threshold with the least sum is told;
   the edges of an embedding, background left out, through the mutex watershed, which has no threshold.
3. Of an embedding also the loss that it is trained by, on fixed crops of the held-out volumes, unchanged ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.augmentation.plain import Plain
from models.spec import WeightsSpec
from pipeline.ops import affinity_score
from pipeline.ops.sweep import Point
from pipeline.training.apply import MEASURED, Runtime, Said, embeds, labels, run_with, say, scored, segmented
from pipeline.training.settings import Segmentation, TrainConfig
from pipeline.training.tune import BACKGROUND, MUTEX, config_of
from pipeline.training.volumes import Opened, require_objects

if TYPE_CHECKING:
    from torch import nn

Codes = NDArray[np.uint8]
CROPS = 16  # that a loss is the mean of
SCORE = ("voi", "held_out_loss")  # what decides which network is best: the first that was measured; less is better
PUBLISHED_BACKGROUND = 0.6  # from this probability on
UNCHANGED = Plain(greyscale=0, missing=0, blur=0, noise=0, flip=False)


@dataclass(frozen=True)
class Look:
    """The middle section of the first held-out volume, as it is and as the network sees it."""

    image_YX: NDArray[np.uint8]
    target_CYX: Codes  # as codes of certain edges
    predicted_CYX: Codes
    truth_YX: NDArray[np.uint64]
    segments_YX: NDArray[np.uint64] | None
    code_table: tuple[int, ...]


class Judge:
    """Applies a network to the held-out volumes; keeps a look at the last one."""

    def __init__(self, config: TrainConfig, spec: WeightsSpec, volumes: Sequence[Opened], runtime: Runtime) -> None:
        self._config, self._spec, self._runtime = config, spec, runtime
        self._volumes = [_Held.of(volume) for volume in volumes]
        self.look: Look | None = None

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The metrics."""
        scores: list[dict[str, float]] = []
        points: list[list[Point]] = []
        looks: list[tuple[Said, _Cut | None]] = []
        for held in self._volumes:
            found = say(network, self._spec, held.image, self._runtime)
            edges = (found.values_CZYX[:3], held.labels, found.offsets[:3])
            scores.append(affinity_score.score(*edges, self._spec.code_table))
            cut = self._cut(found)
            if cut:
                points.append(cut.points(held.truth))
            looks.append((found, cut))
        metrics = {f"held_out_{name}": float(np.mean([s[name] for s in scores])) for name in scores[0]}
        metrics |= _best(points, [int(np.count_nonzero(held.truth)) for held in self._volumes])
        if embeds(self._spec):
            metrics |= self._losses(network)
        found, cut = looks[0]
        self.look = self._look(found.values_CZYX, cut.labels(metrics.get("threshold", 0.5)) if cut else None)
        if embeds(self._spec):
            metrics.pop("threshold", None)
        return {name: round(value, 5) for name, value in metrics.items()}

    def _cut(self, found: Said) -> _Cut | None:
        """The segmentation that the config asks for."""
        settings = self._config.segmentation
        if settings is None:
            return None
        return _mutex(found) if embeds(self._spec) else _watershed(found, settings)

    def _losses(self, network: nn.Module) -> dict[str, float]:
        """The loss on crops, and what it is made of."""
        import torch

        from models.crops import Sample, draw
        from models.train import Machine, on_machine
        from pipeline.training.volumes import InMemory

        recipe = self._config.recipe()
        drawing = replace(recipe.drawing, batch=1, augmentation=UNCHANGED, seed=0)
        samples = [Sample(InMemory(held.image), InMemory(held.labels), held.myelin) for held in self._volumes]
        told: list[dict[str, float]] = []
        network.eval()
        with torch.no_grad(), on_machine(Machine(self._runtime.device)):
            for number in range(CROPS):
                batch = draw(samples, drawing, number)
                outputs = network(torch.from_numpy(batch.images_BZYX).to(self._runtime.device)[:, None])
                told.append({name: float(term) for name, term in recipe.objective.loss(outputs, batch).items()})
        return {f"held_out_{name}": round(float(np.mean([t[name] for t in told])), 5) for name in told[0]}

    def _look(self, codes: Codes, segments: NDArray[np.uint64] | None) -> Look:
        held = self._volumes[0]
        middle = len(held.image) // 2
        return Look(
            held.image[middle],
            _certain(held.labels, middle),
            codes[:3, middle],
            held.truth[middle],
            None if segments is None else segments[middle],
            self._spec.code_table,
        )


@dataclass(frozen=True)
class _Held:
    """A held-out volume in memory."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    myelin: tuple[int, ...]

    @classmethod
    def of(cls, volume: Opened) -> _Held:
        whole = ((0, 0, 0), volume.image.shape)
        image = volume.image.read(*whole).astype(np.uint8)
        labels, truth = (part.read(*whole).astype(np.uint64) for part in (volume.labels, volume.truth))
        require_objects(truth, volume)
        return cls(image, labels, truth, volume.myelin)


@dataclass(frozen=True)
class _Cut:
    """A volume that was segmented: its scores against a truth, and its labels at a threshold."""

    points: Callable[[NDArray[np.uint64]], list[Point]]
    labels: Callable[[float], NDArray[np.uint64]]


def _watershed(found: Said, settings: Segmentation) -> _Cut:
    limits = {"low": settings.low, "high": settings.high, "size_vx": settings.size_vx}
    deep = {"agglomerate": {"floor": min(settings.thresholds)}, "relabel": {"threshold": max(settings.thresholds)}}
    done = segmented(found, run_with({"fragments": limits, **deep}))
    return _Cut(lambda truth_ZYX: done.scores(truth_ZYX, settings.thresholds), done.segments)


def _mutex(found: Said) -> _Cut:
    labels_ZYX = labels(found, config_of({**MUTEX, BACKGROUND: PUBLISHED_BACKGROUND}))
    return _Cut(lambda truth_ZYX: [scored(truth_ZYX, labels_ZYX)], lambda _: labels_ZYX)


def _best(points: Sequence[Sequence[Point]], voxels: Sequence[int]) -> dict[str, float]:
    """The measures at the threshold with the least VOI over all volumes; nothing if none was measured."""
    rows = []
    for at in zip(*points, strict=True):
        known = [(p, n) for p, n in zip(at, voxels, strict=True) if p.voi is not None and n]
        if known:
            mean = {name: _mean(((getattr(p, name) or 0.0), n) for p, n in known) for name in MEASURED}
            rows.append({**mean, "threshold": at[0].threshold})
    return min(rows, key=lambda row: (row["voi"], row["threshold"]), default={})


def _mean(weighed: Iterable[tuple[float, int]]) -> float:
    values, weights = zip(*weighed, strict=True)
    return float(np.average(values, weights=weights))


def _certain(labels_ZYX: NDArray[Any], section: int) -> Codes:
    """The nearest edges of a section as codes: 255 inside of an object, 0 elsewhere."""
    here = labels_ZYX[section]
    codes = np.zeros((3, *here.shape), np.uint8)
    inside = here > 0
    if section:
        codes[0] = (inside & (here == labels_ZYX[section - 1])) * 255
    codes[1, 1:] = (inside[1:] & (here[1:] == here[:-1])) * 255
    codes[2, :, 1:] = (inside[:, 1:] & (here[:, 1:] == here[:, :-1])) * 255
    return codes


def score_of(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """What decides which network is best, and its value."""
    measured = ((name, metrics[name]) for name in SCORE if metrics.get(name) is not None)
    return next(((name, value) for name, value in measured if math.isfinite(value)), None)
