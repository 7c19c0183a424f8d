"""Volumes as a training reads them: at the network's voxel size, piece by piece, generated or from files.

1. An image gets coarser by the integer mean, labels by their first voxel, as a run does it; coarse voxels count from
   the first voxel of the region. The background between objects that touch in a section is widened by a voxel.
2. A crop of a file is read with what its resampling and widening need around it, and nothing else. As long as volumes
   fit into CACHE_BYTES they are read once and kept, images as uint8, labels as uint32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, InputError, WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops.background import widen_background
from pipeline.ops.resample import first_labels, mean_image
from pipeline.ops.synthesize import generate
from pipeline.sections import Lengths
from pipeline.sources import Source, open_source
from pipeline.training.settings import Labelled, TrainConfig, Volumes, located

if TYPE_CHECKING:
    from models.crops import Sample

CACHE_BYTES = 1 << 30
IMAGE_TYPES = ("uint8",)
LABEL_TYPES = ("uint8", "uint16", "uint32", "uint64", "int32", "int64")


@dataclass(frozen=True)
class InMemory:
    """A volume that has been made already."""

    values: NDArray[Any]

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""
        z, y, x = self.values.shape
        return (z, y, x)

    def read(self, begin: Index, end: Index) -> NDArray[Any]:
        """The voxels of [begin, end)."""
        return self.values[Box(begin, end).slices()]


@dataclass(frozen=True)
class Coarse:
    """A region of a file at a coarser voxel size."""

    source: Source
    region: Box
    factor: Index

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""
        z, y, x = (-(-n // f) for n, f in zip(self.region.shape, self.factor, strict=True))
        return (z, y, x)

    def stored(self, begin: Index, end: Index) -> NDArray[Any]:
        """The stored voxels behind [begin, end)."""
        low, high = (
            tuple(o + n * f for o, n, f in zip(self.region.begin, corner, self.factor, strict=True))
            for corner in (begin, end)
        )
        return self.source.read(Box(low, high).clip(self.region))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CoarseImage(Coarse):
    """By the mean."""

    def read(self, begin: Index, end: Index) -> NDArray[np.uint8]:
        """The voxels of [begin, end)."""
        return mean_image(self.stored(begin, end), self.factor)


@dataclass(frozen=True)
class CoarseLabels(Coarse):
    """By the first voxel; with the background widened if asked."""

    widen: bool

    def read(self, begin: Index, end: Index) -> NDArray[np.uint64]:
        """The voxels of [begin, end)."""
        box = Box(begin, end)
        around = box.grow((0, 1, 1) if self.widen else (0, 0, 0)).clip(Box.of_shape(self.shape))
        stored = self.stored(around.begin, around.end)
        if stored.dtype.kind == "i" and stored.size and int(stored.min()) < 0:
            raise InputError(
                f"a label is {int(stored.min())}; labels are numbers from 0 up",
                where=self.source.location,
                way_out="make what is not labelled 0",
            )
        labels = first_labels(stored, self.factor).astype(np.uint64)
        if not self.widen:
            return labels
        return np.ascontiguousarray(widen_background(labels)[box.slices(around.begin)])


@dataclass(frozen=True)
class Place:
    """Which voxels a region is: of what image, in stored voxels and, if they are known, in picometres of the world."""

    image: str  # its fingerprint
    path: str  # without links; an OME-Zarr has several scales
    region: Box
    world: Box | None

    def shares_voxels(self, other: Place) -> bool:
        """Whether any voxel is in both regions: of one image, a copy of it, or another scale of it."""
        if self.image == other.image:
            return bool(self.region.clip(other.region).voxels)
        if self.path != other.path or self.world is None or other.world is None:
            return False
        return bool(self.world.clip(other.world).voxels)


@dataclass(frozen=True)
class Opened:
    """A volume with labels; `truth` are the labels as they are."""

    image: InMemory | CoarseImage
    labels: InMemory | CoarseLabels
    truth: InMemory | CoarseLabels
    myelin: tuple[int, ...] = ()
    fingerprints: tuple[str, ...] = ()
    location: str = "generated volumes"  # of the labels
    place: Place | None = None  # of a region of a file

    @property
    def sample(self) -> Sample:
        """As the loop takes it."""
        from models.crops import Sample

        return Sample(self.image, self.labels, self.myelin)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        z, y, x = self.image.shape
        return 5 * z * y * x

    def kept(self) -> Opened:
        """The same in memory; the labels as they are are not kept."""
        whole = ((0, 0, 0), self.image.shape)
        labels = self.labels.read(*whole)
        require_objects(labels, self)
        small = labels.astype(np.uint32) if not labels.size or int(labels.max()) < 1 << 32 else labels
        image = InMemory(self.image.read(*whole))
        return replace(self, image=image, labels=InMemory(small))


# ---- opening -------------------------------------------------------------------------------------------------------
def samples_of(config: TrainConfig, folder: Path) -> list[Opened]:
    """Everything that a config trains on; paths are relative to the folder."""
    size = config.network.voxel_size_nm
    opened = [] if config.volumes is None else generated(config.volumes, size)
    room = CACHE_BYTES
    for volume in config.sample:
        found = open_labelled(volume, size, folder)
        if found.bytes <= room:
            room -= found.bytes
            found = found.kept()
        opened.append(found)
    return opened


def first_sample(config: TrainConfig, folder: Path) -> Opened:
    """The first of the samples, and no other opened for it."""
    if config.volumes is not None:
        return generated(config.volumes.model_copy(update={"count": 1}), config.network.voxel_size_nm)[0]
    return open_labelled(config.sample[0], config.network.voxel_size_nm, folder)


def held_out(config: TrainConfig, folder: Path) -> list[Opened]:
    """Everything that a config judges by."""
    size = config.network.voxel_size_nm
    if isinstance(config.validation, Volumes):
        return generated(config.validation, size)
    return [open_labelled(volume, size, folder) for volume in config.validation]


def tuned_on(config: TrainConfig, folder: Path) -> list[Opened]:
    """Everything that post-processing is tuned on; refused if it is trained on, too."""
    if not config.tuning:
        return held_out(config, folder)
    size = config.network.voxel_size_nm
    opened = [open_labelled(volume, size, folder) for volume in config.tuning]
    require_apart([open_labelled(volume, size, folder) for volume in config.sample], opened)
    return opened


def generated(volumes: Volumes, voxel_size_nm: Lengths) -> list[Opened]:
    """All volumes of a generator."""
    made = []
    for seed in volumes.seeds:
        image, labels, truth = (InMemory(part) for part in _make(volumes, seed, voxel_size_nm))
        made.append(Opened(image, labels, truth))
    return made


def make_volume(volumes: Volumes, seed: int, voxel_size_nm: Lengths) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """One generated volume at the network's voxel size: image and labels, ZYX."""
    image, labels, _ = _make(volumes, seed, voxel_size_nm)
    return image, labels


