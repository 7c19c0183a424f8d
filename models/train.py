"""The training loop: reproducible run to run on one CPU, and a resumed training ends like an uninterrupted one.

1. A batch is a function of the seed and the step (models.crops), drawn while the network computes (models.prefetch).
2. The objective's loss, backward, gradients clipped by their norm, a step of AMSGrad-Adam; the learning rate is a
   function of the step.
3. A running average of the weights is what is evaluated and kept.
4. The state is saved before an evaluation, with the step that was evaluated last: whatever ends the process, the next
   one goes on from there, and evaluates what is due.

On a GPU the trunk runs in bfloat16, arrays lie channels last, and kernels are chosen by their speed: bits may differ
from run to run there. How to judge a network is injected, and so is the reason to stop.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.augmentation.plain import Plain
from models.augmentation.recipe import Recipe as Augmentation
from models.crops import Batch, Drawing, Index, Sample, refuse_small
from models.engine import deterministic
from models.errors import WeightsInvalid
from models.objectives import AffinityObjective, Objective
from models.prefetch import Batches
from models.resume import has_state, load_state, save_state

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Everything here and the samples decide the weights."""

    patch: Index
    batch: int
    steps: int
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: int = 0  # steps over which the rate rises
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.0  # what the running average keeps of itself at every step; 0: no average
    seed: int = 0
    samples: str = ""  # names the network and the samples: a training is only resumed with the same ones
    objective: Objective = field(default_factory=AffinityObjective)
    crop: Index = (0, 0, 0)  # what the network cuts off either side
    augmentation: Augmentation = field(default_factory=Plain)

    @property
    def drawing(self) -> Drawing:
        """How its crops are drawn."""
        return Drawing(self.patch, self.batch, self.seed, self.augmentation, self.crop, self.objective.parts)

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

    evaluate: Callable[[nn.Module, int], Metrics] = lambda network, step: {}
    evaluate_every: int = 0  # steps; 0: only at the end
    on_start: Callable[[int], None] = lambda step: None  # the step that a state was taken up at
    on_progress: Callable[[int, Metrics], None] = lambda step, metrics: None
    report_every: int = 10
    state: Path | None = None  # folder of the resume state; an existing one is taken up
    save_every: int = 100
    stop: Callable[[], bool] = lambda: False  # asked after every step, and while a network is evaluated


@dataclass(frozen=True)
class Machine:
    """Where a network is trained: nothing here is part of the recipe."""

    device: str = "cpu"
    compile: bool = False  # the trunk, by torch.compile
    narrow: bool = False  # on a CPU, too, the trunk runs in bfloat16
    loaders: int = 1  # one: a thread; more: processes

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device != "cpu"

    @property
    def bfloat16(self) -> bool:
        """Whether the trunk runs in bfloat16."""
        return self.gpu or self.narrow


@dataclass(frozen=True)
class Trained:
    """The network to keep, its last metrics, the loss of every step of this call, and how far it is."""

    network: nn.Module
    metrics: Metrics
    losses: tuple[float, ...]
    step: int
    finished: bool


class Interrupted(Exception):
    """An evaluation was asked to stop."""


