"""Post-processing that suits weights: tuned on the held-out volumes of their training, stored with them as recipes.

1. The weights are applied once to every held-out volume.
2. Every recipe of `SEARCHES` has settings with a few values each. One setting after the other takes the value with the
   least VOI while the others stay; rounds are made until nothing changes, at most `ROUNDS`.
3. A recipe with a merge tree is judged at all `THRESHOLDS`, which cost next to nothing, and at last around the best of
   them in steps of `FINE_STEP`. The mutex watershed has no threshold.
4. VOI is the mean over the volumes by their labelled voxels.

What comes out are sections of a run's config (`pipeline.recipes` takes them up), and what they scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.ops.sweep import Point
from pipeline.training.apply import MEASURED, Held, run_with, scores

ROUNDS = 2
FINE_STEP, REACH = 0.01, 4
THRESHOLDS = (0.04, 0.07, *(round(0.05 * n, 2) for n in range(2, 20)), 0.97, 0.98, 0.99, 0.995)
FLOOR = 0.03  # of the merge trees: rebalanced losses make affinities that lean to 0
DEEP = {"agglomerate.floor": FLOOR}
MAX_FIXED = {"agglomerate.score": "max", **DEEP}
QUANTILE_FIXED = {"agglomerate.score": "quantile", "agglomerate.quantile": 50, **DEEP}
BACKGROUND = "predict.background_threshold"
THRESHOLD = "relabel.threshold"

Settings = dict[str, Any]  # "section.key" to value
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """A recipe: what is fixed, and the settings with the values that are tried; the first ones are the start."""

    name: str
    fixed: Mapping[str, Any]
    knobs: Mapping[str, Sequence[Any]]

    @property
    def start(self) -> Settings:
        """Where the search begins."""
        return {**self.fixed, **{key: values[0] for key, values in self.knobs.items()}}


WATERSHED: Mapping[str, Sequence[Any]] = {
    "fragments.high": (0.999, 0.99, 0.97, 0.9),
    "fragments.low": (0.02, 0.0005, 0.005, 0.1),  # where every voxel is labelled, few may be left out
    "fragments.size_vx": (0, 150, 400, 1000),
    "fragments.thresholds": ("absolute", "percentile"),
}
SEEDED = {**QUANTILE_FIXED, "fragments.method": "seeded", "seeded.flat": True}
MUTEX = {"fragments.method": "mutex_watershed", "mutex_watershed.mode": "exact", "agglomerate.score": "none"}
KNOWN_BACKGROUND: Mapping[str, Sequence[Any]] = {BACKGROUND: (0.6, 0.3, 0.4, 0.5, 0.7, 0.8)}

OF_AFFINITIES = (
    Search("mean", DEEP, WATERSHED),
    Search("max", MAX_FIXED, WATERSHED),
    Search("quantile", QUANTILE_FIXED, WATERSHED),
    Search("seeded_quantile", SEEDED, {"seeded.threshold": (0.5, 0.3, 0.7)}),
)
OF_EMBEDDINGS = (
    Search("mutex_watershed", MUTEX, {**KNOWN_BACKGROUND, "mutex_watershed.low": (0.02, 0.1)}),
    Search("mean", DEEP, {**KNOWN_BACKGROUND, **WATERSHED}),
)


@dataclass
class Tuner:
    """Scores of settings on all volumes, each computed once."""

    volumes: Sequence[Held]
    tell: Tell = lambda _: None
    _known: dict[Any, list[list[Point]]] = field(default_factory=dict)

    def recipes(self, searches: Sequence[Search]) -> dict[str, dict[str, Any]]:
        """What every search finds, the best one first."""
        made = {search.name: self.tuned(search) for search in searches}
        return dict(sorted(made.items(), key=lambda item: item[1]["tuned"]["voi"]))

    def tuned(self, search: Search) -> dict[str, Any]:
        """The best settings that the search finds, as sections, with their scores."""
        best = search.start
        for _ in range(ROUNDS):
            before = dict(best)
            for key, values in search.knobs.items():
                best[key] = min(values, key=lambda value, key=key: self._least({**best, key: value})[0])  # type: ignore[misc]
            if best == before:
                break
        thresholds: Sequence[float] = THRESHOLDS
        if len(self._points(best)[0]) > 1:
            thresholds = _around(THRESHOLDS[self._least(best)[1]])
        voi, at = self._least(best, thresholds)
        found = self._points(best, thresholds)
        if len(found[0]) > 1:
            best[THRESHOLD] = thresholds[at]
        self.tell(f"{search.name}: VOI {voi:.4f} with {_listed(best)}")
        return {**sections(best), "tuned": self._told([points[at] for points in found])}

    def _least(self, settings: Settings, thresholds: Sequence[float] = THRESHOLDS) -> tuple[float, int]:
        """The least VOI at any threshold, and at which one."""
        found = self._points(settings, thresholds)
        mean = [self._mean([points[n] for points in found], "voi") for n in range(len(found[0]))]
        at = int(np.argmin(mean))
        return mean[at], at

    def _points(self, settings: Settings, thresholds: Sequence[float] = THRESHOLDS) -> list[list[Point]]:
        """For every volume the scores at all thresholds."""
        key = (tuple(sorted(settings.items())), tuple(thresholds))
        if key not in self._known:
            config = config_of(settings)
            self._known[key] = [scores(held, config, thresholds) for held in self.volumes]
            self.tell(f"  {self._least(settings, thresholds)[0]:.4f} with {_listed(settings)}")
        return self._known[key]

    def _mean(self, points: Sequence[Point], name: str) -> float:
        weights = [held.labelled for held in self.volumes]
        return float(np.average([getattr(point, name) for point in points], weights=weights))

    def _told(self, points: Sequence[Point]) -> dict[str, Any]:
        """The scores, over all volumes and for each."""
        means = {name: round(self._mean(points, name), 4) for name in MEASURED}
        each = [
            {"volume": held.name, **{name: round(getattr(point, name), 4) for name in MEASURED}}
            for held, point in zip(self.volumes, points, strict=True)
        ]
        return {**means, "volumes": each}


def sections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Settings as the sections of a config."""
    made: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        made.setdefault(section, {})[name] = value
    return made


def config_of(settings: Settings) -> RunConfig:
    """The run that settings describe, on no volume in particular."""
    return run_with(sections(settings))


def _around(threshold: float) -> list[float]:
    """Thresholds near one, that one among them."""
    steps = (round(threshold + FINE_STEP * n, 3) for n in range(-REACH, REACH + 1))
    return [t for t in steps if THRESHOLDS[0] <= t < 1]


def _listed(settings: Settings) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