def _make(
    volumes: Volumes, seed: int, voxel_size_nm: Lengths
) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint64]]:
    factor = VoxelSize.from_nm(voxel_size_nm).ratio(VoxelSize.from_nm(volumes.voxel_size_nm))
    if factor is None:
        raise ConfigError(
            f"voxels of {voxel_size_nm} nm are no whole multiple of {volumes.voxel_size_nm} nm",
            where="network.voxel_size_nm",
        )
    box = Box.of_shape(volumes.size).shift(volumes.begin)
    size = volumes.voxel_size_nm
    image, fine = generate(box, seed=seed, shape=box.end, voxel_size_nm=size, loop_kinds=volumes.loops)
    truth = first_labels(fine, factor)
    return mean_image(image, factor), widen_background(truth), truth


def open_labelled(volume: Labelled, voxel_size_nm: Lengths, folder: Path) -> Opened:
    """A volume of the user's."""
    image = open_source(located(volume.image, folder), volume.scale)
    labels = open_source(located(volume.labels, folder), volume.labels_scale)
    image.require(*IMAGE_TYPES, role="an image for training")
    labels.require(*LABEL_TYPES, role="a volume of labels")
    if image.shape != labels.shape:
        raise WrongShape(
            f"the image has shape {image.shape}, its labels have {labels.shape}",
            where=labels.location,
            way_out="crop or pad one of them, so that they match voxel by voxel",
        )
    region = Box(volume.begin, volume.end or image.shape)
    if not image.box.contains(region):
        raise WrongShape(
            f"the region {region} reaches out of the volume, which covers {image.box}",
            where=image.location,
            way_out="mend begin and end in the config; they count stored voxels",
        )
    factor = _factor(volume, image, voxel_size_nm)
    prints = (image.fingerprint(), labels.fingerprint())
    truth = CoarseLabels(labels, region, factor, widen=False)
    told = CoarseLabels(labels, region, factor, widen=volume.background == "widen")
    return Opened(
        CoarseImage(image, region, factor),
        told,
        truth,
        volume.myelin,
        prints,
        location=labels.location,
        place=_place(image, prints[0], region, _stated_size(volume, image)),
    )


