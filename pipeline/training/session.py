"""A training from its TOML file to its weights.

One config gives one network: the same bytes every time on one CPU. An interrupted training goes on where its last
state was saved, and ends like one that was not interrupted. The folder holds `state/` (to go on from), the weights
(training/keep.py), `log.jsonl` and `training.html`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import WeightsInvalid
from pipeline import durable
from pipeline.augmentation import recipe_of
from pipeline.errors import BadWeights, ConfigError
from pipeline.training.ending import Ending
from pipeline.training.judge import Judge, Runtime
from pipeline.training.keep import Keeper
from pipeline.training.log import Log
from pipeline.training.page import Standing, training_page
from pipeline.training.settings import TrainConfig, load, located
from pipeline.training.volumes import held_out, require_room, samples_of

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
        raise BadWeights(
            error.what, where=error.where or str(path), way_out="remove the folder to start this training again"
        ) from None
    except FloatingPointError as error:
        raise ConfigError(
            f"the training diverged: {error}",
            where=f"{path}, training.learning_rate",
            way_out="lower training.learning_rate, or raise training.warm_up, and start again in another folder",
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
        begun = self._start_from(config.training.start_from, data)
        self.recipe = config.recipe()
        self.opened = samples_of(config, data)
        require_room(self.opened, self.recipe.drawing.reach)
        self.judge = Judge(config, spec, held_out(config, data), Runtime(self.device, config.training.threads))
        self.keeper = Keeper(config, folder, _machine(self.device))
        self.log = Log(folder / "log.jsonl")
        prints = tuple(print_ for volume in self.opened for print_ in volume.fingerprints)
        self.recipe = config.recipe(begun + prints)

    def _start_from(self, weights: str | None, data: Path) -> tuple[str, ...]:
        """Take over other weights; their hash is part of the recipe."""
        from models.checkpoint import take_over

        if weights is None:
            return ()
        found = located(weights, data)
        return (take_over(self.network, found if Path(found).exists() else weights),)

    def run(self, ending: Ending) -> dict[str, Any]:
        """Train; returns what the command tells."""
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
        machine = Machine(self.device, settings.compile, settings.loaders)
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

    def _evaluate(self, network: nn.Module, step: int) -> Mapping[str, float]:
        metrics = self.judge(network)
        self.keeper.keep(network, step, metrics)
        return metrics

    def _progress(self, step: int, metrics: Mapping[str, float]) -> None:
        self.log.add(step, {name: float(f"{value:.6g}") for name, value in metrics.items()})
        self.on_progress(step, self.config.training.steps, metrics)
        if any(name.startswith("held_out") for name in metrics) or len(self.log.entries) == 1:
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
        standing = Standing(self.config.name, state, training.steps, about, self.keeper.best)
        page = training_page(standing, self.log, self.judge.look)
        durable.replace_file(self.folder / "training.html", page.encode())


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

    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def show_augmentation(path: Path, picture: Path) -> None:
    """Draw what a training does to its crops."""
    from pipeline.augmentation_sheet import columns, draw_sheet, extent, shown, write_sheet

    config = load(path)
    changes, patch, voxel_size_nm = config.augmentation, config.training.patch, config.network.voxel_size_nm
    recipe = recipe_of(changes, voxel_size_nm)
    needed = extent(recipe, patch)
    volume = samples_of(config, path.parent)[0]
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
