"""Training from a TOML file: generated volumes as sources, a held-out one to judge by, weights and spec as the result.

1. Volumes are generated at the image's voxel size and resampled to the network's, as a run does it: images by their
   integer mean, labels by their first voxel; the background between touching objects is widened by a voxel.
2. `models.train` draws its crops from them.
3. The network is judged, through the engine, on generated volumes with other seeds.

One config gives one network: the same bytes every time on one machine. An interrupted training goes on where its
last state was saved.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from models.errors import WeightsInvalid
from models.spec import NEAREST, WeightsSpec
from pipeline.augmentation import Changes, PlainChanges, recipe_of
from pipeline.errors import BadWeights, ConfigError
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops import affinity_score
from pipeline.ops.background import widen_background
from pipeline.ops.resample import first_labels, mean_image
from pipeline.ops.synthesize import generate
from pipeline.sections import Extent, Section

if TYPE_CHECKING:
    from torch import nn

    from models.train import Recipe

Lengths = tuple[float, float, float]
OnProgress = Callable[[int, int, Mapping[str, float]], None]


class Network(Section):
    """What is trained, and how it will be applied."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] = (8, 12, 16)
    voxel_size_nm: Lengths = (30.0, 12.0, 12.0)
    patch: Extent = (16, 64, 64)  # at inference
    stride: Extent = (12, 48, 48)


class Volumes(Section):
    """Generated volumes; every seed is one."""

    first_seed: int = Field(ge=1, lt=2**32)
    count: int = Field(ge=1, le=4096)
    size: Extent  # voxels of the generator
    begin: tuple[int, int, int] = (0, 0, 0)  # where in the endless volume
    voxel_size_nm: Lengths = (30.0, 6.0, 6.0)

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.count)


class Training(Section):
    """The recipe."""

    patch: Extent = (16, 64, 64)
    batch: int = Field(4, ge=1)
    steps: int = Field(1000, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up: int = Field(20, ge=0)
    rebalance: Literal["lee", "none"] = "lee"
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.99, ge=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32)
    evaluate_every: int = Field(200, ge=0)
    threads: int = Field(1, ge=1)


class TrainConfig(Section):
    """A whole training."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    network: Network = Network()
    volumes: Volumes
    validation: Volumes
    training: Training = Training()
    augmentation: Changes = PlainChanges()

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        if set(self.volumes.seeds) & set(self.validation.seeds):
            raise ValueError("volumes and validation share a seed: the validation would not be held out")
        if (
            isinstance(self.augmentation, PlainChanges)
            and self.augmentation.flip
            and self.training.patch[1] != self.training.patch[2]
        ):
            raise ValueError("training.patch must be as long in y as in x, or augmentation.flip off")
        return self


def load(path: Path) -> TrainConfig:
    """Read a training's TOML file."""
    try:
        return TrainConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc']) or 'config'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("the configuration is not valid: " + "; ".join(problems), where=str(path)) from None


# ---- volumes --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class InMemory:
    """A volume that has been made already."""

    values: NDArray[Any]

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""
        z, y, x = self.values.shape
        return (z, y, x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its voxels."""
        return self.values.dtype

    def read(self, begin: Index, end: Index) -> NDArray[Any]:
        """The voxels of [begin, end)."""
        return self.values[Box(begin, end).slices()]


def make_volume(volumes: Volumes, seed: int, voxel_size_nm: Lengths) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """One generated volume at the network's voxel size: image and labels, ZYX."""
    factor = VoxelSize.from_nm(voxel_size_nm).ratio(VoxelSize.from_nm(volumes.voxel_size_nm))
    if factor is None:
        raise ConfigError(
            f"voxels of {voxel_size_nm} nm are no whole multiple of {volumes.voxel_size_nm} nm",
            where="network.voxel_size_nm",
        )
    box = Box.of_shape(volumes.size).shift(volumes.begin)
    image, truth = generate(box, seed=seed, shape=box.end, voxel_size_nm=volumes.voxel_size_nm)
    return mean_image(image, factor), widen_background(first_labels(truth, factor))


# ---- training -------------------------------------------------------------------------------------------------------
def train_from_config(
    path: Path, out: Path | None, *, on_progress: OnProgress = lambda s, n, m: None
) -> dict[str, Any]:
    """Train what a TOML file describes; weights, spec and resume state go to `out` (default: runs/NAME)."""
    config = load(path)
    folder = out or Path("runs") / config.name
    try:
        return _train(config, folder, on_progress)
    except WeightsInvalid as error:
        raise BadWeights(
            error.what, where=error.where or str(path), way_out="remove the folder to start this training again"
        ) from None


def _train(config: TrainConfig, folder: Path, on_progress: OnProgress) -> dict[str, Any]:
    import torch

    from models.checkpoint import save_weights
    from models.rsunet import build, parameters
    from models.train import Hooks, Sample, train

    began = time.monotonic()
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.training.seed)
    spec = _spec(config)
    network = build(spec.architecture)
    recipe = _recipe(config)
    samples = []
    for seed in config.volumes.seeds:
        image, labels = make_volume(config.volumes, seed, config.network.voxel_size_nm)
        _refuse_small(image.shape, recipe.reach)
        samples.append(Sample(InMemory(image), InMemory(labels)))
    hooks = Hooks(
        evaluate=_judge(config, spec),
        evaluate_every=config.training.evaluate_every,
        on_progress=lambda step, metrics: on_progress(step, config.training.steps, metrics),
        state=folder / "state.safetensors",
    )
    trained = train(network, samples, recipe, offsets=spec.offsets, hooks=hooks)
    weights = folder / f"{config.name}.safetensors"
    provenance = {
        "config": config.model_dump(mode="json"),
        "metrics": dict(trained.metrics),
        "torch": torch.__version__,
    }
    kept = save_weights(trained.network, _spec(config, provenance), weights)
    return {
        "weights": str(weights),
        "sha256": kept.sha256,
        "parameters": parameters(network),
        "steps": config.training.steps,
        "metrics": dict(trained.metrics),
        "seconds": round(time.monotonic() - began, 1),
    }