class Trainer:
    """Network, running average and optimiser at one step."""

    def __init__(self, network: nn.Module, recipe: Recipe, machine: Machine) -> None:
        layout = torch.channels_last_3d if machine.bfloat16 else torch.preserve_format
        self.network = network.to(machine.device, memory_format=layout)  # type: ignore[call-overload]
        self.recipe = recipe
        self.machine = machine
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.learning_rate, amsgrad=True)
        self.step = 0
        self.evaluated = 0  # the step of the last evaluation
        self._forward = _compiled(self.network) if machine.compile else self.network

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step; returns its loss and what it is made of."""
        images = torch.from_numpy(batch.images_BZYX).to(self.machine.device)[:, None]
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        with on_machine(self.machine):
            outputs = self._forward(images)
        terms = self.recipe.objective.loss(outputs, batch)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip))
        told = {name: float(term.detach()) for name, term in terms.items()}
        for what, value in (("loss", told["loss"]), ("gradient's norm", norm)):
            if not math.isfinite(value):  # before the step: the weights stay what they are
                raise FloatingPointError(f"the {what} of step {self.step + 1} is {value}")
        self.optimiser.step()
        self._average()
        self.step += 1
        return told

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average forgets faster, or the first random weights would linger.
        keep = min(self.recipe.average, (self.step + 1) / (self.step + 10)) if self.recipe.average else 0.0
        for kept, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(current, 1.0 - keep)
        for kept, current in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            kept.copy_(current)  # batch norm's statistics are averages already

    # ---- resume state ----------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, as tensors."""
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        tensors |= {f"averaged.{name}": t for name, t in self.averaged.state_dict().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": t for name, t in moments.items()}
        tensors["step"] = torch.tensor(self.step, dtype=torch.int64)
        tensors["evaluated"] = torch.tensor(self.evaluated, dtype=torch.int64)
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
        self.step, self.evaluated = int(tensors["step"]), int(tensors["evaluated"])


def _compiled(network: Any) -> Callable[[Tensor], dict[str, Tensor]]:
    """The network with its trunk compiled; heads are quick, and have shapes of their own."""
    trunk: Callable[[Tensor], Tensor] = torch.compile(network.trunk, dynamic=False)
    return lambda images_BCZYX: network.heads(trunk(images_BCZYX))


def on_machine(machine: Machine) -> torch.autocast:
    """How a network is called: its trunk may run in bfloat16 (heads and losses stay in float32)."""
    return torch.autocast(torch.device(machine.device).type, torch.bfloat16, enabled=machine.bfloat16)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ---- the loop ------------------------------------------------------------------------------------------------------
class _Loop:
    """One call of `train`: what happens besides the steps."""

    def __init__(self, trainer: Trainer, hooks: Hooks) -> None:
        self.trainer, self.hooks = trainer, hooks
        self.losses: list[float] = []
        self.metrics: Metrics = {}
        self._terms: list[dict[str, float]] = []
        self._began = time.monotonic()

    @property
    def last(self) -> bool:
        """Whether all steps are done."""
        return self.trainer.step >= self.trainer.recipe.steps

    def after_step(self, terms: dict[str, float]) -> None:
        """Save, evaluate and report when it is time."""
        self.losses.append(terms["loss"])
        self._terms.append(terms)
        step = self.trainer.step
        if self.evaluation_due:
            self.save()
            self.evaluate()
            return
        if _due(step, self.hooks.report_every):
            self._report({})
        if _due(step, self.hooks.save_every):
            self.save()

    @property
    def evaluation_due(self) -> bool:
        """Whether this step is to be evaluated, and was not."""
        step = self.trainer.step
        return step > self.trainer.evaluated and (self.last or _due(step, self.hooks.evaluate_every))

    def save(self) -> None:
        """Keep the state."""
        if self.hooks.state is not None:
            save_state(self.hooks.state, self.trainer.state())

    def evaluate(self) -> None:
        """Judge the running average; Interrupted between two of its patches if there is a reason to stop."""

        def ask(*_: Any) -> None:
            if self.hooks.stop():
                raise Interrupted

        began = time.monotonic()
        step, watch = self.trainer.step, self.trainer.averaged.register_forward_pre_hook(ask)
        try:
            self.metrics = self.hooks.evaluate(self.trainer.averaged, step)
        finally:
            watch.remove()
        self.trainer.evaluated = step
        seconds = time.monotonic() - began
        self._began += seconds  # no part of the steps' pace
        self._report({**self.metrics, "evaluation_seconds": seconds})

    def _report(self, metrics: Metrics) -> None:
        count = max(1, len(self._terms))
        means = {name: sum(terms[name] for terms in self._terms) / count for name in (self._terms or [{}])[0]}
        seconds = time.monotonic() - self._began
        pace = {"seconds_per_step": seconds / count} if self._terms else {}
        rate = {"rate": self.trainer.recipe.rate(self.trainer.step - 1)}
        self.hooks.on_progress(self.trainer.step, {**means, **metrics, **rate, **pace})
        self._terms, self._began = [], time.monotonic()


def train(
    network: nn.Module, samples: Sequence[Sample], recipe: Recipe, *, hooks: Hooks, machine: Machine | None = None
) -> Trained:
    """Train a network in place, for all steps of a recipe or until there is a reason to stop."""
    machine = machine or Machine()
    refuse_small(samples, recipe.drawing)
    trainer = Trainer(network, recipe, machine)
    if hooks.state is not None and has_state(hooks.state):
        trainer.restore(load_state(hooks.state), str(hooks.state))
    hooks.on_start(trainer.step)
    loop = _Loop(trainer, hooks)
    first, last = trainer.step, recipe.steps
    with (
        _kernels(machine),
        Batches(samples, recipe.drawing, first=first, last=last, loaders=machine.loaders) as batches,
    ):
        try:
            if first and (loop.last or loop.evaluation_due):
                loop.evaluate()
            while not loop.last and not hooks.stop():
                loop.after_step(trainer.advance(batches.take()))
        except Interrupted:
            loop.save()
            return Trained(trainer.averaged, loop.metrics, tuple(loop.losses), trainer.step, finished=False)
        loop.save()
    return Trained(trainer.averaged, loop.metrics, tuple(loop.losses), trainer.step, finished=loop.last)


@contextmanager
def _kernels(machine: Machine) -> Iterator[None]:
    """The same bits every time on a CPU; whatever is fastest on a GPU."""
    if not machine.gpu:
        settings: Any = torch.utils.deterministic
        fills = settings.fill_uninitialized_memory
        settings.fill_uninitialized_memory = False  # it only finds faults, and takes a sixth of a step
        try:
            with deterministic():
                yield
        finally:
            settings.fill_uninitialized_memory = fills
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        yield


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
