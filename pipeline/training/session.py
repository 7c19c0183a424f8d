"""A training from its TOML file to its weights.

One config gives one network: the same bytes every time on one CPU. An interrupted training goes on where its last
state was saved, and ends like one that was not interrupted. The folder holds `state/` (to go on from), the weights
(training/keep.py), `log.jsonl`, `training.html`, and `fence/`, whose lock keeps a second process out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import WeightsInvalid
from pipeline import durable
from pipeline.augmentation import recipe_of
from pipeline.errors import BadWeights, ConfigError
from pipeline.training.apply import Runtime
from pipeline.training.changes import changed
from pipeline.training.ending import Ending
from pipeline.training.judge import Judge
from pipeline.training.keep import Keeper
from pipeline.training.log import Log
from pipeline.training.page import REFRESH_S, Standing, seen_before, seen_by, training_page
from pipeline.training.settings import TrainConfig, load, located
from pipeline.training.volumes import first_sample, held_out, require_apart, require_room, samples_of
from workers.fence import Fence

if TYPE_CHECKING:
    from torch import nn

    from models.train import Trained

OnProgress = Callable[[int, int, Mapping[str, float]], None]


def train_from_config(
    path: Path,
    out: Path | None,
    *,
    on_progress: OnProgress = lambda s, n, m: None,
    minutes: float | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train what a TOML file describes; everything goes to `out` (default: runs/NAME)."""
    config = load(path)
    ending = Ending(minutes)
    folder = out or Path("runs") / config.name
    try:
        session = _Session(config, path.parent, folder, on_progress, device or config.training.device)
        with ending.watching():
            return {**session.run(ending), "exit_code": ending.exit_code}
    except WeightsInvalid as error:
        way_out = "name another folder with --out, or remove this one to start again"
        what = error.what + (changed(config, folder) if "another recipe" in error.what else "")
        raise BadWeights(what, where=error.where or str(folder), way_out=way_out) from None
    except FloatingPointError as error:
        raise ConfigError(
            f"the training diverged: {error}",
            where=f"{path}, training.learning_rate",
            way_out="lower training.learning_rate, or raise training.warm_up, and start again with another --out",
        ) from None


class _Session:
    """Everything that a training is made of."""

    def __init__(self, config: TrainConfig, data: Path, folder: Path, on_progress: OnProgress, device: str) -> None:
        import torch

        from models.networks import build

        self.began = time.monotonic()
        self.config, self.folder, self.on_progress = config, folder, on_progress
        self.device = device_of(device)
        torch.set_num_threads(config.training.threads)
        torch.manual_seed(config.training.seed)
        spec = config.network.spec()
        self.network = build(spec.architecture)
        self.parameters = sum(p.numel() for p in self.network.parameters())
        begun = _start_from(self.network, config.training.start_from, data)
        self.opened = samples_of(config, data)
        require_room(self.opened, config.recipe().drawing.reach)
        held = held_out(config, data)
        require_apart(self.opened, held)
        if config.network.predicts == "embedding":
            require_room(held, config.training.patch, "the validation, whose loss is that of crops")
        runtime = Runtime(self.device, config.training.threads, config.training.precision)
        self.judge = Judge(config, spec, held, runtime)
        prints, judged = (tuple(p for volume in part for p in volume.fingerprints) for part in (self.opened, held))
        came = {"fingerprints": list(prints), **({"started_from": begun} if begun else {})}
        self.keeper = Keeper(config, folder, _machine(self.device), came=came, judged=judged)
        self.log = Log(folder / "log.jsonl")
        self.recipe = config.recipe(((begun["sha256"],) if begun else ()) + prints)
        self.seen = ""  # the pictures of the last evaluation
        self.written = -math.inf  # when the page was, by the clock

    def run(self, ending: Ending) -> dict[str, Any]:
        """Train as the only process on this folder; returns what the command tells."""
        fence = Fence(self.folder / "fence")
        fence.acquire(patience_s=0.0)
        try:
            return self._run(ending)
        finally:
            fence.release()

    def _run(self, ending: Ending) -> dict[str, Any]:
        from models.train import Hooks, Machine, train

        settings = self.config.training
        hooks = Hooks(
            evaluate=self._evaluate,
            evaluate_every=settings.evaluate_every,
            on_start=self._start,
            on_progress=self._progress,
            report_every=settings.report_every,
            state=self.folder / "state",
            save_every=settings.save_every,
            stop=ending,
        )
        machine = Machine(self.device, settings.compile, settings.precision == "bfloat16", settings.loaders)
        samples = [volume.sample for volume in self.opened]
        trained = train(self.network, samples, self.recipe, hooks=hooks, machine=machine)
        self._write_page("done" if trained.finished else "stopped")
        return self._told(trained)

    def _told(self, trained: Trained) -> dict[str, Any]:
        kept = self.keeper.kept
        return {
            "weights": str(self.keeper.weights) if kept else None,
            "sha256": kept.sha256 if kept else None,
            "parameters": self.parameters,
            "step": trained.step,
            "steps": self.config.training.steps,
            "finished": trained.finished,
            "metrics": dict(kept.training["metrics"]) if kept else {},
            "seconds": round(time.monotonic() - self.began, 1),
        }

    # ---- along the way ---------------------------------------------------------------------------------------------
    def _start(self, step: int) -> None:
        self.log.begin(step)
        self.keeper.begin(step)
        page = self.folder / "training.html"
        if step and page.exists():
            self.seen = seen_before(page.read_text(encoding="utf-8", errors="replace"))
        self._write_page("running")

    def _evaluate(self, network: nn.Module, step: int) -> Mapping[str, float]:
        from models.checkpoint import as_kept

        kept = as_kept(network)
        metrics = self.judge(kept)
        self.keeper.keep(kept, step, metrics, self.log.seconds)
        if self.judge.look:
            self.seen = seen_by(self.judge.look, step)
        return metrics

    def _progress(self, step: int, metrics: Mapping[str, float]) -> None:
        self.log.add(step, {name: float(f"{value:.6g}") for name, value in metrics.items()})
        self.on_progress(step, self.config.training.steps, metrics)
        if any(name.startswith("held_out") for name in metrics) or time.monotonic() > self.written + REFRESH_S:
            self._write_page("running")

    def _write_page(self, state: str) -> None:
        training, network = self.config.training, self.config.network
        about = {
            "network": f"{network.architecture}, widths {list(network.widths)}, {self.parameters:,} parameters",
            "predicts": network.predicts,
            "voxels": " x ".join(f"{n:g}" for n in network.voxel_size_nm) + " nm",
            "patch": f"{training.batch} of {' x '.join(map(str, training.patch))}",
            "augmentation": self.config.augmentation.recipe,
            "learning rate": f"{training.learning_rate:g}, {training.schedule}",
            "device": _machine(self.device),
            "weights": str(self.keeper.weights),
        }
        standing = Standing(self.config.name, state, training.steps, about, self.keeper.best, training.evaluate_every)
        durable.replace_file(self.folder / "training.html", training_page(standing, self.log, self.seen).encode())
        self.written = time.monotonic()


