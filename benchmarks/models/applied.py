"""What the engine says about a volume, computed once: answers are kept in a folder, by what decides them.

A file's name is a hash of the weights' identity, the manner, the class of device and the image itself: a changed
volume or other weights never find an old answer. The folder must lie outside of the project: volumes are private.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.models import held_out
from benchmarks.models.held_out import Volume, fitting
from benchmarks.models.plain import plain_affinities
from models.checkpoint import load_network
from models.engine import device_class, predict_volume
from models.levels import HERE, Manner
from models.spec import Index, WeightsSpec
from pipeline.config import RunConfig
from pipeline.training.apply import Said, embeds, run_with

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What the engine says, and the seconds that it took when it was computed."""

    said: Said
    seconds: float


@dataclass(frozen=True)
class Weights:
    """A network and how it is applied."""

    name: str
    network: nn.Module
    spec: WeightsSpec
    manner: Manner
    device: str
    batch: int
    threads: int
    cache: Path

    @property
    def recipes(self) -> Mapping[str, RunConfig]:
        """The recipes that are stored with it, as runs on no volume in particular."""
        found = {name: run_with(recipe) for name, recipe in (self.spec.recipes or {}).items()}
        if not found:
            raise SystemExit(f"{self.name} has no recipes: neurotile train CONFIG --tune makes them")
        return found

    @property
    def called(self) -> str:
        """Its name in tables."""
        told = [Path(self.name).name.split(".")[0]]
        told += [self.manner.augment] if self.manner.augment != "none" else []
        told += [self.manner.precision] if self.manner.precision != "float32" else []
        return ", ".join(told)

    def codes(self, image_ZYX: NDArray[np.uint8]) -> Answer:
        """The engine's codes of a volume."""
        return self._kept(image_ZYX, "codes", self._codes)

    def floats(self, image_ZYX: NDArray[np.uint8]) -> Answer:
        """The same without any rounding."""
        return self._kept(image_ZYX, "floats", self._floats)

    def _codes(self, image_ZYX: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        how = {"device": self.device, "batch": self.batch, "threads": self.threads, "manner": self.manner}
        answer = predict_volume(self.network, self.spec, image_ZYX, **how)  # type: ignore[arg-type]
        return answer.codes_CZYX, answer.background_ZYX

    def _floats(self, image_ZYX: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        if self.manner.augment != "none" or self.manner.precision != "float32":
            raise SystemExit("floats are those of one orientation in float32: leave --augment and --precision out")
        torch.set_num_threads(self.threads)
        offsets, known = self.manner.edges(self.spec), self.spec.has_background
        network = self.network.to(self.device).eval()
        said = plain_affinities(network, self.spec, image_ZYX, (*offsets, HERE) if known else offsets, self.device)
        return said[: len(offsets)], said[len(offsets)] if known else None

    def _kept(self, image_ZYX: NDArray[np.uint8], kind: str, make: Any) -> Answer:
        """From the cache, or made and put there."""
        content = [self.spec.identity, asdict(self.manner), device_class(self.device), self.threads, kind]
        name = hashlib.sha256(json.dumps([content, image_ZYX.shape], sort_keys=True).encode())
        name.update(np.ascontiguousarray(image_ZYX).tobytes())
        path = self.cache / f"{kind}-{name.hexdigest()[:16]}.npz"
        if not path.exists():
            began = time.perf_counter()
            values, background = make(image_ZYX)
            arrays = {"values": values, "seconds": np.float64(time.perf_counter() - began)}
            if background is not None:
                arrays["background"] = background
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **arrays)
            partial.replace(path)
        with np.load(path) as stored:
            found = {key: stored[key] for key in stored.files}
        table = np.asarray(self.spec.code_table, np.int64) if kind == "codes" else None
        offsets = self.manner.edges(self.spec)
        said = Said(found["values"], found.get("background"), offsets, table, self.spec.voxel_size_nm)
        return Answer(said, float(found["seconds"]))


def options_of(description: str | None) -> Any:
    """Which weights, how they are applied, and to which volumes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("weights", nargs="+", help="shipped names, or paths")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for what was computed; outside of the project"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--augment", choices=("none", "flips16"), default="none")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--recipes", nargs="+", help="only these of the weights' recipes")
    held_out.add_arguments(parser)
    return parser.parse_args()


def weights_of(options: Any) -> list[Weights]:
    """The weights that were asked for."""
    cache = options.cache.resolve()
    if cache == ROOT or ROOT in cache.parents:
        raise SystemExit(f"{cache} lies in the project: what is computed of private volumes must lie elsewhere")
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for name in options.weights:
        network, spec = load_network(name)
        offsets = "all" if embeds(spec) else "nearest"
        manner = Manner(offsets, options.augment, options.precision)
        found.append(Weights(name, network, spec, manner, options.device, options.batch, options.threads, cache))
    return found


def ways(weights: Weights, options: Any) -> list[tuple[str, RunConfig]]:
    """The recipes that were asked for, or all, the best first."""
    return [way for way in weights.recipes.items() if not options.recipes or way[0] in options.recipes]


def cases(
    every: list[Weights], volumes: list[Volume], options: Any
) -> Iterator[tuple[Weights, tuple[str, RunConfig], Volume, Index]]:
    """All weights with all their recipes on all volumes that fit."""
    for weights in every:
        for way in ways(weights, options):
            for volume, factor in fitting(weights.spec, volumes):
                yield weights, way, volume, factor
