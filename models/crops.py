"""What a step of training sees: random crops of the samples, a function of the seed and the step alone.

1. Step s draws every crop of its batch, and every change of it, from a generator seeded by (seed, s, number in the
   batch): no random state has to be kept, and any process can make any batch.
2. A sample is drawn with a chance in proportion to its voxels, then a place in it. The crop is as much larger than the
   patch as its changes need.
3. Labels are cut to what the network puts out. An embedding is told about their parts as well (models.label_parts).

No torch: this runs in threads or processes of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.augmentation.plain import Plain
from models.augmentation.recipe import Recipe as Augmentation
from models.augmentation.recipe import apply, margin, prepare
from models.label_parts import Parts, background_target, find_parts

Index = tuple[int, int, int]


class Source(Protocol):
    """A volume that is read piece by piece."""

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""

    def read(self, begin: Index, end: Index) -> NDArray[Any]:
        """The voxels of [begin, end)."""


@dataclass(frozen=True)
class Sample:
    """An image and its labels, voxel by voxel; `myelin` are the labels of sheaths, if they were labelled."""

    image: Source
    labels: Source
    myelin: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """How crops are drawn."""

    patch: Index
    batch: int
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Plain)
    crop: Index = (0, 0, 0)  # what the network cuts off either side
    parts: bool = False  # whether the parts of the labels are wanted

    @property
    def reach(self) -> Index:
        """The largest crop that a step may read."""
        z, y, x = (p + m for p, m in zip(self.patch, margin(self.augmentation, self.patch), strict=True))
        return (z, y, x)


@dataclass(frozen=True)
class Batch:
    """Images as large as the patch in [0, 1]; labels, parts and background as large as the network's output."""

    images_BZYX: NDArray[np.float32]
    labels_BZYX: NDArray[np.int64]
    parts: tuple[Parts, ...] = ()
    background_BZYX: NDArray[np.bool_] | None = None


def draw(samples: Sequence[Sample], drawing: Drawing, step: int) -> Batch:
    """The batch of a step."""
    crops = [_one(samples, drawing, np.random.default_rng((drawing.seed, step, n))) for n in range(drawing.batch)]
    images, labels = np.stack([image for image, _, _ in crops]), np.stack([truth for _, truth, _ in crops])
    if not drawing.parts:
        return Batch(images, labels)
    background = np.stack([background_target(truth, sample.myelin) for _, truth, sample in crops])
    return Batch(images, labels, tuple(find_parts(truth) for truth in labels), background)


def _one(
    samples: Sequence[Sample], drawing: Drawing, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], Sample]:
    """Image and labels of one crop, and the sample that it is from."""
    sample = samples[_chosen(samples, rng)]
    geometry = prepare(drawing.augmentation, drawing.patch, rng)
    begin = _corner(sample.image.shape, geometry.source, rng)
    z, y, x = (b + n for b, n in zip(begin, geometry.source, strict=True))
    image = sample.image.read(begin, (z, y, x)).astype(np.float32) / np.float32(255)
    found = sample.labels.read(begin, (z, y, x))
    changed, truth = apply(image, found, drawing.augmentation, geometry, rng)
    inside = tuple(slice(cut, n - cut) for cut, n in zip(drawing.crop, truth.shape, strict=True))
    return changed, np.ascontiguousarray(truth[inside]).astype(np.int64), sample


def _chosen(samples: Sequence[Sample], rng: np.random.Generator) -> int:
    """A sample, by its voxels: of alike ones, one number drawn below their count."""
    voxels = [math.prod(sample.image.shape) for sample in samples]
    shares = np.array(voxels, np.int64) // math.gcd(*voxels)
    return int(np.searchsorted(np.cumsum(shares), rng.integers(shares.sum()), side="right"))


def _corner(shape: Index, extent: Index, rng: np.random.Generator) -> Index:
    z, y, x = (int(rng.integers(n - e + 1)) for n, e in zip(shape, extent, strict=True))
    return (z, y, x)


def refuse_small(samples: Sequence[Sample], drawing: Drawing) -> None:
    """At once, and not at the step that draws the largest crop."""
    for sample in samples:
        shape, reach = sample.image.shape, drawing.reach
        if any(n < r for n, r in zip(shape, reach, strict=True)):
            grown = f", which its augmentation enlarges to {reach}" if reach != drawing.patch else ""
            raise ValueError(f"a sample of shape {shape} is smaller than the patch {drawing.patch}{grown}")