def show_augmentation(path: Path, picture: Path) -> None:
    """Draw what a training does to its crops."""
    from pipeline.augmentation_sheet import columns, draw_sheet, extent, shown, write_sheet

    config = load(path)
    changes, patch, voxel_size_nm = config.augmentation, config.training.patch, config.network.voxel_size_nm
    recipe = recipe_of(changes, voxel_size_nm)
    needed = extent(recipe, patch)
    image, labels = make_volume(config.volumes, config.volumes.first_seed, voxel_size_nm)
    _refuse_small(image.shape, needed)
    middle = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(image.shape, needed, strict=True))
    crop = image[middle].astype(np.float32) / np.float32(255), labels[middle]
    size, voxel = (" x ".join(f"{length:g}" for length in lengths) for lengths in (patch, voxel_size_nm))
    title = f'{config.name}: augmentation "{changes.recipe}", {size} voxels of {voxel} nm'
    first = middle[0].start + shown(patch[0]).start
    write_sheet(picture, draw_sheet(columns(crop, recipe, patch, config.training.seed), title, first))


def _refuse_small(shape: tuple[int, ...], needed: Index) -> None:
    if any(n < m for n, m in zip(shape, needed, strict=True)):
        raise ConfigError(
            f"volumes of {shape} voxels are smaller than the {needed} that a patch needs with its augmentation",
            where="volumes.size",
        )


def _spec(config: TrainConfig, provenance: Mapping[str, Any] | None = None) -> WeightsSpec:
    return WeightsSpec(
        architecture={"name": "rsunet", "widths": list(config.network.widths), "heads": {"affinity": len(NEAREST)}},
        offsets=NEAREST,
        voxel_size_nm=config.network.voxel_size_nm,
        patch=config.network.patch,
        stride=config.network.stride,
        training=provenance or {},
    )


def _recipe(config: TrainConfig) -> Recipe:
    from models.train import Recipe

    t = config.training
    return Recipe(
        patch=t.patch,
        batch=t.batch,
        steps=t.steps,
        learning_rate=t.learning_rate,
        schedule=t.schedule,
        warm_up=t.warm_up,
        rebalance=t.rebalance,
        clip=t.clip,
        average=t.average,
        seed=t.seed,
        samples=config.model_dump_json(include={"network", "volumes"}),
        augmentation=recipe_of(config.augmentation, config.network.voxel_size_nm),
    )


def _judge(config: TrainConfig, spec: WeightsSpec) -> Callable[[nn.Module], Mapping[str, float]]:
    """A function that applies a network to the held-out volumes and averages its scores."""
    from models.engine import Engine

    crops = [make_volume(config.validation, seed, spec.voxel_size_nm) for seed in config.validation.seeds]

    def judge(network: nn.Module) -> Mapping[str, float]:
        engine = Engine(network, spec, threads=config.training.threads)
        scores = []
        for image, labels in crops:
            shape = InMemory(image).shape
            codes = engine.predict(image, origin=(0, 0, 0), begin=(0, 0, 0), end=shape, layer=shape)
            scores.append(affinity_score.score(codes, labels, NEAREST, spec.code_table))
        return {f"held_out_{name}": round(float(np.mean([s[name] for s in scores])), 5) for name in scores[0]}

    return judge
