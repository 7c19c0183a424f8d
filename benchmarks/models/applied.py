"""What the engine says about a volume, computed once: answers are kept in a folder, by what decides them.

A file's name is a hash of the weights' identity, the manner, the class of device and the image itself: a changed
volume or other weights never find an old answer. The folder must lie outside of the project: volumes are private.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.models.plain import plain_affinities
from models.checkpoint import load_network
from models.engine import device_class, predict_volume
from models.levels import HERE, Manner
from models.spec import Index, WeightsSpec

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    """Codes, or float32 affinities of 0 to 1 (then without a table); the background's likewise, if it is known."""

    values_CZYX: NDArray[Any]
    background_ZYX: NDArray[Any] | None
    offsets: tuple[Index, ...]
    code_table: NDArray[np.int64] | None
    seconds: float  # that it took when it was computed

    def shares(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values as affinities of 0 to 1."""
        if self.code_table is None:
            return values
        return (self.code_table.astype(np.float32) / np.float32(self.code_table[-1]))[values]


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
    def embeds(self) -> bool:
        """Whether it says vectors."""
        return "embedding" in self.spec.network.heads

    @property
    def called(self) -> str:
        """Its name in tables."""
        told = [Path(self.name).name.split(".")[0]]
        told += [self.manner.augment] if self.manner.augment != "none" else []
        told += [self.manner.precision] if self.manner.precision != "float32" else []
        return ", ".join(told)

    def codes(self, image_ZYX: NDArray[np.uint8]) -> Said:
        """The engine's codes of a volume."""
        return self._kept(image_ZYX, "codes", self._codes)

    def floats(self, image_ZYX: NDArray[np.uint8]) -> Said:
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

    def _kept(self, image_ZYX: NDArray[np.uint8], kind: str, make: Any) -> Said:
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
        return Said(found["values"], found.get("background"), offsets, table, float(found["seconds"]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which weights, and how they are applied."""
    parser.add_argument("weights", nargs="+", help="shipped names, or paths")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for what was computed; outside of the project"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--augment", choices=("none", "flips16"), default="none")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--far", action="store_true", help="of affinity nets all edges, for the mutex watershed")


def weights_of(options: Any) -> list[Weights]:
    """The weights that were asked for."""
    cache = options.cache.resolve()
    if cache == ROOT or ROOT in cache.parents:
        raise SystemExit(f"{cache} lies in the project: what is computed of private volumes must lie elsewhere")
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for name in options.weights:
        network, spec = load_network(name)
        offsets = "all" if options.far or "embedding" in spec.network.heads else "nearest"
        manner = Manner(offsets, options.augment, options.precision)
        found.append(Weights(name, network, spec, manner, options.device, options.batch, options.threads, cache))
    return found
