"""The training loop: reproducible run to run on one machine, and a resumed training ends like an uninterrupted one.

1. Step s draws every crop of its batch, and every change of it, from a generator seeded by (seed, s, number in the
   batch): no random state has to be kept. A crop is as much larger than the patch as its changes need.
2. Affinity loss, backward, gradients clipped by their norm, a step of AMSGrad-Adam; the learning rate is a function of
   the step.
3. A running average of the weights is what is evaluated and kept.

Volumes come as sources that can be read piece by piece; how to judge a network is injected.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.augmentation.plain import Plain
from models.augmentation.recipe import Recipe as Augmentation
from models.augmentation.recipe import apply, margin, prepare
from models.checkpoint import load_state, save_state
from models.engine import deterministic
from models.errors import WeightsInvalid
from models.losses import Rebalance, affinity_loss, affinity_targets

Index = tuple[int, int, int]
Metrics = Mapping[str, float]


class Source(Protocol):
    """A volume that is read piece by piece."""

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""

    def read(self, begin: Index, end: Index) -> NDArray[Any]:
        """The voxels of [begin, end)."""


@dataclass(frozen=True)
class Sample:
    """An image and its labels, voxel by voxel."""

    image: Source
    labels: Source


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Everything here and the samples decide the weights."""

    patch: Index
    batch: int
    steps: int
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: int = 0  # steps over which the rate rises
    rebalance: Rebalance = "lee"
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.0  # what the running average keeps of itself at every step; 0: no average
    seed: int = 0
    samples: str = ""  # names the network and the samples: a training is only resumed with the same ones
    augmentation: Augmentation = field(default_factory=Plain)

    @property
    def reach(self) -> Index:
        """The largest crop that a step may read."""
        z, y, x = (p + m for p, m in zip(self.patch, margin(self.augmentation, self.patch), strict=True))
        return (z, y, x)

    @property
    def digest(self) -> bytes:
        """A hash of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rising = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return self.learning_rate * rising * falling


@dataclass(frozen=True)
class Hooks:
    """What the caller wants to do along the way."""

    evaluate: Callable[[nn.Module], Metrics] = lambda _: {}
    evaluate_every: int = 0  # steps; 0: only at the end
    on_progress: Callable[[int, Metrics], None] = lambda step, metrics: None
    report_every: int = 10
    state: Path | None = None  # where the resume state is kept; an existing one is taken up
    save_every: int = 100


@dataclass(frozen=True)
class Trained:
    """The network to keep, the metrics of its last evaluation, and the loss of every step of this call."""

    network: nn.Module
    metrics: Metrics
    losses: tuple[float, ...]


class Trainer:
    """Network, running average and optimiser at one step."""

    def __init__(self, network: nn.Module, recipe: Recipe, offsets: Sequence[Index]) -> None:
        self.network = network
        self.recipe = recipe
        self.offsets = tuple(offsets)
        self.averaged = copy.deepcopy(network).eval()
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, amsgrad=True)
        self.step = 0

    def advance(self, samples: Sequence[Sample]) -> float:
        """One step; returns its loss."""
        device = next(self.network.parameters()).device
        images, labels = (part.to(device) for part in draw(samples, self.recipe, self.step))
        targets, valid = affinity_targets(labels, self.offsets)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = affinity_loss(self.network(images)["affinity"], targets, valid, rebalance=self.recipe.rebalance)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average forgets faster, or the first random weights would linger.
        keep = min(self.recipe.average, (self.step + 1) / (self.step + 10)) if self.recipe.average else 0.0
        for kept, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(current, 1.0 - keep)

    # ---- resume state ----------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, as tensors."""
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        tensors |= {f"averaged.{name}": t for name, t in self.averaged.state_dict().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": t for name, t in moments.items()}
        tensors["step"] = torch.tensor(self.step, dtype=torch.int64)
        tensors["recipe"] = torch.frombuffer(bytearray(self.recipe.digest), dtype=torch.uint8)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Go on from a state; refused if it belongs to another recipe."""
        found = tensors.get("recipe")
        if found is None or bytes(found.tolist()) != self.recipe.digest:
            raise WeightsInvalid("the training that was begun here followed another recipe", where=where)
        self.network.load_state_dict(_under("network.", tensors))
        self.averaged.load_state_dict(_under("averaged.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimiser.", tensors).items():
            number, moment = name.split(".")
            moments.setdefault(int(number), {})[moment] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.step = int(tensors["step"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train(
    network: nn.Module, samples: Sequence[Sample], recipe: Recipe, *, offsets: Sequence[Index], hooks: Hooks
) -> Trained:
    """Train a network in place for all steps of a recipe; what to keep is in the result."""
    _refuse_small(samples, recipe)
    trainer = Trainer(network, recipe, offsets)
    if hooks.state is not None and hooks.state.exists():
        trainer.restore(load_state(hooks.state), str(hooks.state))
    losses: list[float] = []
    metrics: Metrics = {}
    on_cpu = next(network.parameters()).device.type == "cpu"
    with deterministic() if on_cpu else nullcontext():
        while trainer.step < recipe.steps:
            losses.append(trainer.advance(samples))
            step, last = trainer.step, trainer.step == recipe.steps
            if last or _due(step, hooks.evaluate_every):
                metrics = hooks.evaluate(trainer.averaged)
                hooks.on_progress(step, {"loss": _recent(losses, hooks.report_every), **metrics})
            elif _due(step, hooks.report_every):
                hooks.on_progress(step, {"loss": _recent(losses, hooks.report_every)})
            if hooks.state is not None and (last or _due(step, hooks.save_every)):
                save_state(hooks.state, trainer.state())
    return Trained(trainer.averaged, metrics or hooks.evaluate(trainer.averaged), tuple(losses))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _recent(losses: Sequence[float], count: int) -> float:
    recent = losses[-max(1, count) :]
    return sum(recent) / len(recent)


def draw(samples: Sequence[Sample], recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step: images BCZYX in [0, 1] and labels BZYX, a function of the seed and the step."""
    images, labels = [], []
    for number in range(recipe.batch):
        rng = np.random.default_rng((recipe.seed, step, number))
        sample = samples[int(rng.integers(len(samples)))]
        geometry = prepare(recipe.augmentation, recipe.patch, rng)
        begin = _corner(sample.image.shape, geometry.source, rng)
        z, y, x = (b + n for b, n in zip(begin, geometry.source, strict=True))
        image = sample.image.read(begin, (z, y, x)).astype(np.float32) / np.float32(255)
        found = sample.labels.read(begin, (z, y, x))
        changed, truth = apply(image, found, recipe.augmentation, geometry, rng)
        images.append(changed)
        labels.append(truth.astype(np.int64))
    return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels))


def _corner(shape: Index, extent: Index, rng: np.random.Generator) -> Index:
    z, y, x = (int(rng.integers(n - e + 1)) for n, e in zip(shape, extent, strict=True))
    return (z, y, x)


def _refuse_small(samples: Sequence[Sample], recipe: Recipe) -> None:
    """At once, and not at the step that draws the largest crop."""
    for sample in samples:
        shape = sample.image.shape
        if any(n < r for n, r in zip(shape, recipe.reach, strict=True)):
            grown = f", which its augmentation enlarges to {recipe.reach}" if recipe.reach != recipe.patch else ""
            raise ValueError(f"a sample of shape {shape} is smaller than the patch {recipe.patch}{grown}")
