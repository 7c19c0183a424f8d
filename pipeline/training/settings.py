"""The TOML file of a training. Frozen models; unknown keys are refused.

Paths of volumes are relative to the file; `$NAME` in a path is an environment variable, `$NEUROTILE_DATA` in the
shipped configs: what is committed knows no machine.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from models.spec import NEAREST, WeightsSpec
from pipeline.augmentation import Changes, PlainChanges, recipe_of
from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.sections import Count, Extent, Length, Lengths, LoopKinds, Margin, Section, Share, Triple, absent

if TYPE_CHECKING:
    from models.objectives import Objective
    from models.train import Recipe

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_ENDLESS = 1 << 40


class Network(Section):
    """What is trained, and how it will be applied."""

    architecture: Literal["rsunet", "rsunet_p"] = "rsunet"
    predicts: Literal["affinity", "embedding"] = "affinity"
    widths: tuple[Count, ...] = (8, 12, 16)
    long_range: tuple[Triple, ...] = ()  # affinity: edges (z, y, x) that are learned beside the three nearest
    dimensions: int = Field(24, ge=2)  # embedding: of its vectors
    delta: Length = 1.5  # embedding: half the distance at which affinity ends
    crop: tuple[Margin, Margin, Margin] = (0, 0, 0)  # cut off either side of the output
    voxel_size_nm: Lengths = (30.0, 12.0, 12.0)
    patch: Extent = (16, 64, 64)  # at inference
    stride: Extent = (12, 48, 48)

    def spec(self, provenance: Mapping[str, Any] | None = None) -> WeightsSpec:
        """What the weights will say about themselves."""
        from models.offsets import METRIC

        embeds = self.predicts == "embedding"
        offsets = METRIC if embeds else (*NEAREST, *self.long_range)
        heads = {"embedding": self.dimensions, "background": 1} if embeds else {"affinity": len(offsets)}
        architecture: dict[str, Any] = {"name": self.architecture, "widths": list(self.widths), "heads": heads}
        if any(self.crop):
            architecture["crop"] = list(self.crop)
        if self.architecture == "rsunet_p":
            architecture["norm"] = "running"
        return WeightsSpec(
            architecture=architecture,
            offsets=offsets,
            voxel_size_nm=self.voxel_size_nm,
            patch=self.patch,
            stride=self.stride,
            training=provenance or {},
            delta=self.delta if embeds else None,
        )


class Volumes(Section):
    """Generated volumes; every seed is one."""

    first_seed: int = Field(ge=1, lt=2**32)
    count: int = Field(ge=1, le=4096)
    size: Extent  # voxels of the generator
    begin: Triple = (0, 0, 0)  # where in the endless volume
    voxel_size_nm: Lengths = (30.0, 6.0, 6.0)
    loops: LoopKinds | None = Field(None, exclude_if=absent)  # processes whose arms touch, at known places

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.count)


class Labelled(Section):
    """A region of a volume with labels, read in place; whatever `neurotile run` reads."""

    image: str  # FILE, FILE.h5:dataset, or the folder of an (OME-)Zarr
    labels: str  # 0: boundary, or not labelled
    scale: int | None = Field(None, ge=0)  # of an OME-Zarr image
    labels_scale: int | None = Field(None, ge=0)  # of OME-Zarr labels
    voxel_size_nm: Lengths | None = None  # of the stored voxels, if the file does not say it
    begin: tuple[Margin, Margin, Margin] = (0, 0, 0)  # stored voxels, from the first one
    end: Extent | None = None  # nothing: the whole volume
    background: Literal["widen", "keep"] = "widen"  # between objects that touch in a section
    myelin: tuple[Count, ...] = ()  # labels of sheaths: for an embedding, objects that its mask calls background

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.end is not None and any(e <= b for b, e in zip(self.begin, self.end, strict=True)):
            raise ValueError(f"the region {self.begin} to {self.end} holds no voxel")
        return self

    @property
    def box(self) -> Box:
        """The region, as far as it is known."""
        return Box(self.begin, self.end or (_ENDLESS, _ENDLESS, _ENDLESS))


class Training(Section):
    """The recipe, how often it is looked at, and the machine."""

    patch: Extent = (16, 64, 64)
    batch: int = Field(4, ge=1)
    steps: int = Field(1000, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up: int = Field(20, ge=0)
    rebalance: Literal["lee", "ustc", "none"] = "lee"
    long_range: float = Field(1.0, ge=0)  # the weight of edges beyond the nearest
    edges: float = Field(0.0, ge=0)  # embedding: the weight of single edges beside its loss (models.edge_pull)
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.99, ge=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32)
    start_from: str | None = None  # weights whose tensors are taken over where name and shape agree
    evaluate_every: int = Field(200, ge=0)
    report_every: int = Field(10, ge=1)
    save_every: int = Field(100, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    compile: bool = False  # the trunk, by torch.compile; on a CPU this needs a C++ compiler
    precision: Literal["float32", "bfloat16"] = "float32"  # of the trunk on a CPU; a GPU trains in bfloat16 anyway
    threads: int = Field(1, ge=1)  # of the network, on a CPU
    loaders: int = Field(1, ge=1)  # that draw crops: one thread, or so many processes


class Segmentation(Section):
    """The post-processing that a network is judged by: watershed, then mean affinity at every threshold."""

    low: Share = 0.02
    high: Share = 0.999
    size_vx: int = Field(0, ge=0, lt=1 << 31)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        tuple(round(0.05 * n, 2) for n in range(2, 20)), min_length=1
    )


KINDS = ("generated", "labelled")  # of held-out volumes


def _kind(given: Any) -> str:
    return KINDS[0] if isinstance(given, dict | Volumes) else KINDS[1]


HeldOut = Annotated[
    Annotated[Volumes, Tag("generated")] | Annotated[tuple[Labelled, ...], Tag("labelled")], Discriminator(_kind)
]


class TrainConfig(Section):
    """A whole training."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    network: Network = Network()
    volumes: Volumes | None = None
    sample: tuple[Labelled, ...] = ()
    validation: HeldOut
    tuning: tuple[Labelled, ...] = ()  # what post-processing is tuned on; nothing: the validation
    segmentation: Segmentation | None = None  # nothing: no VOI
    training: Training = Training()
    augmentation: Changes = PlainChanges()

    @model_validator(mode="after")
    def _has_samples(self) -> Self:
        if self.volumes is None and not self.sample:
            raise ValueError("there is nothing to train on: give [[sample]] tables, or [volumes]")
        if not self.validation:
            raise ValueError("there is nothing to judge by: give [[validation]] tables")
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        if isinstance(self.validation, Volumes):
            if self.volumes and set(self.volumes.seeds) & set(self.validation.seeds):
                raise ValueError("volumes and validation share a seed: the validation would not be held out")
            return self
        for held in self.validation:
            for one in self.sample:
                if (one.image, one.scale) == (held.image, held.scale) and held.box.clip(one.box).voxels:
                    raise ValueError(f"a sample and the validation share voxels of {held.image}: not held out")
        return self

    @model_validator(mode="after")
    def _makes_a_network(self) -> Self:
        spec = self.network.spec()  # refuses what no weights could say of themselves
        architecture = spec.network
        unseen = spec.unseen(spec.offsets) if self.network.predicts == "embedding" else ()
        if unseen:
            raise ValueError(f"network.stride {spec.stride}: patches overlap too little for the edges {unseen}")
        patch, divisor = self.training.patch, architecture.divisor
        if any(n % divisor for n in patch[1:]) or min(architecture.output(patch)) < 1:
            raise ValueError(
                f"training.patch {patch}: y and x must divide by {divisor}, which {len(architecture.widths)} scales "
                f"need, and exceed what the crop {architecture.crop} cuts off both sides"
            )
        return self

    @model_validator(mode="after")
    def _square(self) -> Self:
        flips = isinstance(self.augmentation, PlainChanges) and self.augmentation.flip
        if flips and self.training.patch[1] != self.training.patch[2]:
            raise ValueError("training.patch must be as long in y as in x, or augmentation.flip off")
        return self

    def objective(self) -> Objective:
        """What the network is trained for."""
        from models.objectives import AffinityObjective, EmbeddingObjective

        if self.network.predicts == "embedding":
            return EmbeddingObjective(self.network.delta, self.network.spec().offsets, self.training.edges)
        return AffinityObjective(self.network.spec().offsets, self.training.rebalance, self.training.long_range)

    def recipe(self, fingerprints: tuple[str, ...] = ()) -> Recipe:
        """The recipe of the loop; `fingerprints` are those of the volumes that are read."""
        from models.train import Recipe

        t = self.training
        samples = self.model_dump_json(include={"network", "volumes", "sample"})
        return Recipe(
            patch=t.patch,
            batch=t.batch,
            steps=t.steps,
            learning_rate=t.learning_rate,
            schedule=t.schedule,
            warm_up=t.warm_up,
            clip=t.clip,
            average=t.average,
            seed=t.seed,
            samples=samples + "".join(fingerprints),
            objective=self.objective(),
            crop=self.network.crop,
            augmentation=recipe_of(self.augmentation, self.network.voxel_size_nm),
        )