def _start_from(network: nn.Module, weights: str | None, data: Path) -> dict[str, Any]:
    """Take over other weights: a path, or the name of shipped ones; returns which, and how much of them fits."""
    from models.checkpoint import take_over

    if weights is None:
        return {}
    is_path = "/" in weights or "$" in weights or weights.endswith((".safetensors", ".json"))
    try:
        return {"weights": weights, **asdict(take_over(network, located(weights, data) if is_path else weights))}
    except WeightsInvalid as error:
        raise BadWeights(
            error.what,
            where=f"{error.where}, by training.start_from = {weights!r}",
            way_out="name weights of a network of the same architecture and widths, with the spec beside them",
        ) from None


def device_of(wanted: str) -> str:
    """Where networks run; a ConfigError if it has to be a GPU and there is none."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "this machine has no GPU that PyTorch can use",
            where="training.device",
            way_out='take "auto" or "cpu", or install a PyTorch with CUDA',
        )
    return wanted


def _machine(device: str) -> str:
    import torch

    threads = torch.get_num_threads()
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def show_augmentation(path: Path, picture: Path) -> None:
    """Draw what a training does to its crops."""
    from pipeline.augmentation_sheet import columns, draw_sheet, extent, shown, write_sheet

    config = load(path)
    changes, patch, voxel_size_nm = config.augmentation, config.training.patch, config.network.voxel_size_nm
    recipe = recipe_of(changes, voxel_size_nm)
    needed = extent(recipe, patch)
    volume = first_sample(config, path.parent)
    require_room([volume], needed)
    z, y, x = ((n - m) // 2 for n, m in zip(volume.image.shape, needed, strict=True))
    end = (z + needed[0], y + needed[1], x + needed[2])
    crop = (
        volume.image.read((z, y, x), end).astype(np.float32) / np.float32(255),
        volume.labels.read((z, y, x), end).astype(np.uint64),
    )
    size, voxel = (" x ".join(f"{length:g}" for length in lengths) for lengths in (patch, voxel_size_nm))
    title = f'{config.name}: augmentation "{changes.recipe}", {size} voxels of {voxel} nm'
    first = z + shown(patch[0]).start
    write_sheet(picture, draw_sheet(columns(crop, recipe, patch, config.training.seed), title, first))
