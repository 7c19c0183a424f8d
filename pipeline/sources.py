"""Users' volumes, read in place. With volumes.py (and its formats, source_formats.py) all that opens arrays.

1. A location is a zarr array (v2 or v3), an OME-Zarr group (0.4 or 0.5; a scale picks the dataset), `file.h5:dataset`,
   a `.npy` file or `file.npz:name`. Nothing is unpickled, and what a file claims about itself is checked first.
2. A source has three axes, z, y, x; with channels four, stored before or after these and read as c, z, y, x.
   Leading axes of length 1 (time, channel) of an OME-Zarr image are dropped.
3. Boxes count from the array's first voxel; `offset` says where that voxel lies in the world, in voxels.
4. A read is honest: a chunk that is not there is an error and not the fill value, NaN and infinity are errors.
5. The fingerprint depends on what the volume is and on samples of its content, not on where or how it is stored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ChunkError, MissingInput, WrongShape, WrongType
from pipeline.geometry import AXES, Box, Index, VoxelSize
from pipeline.source_formats import Found, Reader, no_scale, open_hdf5, open_npy, open_npz, open_zarr
from pipeline.volumes import Array, digest, require_finite

_HDF5 = re.compile(r"(?P<file>.+\.(?:h5|hdf5|hdf))(?::(?P<dataset>.*))?", re.IGNORECASE)
_NPZ = re.compile(r"(?P<file>.+\.npz)(?::(?P<name>.*))?", re.IGNORECASE)
VOLUME = "zyx"
STACK = "czyx"  # how channels are handed out, wherever they are stored
_SAMPLES = 16
_SAMPLE_SHAPE = (16, 64, 64)


@dataclass(frozen=True)
class Source:
    """A volume of the user's, open for reading. Safe to pickle into another process."""

    location: str
    scale: int | None
    shape: Index
    dtype: np.dtype[Any]
    voxel_size: VoxelSize | None
    origin_pm: Index
    reader: Reader
    stored_axes: str = VOLUME
    channels: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (open_source, (self.location, self.scale, self.stored_axes))

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes of what is read: z, y, x, with c before them if there are channels."""
        return AXES if self.channels is None else tuple(STACK)

    @property
    def box(self) -> Box:
        """The whole volume, from its first voxel."""
        return Box.of_shape(self.shape)

    @property
    def offset(self) -> Index:
        """Where its first voxel lies in the world, in voxels, to the nearest one."""
        size = self.voxel_size.pm if self.voxel_size else (1, 1, 1)
        z, y, x = (round(o / s) for o, s in zip(self.origin_pm, size, strict=True))
        return (z, y, x)

    def read(self, box: Box) -> Array:
        """The values of a box; the box must lie inside."""
        values = self.read_unchecked(box)
        require_finite(values, origin=box.begin, where=self.location)
        return values

    def require(self, *dtypes: str, role: str) -> None:
        """Refuse a dtype that the role cannot use."""
        if self.dtype.name not in dtypes:
            raise WrongType(
                f"{role} is {self.dtype.name}; it must be {' or '.join(dtypes)}",
                where=self.location,
                way_out="convert it, or name another array",
            )

    def fingerprint(self) -> str:
        """A hash of shape, dtype, voxel size and samples; data that cannot be read counts as such."""
        size = self.voxel_size.pm if self.voxel_size else None
        result = hashlib.sha256(json.dumps([self._whole_shape, self.dtype.name, size]).encode())
        for box in _samples(self.shape):
            try:
                result.update(digest(self.read_unchecked(box)).encode())
            except ChunkError:
                result.update(b"unreadable")
        return result.hexdigest()

    @property
    def _whole_shape(self) -> tuple[int, ...]:
        return self.shape if self.channels is None else (self.channels, *self.shape)

    def read_unchecked(self, box: Box, channels: range | None = None) -> Array:
        """The same, NaN and infinity included; of the channels, those in a range."""
        if not self.box.contains(box):
            raise WrongShape(
                f"the box {box} reaches out of the volume, which covers {self.box}",
                where=self.location,
                way_out="choose a region inside the volume",
            )
        if self.channels is None:
            return np.ascontiguousarray(self.reader(box.slices()), dtype=self.dtype)
        wanted = range(self.channels) if channels is None else channels
        by_axis = dict(zip(STACK, (slice(wanted.start, wanted.stop), *box.slices()), strict=True))
        values = self.reader(tuple(by_axis[axis] for axis in self.stored_axes))
        return np.ascontiguousarray(np.moveaxis(values, self.stored_axes.index("c"), 0), dtype=self.dtype)


def open_source(location: str, scale: int | None = None, axes: str = VOLUME) -> Source:
    """Open a volume where it lies; every way in which it cannot be used has its own error.

    `axes` are those it must have, in the order in which they are stored: zyx, czyx or zyxc.
    """
    path = Path(location)
    hdf5 = _HDF5.fullmatch(location)
    if hdf5 and not path.is_dir():
        no_scale(location, scale)
        return _checked(location, scale, axes, open_hdf5(location, Path(hdf5["file"]), hdf5["dataset"]))
    npz = _NPZ.fullmatch(location)
    if npz and not path.is_dir():
        no_scale(location, scale)
        return _checked(location, scale, axes, open_npz(location, Path(npz["file"]), npz["name"]))
    if not path.exists():
        raise MissingInput("there is no such file or folder", where=location, way_out="mend the path in the config")
    if path.is_dir():
        return _checked(location, scale, axes, open_zarr(location, path, scale, axes))
    if path.suffix == ".npy":
        no_scale(location, scale)
        return _checked(location, scale, axes, open_npy(location, path))
    raise MissingInput(
        "this is no volume that can be read in place",
        where=location,
        way_out="give a zarr array, an OME-Zarr group, file.h5:dataset, a .npy file or file.npz:name",
    )


def _checked(location: str, scale: int | None, axes: str, found: Found) -> Source:
    """Refuse what is no volume."""
    native = found.dtype.newbyteorder("=")
    if native.kind not in "buif":
        raise WrongType(
            f"elements of type {native} are no image and no labels", where=location, way_out="name another array"
        )
    if len(found.shape) != len(axes) or min(found.shape) < 1:
        raise _wrong_axes(location, found.shape, axes)
    extent = dict(zip(axes, (int(s) for s in found.shape), strict=True))
    shape = (extent["z"], extent["y"], extent["x"])
    place = (found.voxel_size, found.origin_pm, found.reader)
    return Source(location, scale, shape, native, *place, stored_axes=axes, channels=extent.get("c"))


def _wrong_axes(location: str, shape: tuple[int, ...], axes: str) -> WrongShape:
    if axes == VOLUME:
        return WrongShape(
            f"the array has shape {shape}; a volume has three axes, z, y, x, none of them empty",
            where=location,
            way_out="take one channel and one time point, as an array of its own",
        )
    return WrongShape(
        f"the array has shape {shape}; affinities have four axes, here {', '.join(axes)}, none of them empty",
        where=location,
        way_out="stack the channels in one array, and state the order of its axes as affinities.axes",
    )


def _samples(shape: Index) -> list[Box]:
    """Boxes spread over the volume by the Halton sequence: the same ones for the same shape."""
    boxes = []
    for number in range(_SAMPLES):
        z, y, x = (
            math.floor(_halton(number, base) * (max(0, s - n) + 1))
            for base, s, n in zip((2, 3, 5), shape, _SAMPLE_SHAPE, strict=True)
        )
        boxes.append(Box((z, y, x), (z + _SAMPLE_SHAPE[0], y + _SAMPLE_SHAPE[1], x + _SAMPLE_SHAPE[2])))
    whole = Box.of_shape(shape)
    return list(dict.fromkeys(box.clip(whole) for box in boxes))


def _halton(number: int, base: int) -> float:
    value, weight = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        weight /= base
        value += digit * weight
    return value
