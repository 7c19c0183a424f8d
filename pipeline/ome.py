"""The metadata conventions that arrays carry: OME-Zarr 0.5 (and 0.4, read only) and funlib.persistence. No files here.

1. A multiscale group lists datasets: a relative path, the voxel size as a `scale` and the position of the first voxel's
   low corner as a `translation`, per axis, in the unit that the axis names.
2. funlib.persistence keeps `voxel_size`, `offset` (world units), `axis_names`, `types` and `units` on the array itself,
   as integers. It truncates fractions, so sizes that are not whole nanometres are written in picometres.
3. Everything is read into integer picometres; a size that is not a whole number of picometres is rounded to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.geometry import Index, VoxelSize

_PM_PER = {
    "picometer": 1,
    "pm": 1,
    "angstrom": 100,
    "å": 100,
    "nanometer": 1000,
    "nanometers": 1000,
    "nm": 1000,
    "micrometer": 10**6,
    "micrometers": 10**6,
    "micron": 10**6,
    "um": 10**6,
    "µm": 10**6,
    "millimeter": 10**9,
    "mm": 10**9,
    "meter": 10**12,
    "m": 10**12,
}


class BadMetadata(ValueError):
    """Metadata that does not follow its convention; the caller knows where it was found."""


@dataclass(frozen=True)
class Dataset:
    """One scale of a multiscale group. The voxel size is None where the metadata names no known unit."""

    path: str
    axes: tuple[str, ...]
    voxel_size: VoxelSize | None
    origin_pm: Index


def multiscale_attributes(
    datasets: Sequence[tuple[str, VoxelSize, Index]], *, name: str, axes: Sequence[str]
) -> dict[str, Any]:
    """The attributes of an OME-Zarr 0.5 group. Offsets are in voxels of their own dataset."""
    listed = []
    for path, size, offset in datasets:
        origin = [o * s / 1000 for o, s in zip(offset, size.pm, strict=True)]
        lead = len(axes) - 3
        transforms = [
            {"type": "scale", "scale": [1.0] * lead + list(size.nm)},
            {"type": "translation", "translation": [0.0] * lead + origin},
        ]
        listed.append({"path": path, "coordinateTransformations": transforms})
    kinds = [{"name": a, "type": "channel"} if a == "c" else _space(a) for a in axes]
    return {"ome": {"version": "0.5", "multiscales": [{"name": name, "axes": kinds, "datasets": listed}]}}


def _space(name: str) -> dict[str, str]:
    return {"name": name, "type": "space", "unit": "nanometer"}


def multiscale_datasets(attributes: Mapping[str, Any]) -> list[Dataset] | None:
    """The datasets of the first multiscale of a group (OME-Zarr 0.4 or 0.5), or None if it is not one."""
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping) or "multiscales" not in ome:
        return None
    try:
        image = ome["multiscales"][0]
        axes = image["axes"]
        names = tuple(str(axis["name"]) for axis in axes)
        outer = image.get("coordinateTransformations", [])
        return [_dataset(entry, outer, axes, names) for entry in image["datasets"]]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadMetadata(f"its multiscales metadata does not follow OME-Zarr 0.4 or 0.5 ({error!r})") from error


def _dataset(entry: Any, outer: Any, axes: Any, names: tuple[str, ...]) -> Dataset:
    scale, translation = [1.0] * len(names), [0.0] * len(names)
    for transform in [*entry["coordinateTransformations"], *outer]:
        if transform["type"] == "scale":
            factors = [float(f) for f in transform["scale"]]
            scale = [s * f for s, f in zip(scale, factors, strict=True)]
            translation = [t * f for t, f in zip(translation, factors, strict=True)]
        elif transform["type"] == "translation":
            translation = [t + float(d) for t, d in zip(translation, transform["translation"], strict=True)]
    units = [_PM_PER.get(str(axis.get("unit", "")).lower()) for axis in axes[-3:]]
    origin, size = (0, 0, 0), None
    if len(names) >= 3 and None not in units:
        known = [u for u in units if u is not None]
        size = _voxel_size([s * u for s, u in zip(scale[-3:], known, strict=True)])
        z, y, x = (round(t * u) for t, u in zip(translation[-3:], known, strict=True))
        origin = (z, y, x)
    return Dataset(str(entry["path"]), names, size, origin)


def _voxel_size(pm: Sequence[float]) -> VoxelSize:
    z, y, x = (round(value) for value in pm)
    if min(z, y, x) < 1:
        raise BadMetadata(f"a voxel size of {tuple(pm)} picometres")
    return VoxelSize((z, y, x))


def funlib_attributes(size: VoxelSize, offset: Index, *, channels: bool) -> dict[str, Any]:
    """What funlib.persistence.open_ds wants on an array: whole nm where possible, else pm."""
    whole = all(value % 1000 == 0 for value in size.pm)
    per_unit = 1000 if whole else 1
    sizes = [value // per_unit for value in size.pm]
    return {
        "voxel_size": sizes,
        "offset": [o * s for o, s in zip(offset, sizes, strict=True)],
        "axis_names": [*(["c^"] if channels else []), "z", "y", "x"],
        "types": [*(["channel"] if channels else []), "space", "space", "space"],
        "units": ["nm" if whole else "pm"] * 3,
    }


def funlib_placement(attributes: Mapping[str, Any]) -> tuple[VoxelSize, Index] | None:
    """Voxel size and origin in pm from funlib's attributes (or a bare `resolution`); no unit means nanometres."""
    sizes = attributes.get("voxel_size", attributes.get("resolution"))
    if sizes is None:
        return None
    try:
        sizes = [float(s) for s in sizes][-3:]
        offset = [float(o) for o in attributes.get("offset", (0, 0, 0))][-3:]
        units = attributes.get("units", "nm")
        units = [units] * 3 if isinstance(units, str) else [str(u) for u in units][-3:]
        factors = [_PM_PER[unit.lower() or "nm"] for unit in units]
        size = _voxel_size([s * f for s, f in zip(sizes, factors, strict=True)])
        z, y, x = (round(o * f) for o, f in zip(offset, factors, strict=True))
    except (TypeError, ValueError, KeyError) as error:
        raise BadMetadata(f"its voxel_size, offset or units attribute cannot be understood ({error!r})") from error
    return size, (z, y, x)