def _place(image: Source, fingerprint: str, region: Box, size: VoxelSize | None) -> Place:
    world = None
    if size is not None:
        low, high = (
            tuple(o + n * s for o, n, s in zip(image.origin_pm, corner, size.pm, strict=True))
            for corner in (region.begin, region.end)
        )
        world = Box(low, high)  # type: ignore[arg-type]
    return Place(fingerprint, str(Path(image.location).resolve()), region, world)


def _stated_size(volume: Labelled, image: Source) -> VoxelSize | None:
    return VoxelSize.from_nm(volume.voxel_size_nm) if volume.voxel_size_nm else image.voxel_size


def _factor(volume: Labelled, image: Source, voxel_size_nm: Lengths) -> Index:
    """How many stored voxels make up one of the network's."""
    own = _stated_size(volume, image)
    if own is None:
        raise WrongVoxelSize(
            "the file does not say how large its voxels are",
            where=image.location,
            way_out="state voxel_size_nm beside the image in the config",
        )
    factor = VoxelSize.from_nm(voxel_size_nm).ratio(own)
    if factor is None:
        raise WrongVoxelSize(
            f"the network's voxels of {VoxelSize.from_nm(voxel_size_nm)} are no whole multiple of the volume's {own}",
            where=image.location,
            way_out="mend network.voxel_size_nm or voxel_size_nm, or choose another scale",
        )
    return factor


# ---- refusals ------------------------------------------------------------------------------------------------------
def require_apart(samples: Sequence[Opened], held: Sequence[Opened]) -> None:
    """Refuse to judge by voxels that are trained on, whatever name they are read by."""
    for one in samples:
        for other in held:
            if one.place and other.place and one.place.shares_voxels(other.place):
                raise ConfigError(
                    f"a sample ({one.place.region}) and the validation ({other.place.region}) share voxels of one "
                    "image: it would not be held out",
                    where=f"{one.place.path}, {other.place.path}",
                    way_out="mend begin and end of one of them, so that the regions are apart",
                )


def require_objects(labels_ZYX: NDArray[Any], volume: Opened) -> None:
    """Refuse labels that name nothing: a network would learn nothing, and not say so."""
    if not labels_ZYX.any():
        raise InputError(
            "the labels of this region hold no object: all are 0",
            where=volume.location,
            way_out="name the dataset that numbers the objects, or mend begin and end",
        )


def require_room(opened: Sequence[Opened], needed: Index, which: str = "the samples") -> None:
    """Refuse volumes that are smaller than a crop."""
    for volume in opened:
        if any(n < m for n, m in zip(volume.image.shape, needed, strict=True)):
            raise ConfigError(
                f"volumes of {volume.image.shape} voxels are smaller than the {needed} that a patch needs with its "
                "augmentation",
                where=which,
                way_out="take a smaller training.patch, a larger region, or less augmentation",
            )