def load(path: Path) -> TrainConfig:
    """Read a training's TOML file."""
    try:
        return TrainConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        way_out = "name a TOML file of a training, such as configs/tiny_train.toml"
        what = f"cannot read the configuration: {error.strerror}"
        raise ConfigError(what, where=str(path), way_out=way_out) from None
    except UnicodeDecodeError as error:
        what = f"this is not UTF-8 text: {error.reason} at byte {error.start}"
        raise ConfigError(what, where=str(path), way_out="save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}", where=str(path), way_out="mend this line") from None
    except ValidationError as error:
        problems = [_problem(e["loc"], e["type"], e["msg"]) for e in error.errors()]
        what = "the configuration is not valid: " + "; ".join(problems)
        raise ConfigError(what, where=str(path), way_out="mend these keys; docs/training.md explains them") from None


def _problem(place: tuple[int | str, ...], kind: str, message: str) -> str:
    """What is wrong with one key; for one that nobody knows, a known one like it."""
    parts = [str(part) for part in place if part not in KINDS]
    if kind == "extra_forbidden":
        sections = (TrainConfig, Network, Volumes, Labelled, Training, Segmentation)
        known = [name for section in sections for name in section.model_fields]
        alike = get_close_matches(parts[-1], known, 1)
        message = "there is no such key" + (f"; is it {alike[0]!r}?" if alike else "")
    return f"{'.'.join(parts) or 'config'}: {message.removeprefix('Value error, ')}"


def located(location: str, folder: Path) -> str:
    """Where a volume lies: variables filled in, relative to the folder of the config."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise ConfigError(
                f"the environment variable {name} is not set",
                where=location,
                way_out=f"name the folder of the data: {name}=FOLDER neurotile train ...",
            )
        return os.environ[name]

    return str(folder / _VARIABLE.sub(value, location))
