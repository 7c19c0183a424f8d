"""The formats of users' volumes: zarr v2 and v3, OME-Zarr, HDF5, .npy, .npz. Every one ends in a `Found`.

Nothing is unpickled, and what a file claims about itself is checked before it is believed: sizes of metadata and of
chunks are capped, paths stay inside their folder, data in other files is refused. Missing chunks are errors: zarr and
HDF5 would hand out the fill value.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import tensorstore as ts

from pipeline import durable, ome
from pipeline.errors import ChunkCorrupt, ChunkMissing, InputError, MissingInput, WrongShape
from pipeline.geometry import Index, VoxelSize
from pipeline.volumes import (
    MAX_CHUNK_BYTES,
    MAX_METADATA_BYTES,
    Array,
    array_error,
    load_json,
    tensorstore_context,
)

_REPAIR = 'write the missing data, or leave the region out with a [[mask]] of role "skip"'
_MAX_LISTED = 20

Slices = tuple[slice, ...]  # one for every axis of the array, all of them bounded
Reader = Callable[[Slices], Array]
MAX_NPZ_BYTES = 256 << 20  # a compressed array is held in memory by every process that reads from it


@dataclass(frozen=True)
class Found:
    """What a format found at a location; the shape may still have the wrong number of axes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    reader: Reader
    voxel_size: VoxelSize | None = None
    origin_pm: Index = (0, 0, 0)

    def placed(self, at: tuple[VoxelSize, Index] | None) -> Found:
        """The same, with a voxel size and an origin if they are known."""
        return self if at is None else replace(self, voxel_size=at[0], origin_pm=at[1])


# ---- zarr ----------------------------------------------------------------------------------------------------------


def open_zarr(location: str, folder: Path, scale: int | None, axes: str) -> Found:
    """A zarr array, or one scale of an OME-Zarr image, with the axes that its role has."""
    kind, attributes, document = _node(folder, location)
    if kind == "group":
        return _open_group(location, folder, scale, attributes, axes)
    no_scale(location, scale)
    names = document.get("dimension_names") or attributes.get("axis_names")
    _check_order(names, axes, location)
    at = _placement(attributes, location) or _placement_in_parent(folder, location)
    return _zarr_array(location, folder, document).placed(at)


def _open_group(location: str, folder: Path, scale: int | None, attributes: Mapping[str, Any], axes: str) -> Found:
    datasets = _multiscale(attributes, location)
    if datasets is None:
        raise MissingInput(
            "this is a zarr group, not an array and not an OME-Zarr image",
            where=location,
            way_out=f"name an array in it; it has: {_listed(_arrays_below(folder))}",
        )
    level = 0 if scale is None else scale
    if not 0 <= level < len(datasets):
        raise MissingInput(
            f"the image has no scale {level}",
            where=location,
            way_out="choose one of: " + _listed([f"{i} ({d.voxel_size})" for i, d in enumerate(datasets)]),
        )
    chosen = datasets[level]
    array = folder / chosen.path
    if Path(chosen.path).is_absolute() or ".." in Path(chosen.path).parts:
        _refuse(
            f"the image's metadata points out of its own folder: {chosen.path!r}", location, "mend the group's metadata"
        )
    kind, own, document = _node(array, str(array))
    if kind != "array":
        _refuse(f"scale {level} of the image, {chosen.path!r}, is not an array", location, "choose another scale")
    _check_order(chosen.axes, axes, location)
    found = _zarr_array(location, array, document, most_axes=len(axes))
    at = (chosen.voxel_size, chosen.origin_pm) if chosen.voxel_size else _placement(own, location)
    return found.placed(at)


def _zarr_array(location: str, folder: Path, document: Mapping[str, Any], *, most_axes: int | None = None) -> Found:
    driver = "zarr3" if (folder / "zarr.json").exists() else "zarr"
    kvstore = {"driver": "file", "path": str(folder)}
    spec = {"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}
    if driver == "zarr":
        spec |= _without_checksum(document)
    try:
        store = ts.open(spec, context=tensorstore_context(), read=True).result()
    except (ValueError, OSError) as error:
        text = str(error).partition(" [tensorstore_spec=")[0]
        _refuse(f"this zarr array cannot be read: {text}", location, "rewrite it with zstd, blosc, gzip or no codec")
    _cap_chunk(store.chunk_layout.read_chunk.shape, store.dtype.numpy_dtype, location)
    shape = store.shape
    while most_axes and len(shape) > most_axes and shape[0] == 1:
        shape = shape[1:]
    lead: tuple[Any, ...] = (0,) * (len(store.shape) - len(shape))

    def read(slices: Slices) -> Array:
        try:
            return np.asarray(store[(*lead, *slices)].read(order="C").result())
        except (ValueError, OSError) as error:
            raise array_error(error, where=_at(location, slices), way_out=_REPAIR) from error

    return Found(tuple(shape), np.dtype(store.dtype.numpy_dtype), read)


def _without_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """numcodecs notes in zarr v2 whether zstd writes checksums. Reading does not need it; tensorstore refuses it."""
    compressor = document.get("compressor")
    if not isinstance(compressor, dict) or compressor.get("id") != "zstd" or "checksum" not in compressor:
        return {}
    kept = {key: value for key, value in compressor.items() if key != "checksum"}
    return {"metadata": {**document, "compressor": kept}, "assume_metadata": True}


def _node(folder: Path, location: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a zarr folder is (array or group), its attributes and its document."""
    if (folder / "zarr.json").exists():
        document = _json(folder / "zarr.json")
        attributes = document.get("attributes", {})
        return str(document.get("node_type")), attributes if isinstance(attributes, dict) else {}, document
    attributes = _json(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    if (folder / ".zarray").exists():
        return "array", attributes, _json(folder / ".zarray")
    if (folder / ".zgroup").exists():
        return "group", attributes, {}
    raise MissingInput(
        "this folder holds no zarr metadata (zarr.json, .zarray or .zgroup)",
        where=location,
        way_out=f"name an array; below it there are: {_listed(_arrays_below(folder))}",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return load_json(durable.read_file(path, limit=MAX_METADATA_BYTES), where=str(path))
    except ChunkCorrupt as error:
        _refuse(error.what, str(path), "restore this file")


def _arrays_below(folder: Path) -> list[str]:
    """Arrays up to three levels below a folder, for messages."""
    patterns = ["/".join(["*"] * depth + [name]) for depth in (1, 2, 3) for name in (".zarray", "zarr.json")]
    found = (path for pattern in patterns for path in folder.glob(pattern))
    listed = []
    for path in found:
        if path.name == ".zarray" or _json(path).get("node_type") == "array":
            listed.append(str(path.parent.relative_to(folder)))
        if len(listed) > _MAX_LISTED:
            break
    return sorted(listed)


def _multiscale(attributes: Mapping[str, Any], location: str) -> list[ome.Dataset] | None:
    try:
        return ome.multiscale_datasets(attributes)
    except ome.BadMetadata as error:
        _refuse(str(error), location, "mend the group's metadata, or name one of its arrays")


def _placement(attributes: Mapping[str, Any], location: str) -> tuple[VoxelSize, Index] | None:
    try:
        return ome.funlib_placement(attributes)
    except ome.BadMetadata as error:
        _refuse(str(error), location, "mend the attribute")


def _placement_in_parent(folder: Path, location: str) -> tuple[VoxelSize, Index] | None:
    """The placement of an array that was named directly but is a scale of the image around it."""
    if not any((folder.parent / name).exists() for name in ("zarr.json", ".zgroup")):
        return None
    _, attributes, _ = _node(folder.parent, location)
    for dataset in _multiscale(attributes, location) or []:
        if dataset.path == folder.name and dataset.voxel_size is not None:
            return dataset.voxel_size, dataset.origin_pm
    return None


# ---- HDF5 ----------------------------------------------------------------------------------------------------------


def open_hdf5(location: str, path: Path, name: str | None) -> Found:
    """One dataset of an HDF5 file."""
    if not path.is_file():
        raise MissingInput("there is no such HDF5 file", where=str(path), way_out="mend the path in the config")
    try:
        file = h5py.File(path, "r", locking="best-effort")
        found = file.get(name) if name else None
        if not isinstance(found, h5py.Dataset):
            raise MissingInput(
                f"the file has no dataset {name!r}" if name else "a dataset of the file must be named",
                where=location,
                way_out=f"write {path}:DATASET with one of: {_listed(_datasets(file))}",
            )
        if found.is_virtual or found.external:
            _refuse("the dataset keeps its data in other files", location, "copy it into one file")
        keys = ("voxel_size", "resolution", "offset", "units")
        attributes = {key: found.attrs[key] for key in keys if key in found.attrs}
    except OSError as error:
        _refuse(f"this HDF5 file cannot be read: {error}", location, "restore the file")
    _cap_chunk(found.chunks, found.dtype, location)
    reader = _hdf5_reader(found, location)
    return Found(tuple(found.shape or ()), found.dtype, reader).placed(_placement(attributes, location))


def _hdf5_reader(dataset: Any, location: str) -> Reader:
    complete = _is_complete(dataset)

    def read(slices: Slices) -> Array:
        where = _at(location, slices)
        if not complete:
            for corner in _chunk_corners(slices, dataset.chunks or dataset.shape):
                if not dataset.chunks or dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
                    raise ChunkMissing(f"data is missing: the chunk at {corner}", where=where, way_out=_REPAIR)
        try:
            return np.asarray(dataset[slices])
        except OSError as error:
            if error.errno is not None:
                raise durable.storage_error(error.errno, str(error), where=where) from error
            raise ChunkCorrupt(f"data is damaged: {error}", where=where, way_out=_REPAIR) from error

    return read


def _is_complete(dataset: Any) -> bool:
    """Whether every chunk was written; HDF5 hands out the fill value for the others."""
    if not dataset.shape:
        return True  # refused elsewhere
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() > 0)
    chunks = [-(-s // c) for s, c in zip(dataset.shape, dataset.chunks, strict=True)]
    return bool(dataset.id.get_num_chunks() == math.prod(chunks))


def _chunk_corners(slices: Slices, chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    spans = (range(s.start // c * c, s.stop, c) for s, c in zip(slices, chunk, strict=True))
    return product(*spans)


def _datasets(file: Any) -> list[str]:
    listed: list[str] = []

    def visit(name: str, node: Any) -> bool | None:
        if hasattr(node, "shape") and node.shape is not None:
            listed.append(name)
        return True if len(listed) > _MAX_LISTED else None

    file.visititems(visit)
    return sorted(listed)


# ---- npy and npz -----------------------------------------------------------------------------------------------------


def open_npy(location: str, path: Path) -> Found:
    """A .npy file, mapped into memory."""
    try:
        data = np.lib.format.open_memmap(path, mode="r")  # refuses pickled objects
    except (ValueError, OSError) as error:
        _refuse(f"this .npy file cannot be read: {error}", location, "write it again with numpy.save, without objects")
    return Found(data.shape, data.dtype, lambda slices: np.asarray(data[slices]))


def open_npz(location: str, path: Path, name: str | None) -> Found:
    """One array of an .npz archive: mapped into memory, or if compressed, read whole when first needed."""
    if not path.is_file():
        raise MissingInput("there is no such .npz file", where=str(path), way_out="mend the path in the config")
    try:
        with zipfile.ZipFile(path) as archive:
            known = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
            if name not in known:
                raise MissingInput(
                    f"the archive has no array {name!r}" if name else "an array of the archive must be named",
                    where=location,
                    way_out=f"write {path}:NAME with one of: {_listed(sorted(known))}",
                )
            return _npz_array(location, path, archive, f"{name}.npy")
    except (ValueError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        _refuse(f"this .npz file cannot be read: {error}", location, "write it again with numpy.savez, without objects")


def _npz_array(location: str, path: Path, archive: zipfile.ZipFile, entry: str) -> Found:
    info = archive.getinfo(entry)
    with archive.open(entry) as member:
        newer = np.lib.format.read_magic(member) >= (2, 0)
        header = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
        shape, fortran, dtype = header(member)
        header_bytes = member.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)
            names = np.frombuffer(file.read(4), "<u2")  # lengths of the name and of the extra field
        begin = info.header_offset + 30 + int(names.sum()) + header_bytes
        data = np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")
        return Found(shape, dtype, lambda slices: np.asarray(data[slices]))
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_NPZ_BYTES:
        raise ValueError(f"a compressed array of {size:,} bytes; the limit is {MAX_NPZ_BYTES:,}")
    return Found(shape, dtype, _compressed_reader(location, path, entry))


def _compressed_reader(location: str, path: Path, entry: str) -> Reader:
    @cache
    def whole() -> Array:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(entry) as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ChunkCorrupt(f"data is damaged: {error}", where=location, way_out=_REPAIR) from error

    return lambda slices: whole()[slices]


# ---- checks --------------------------------------------------------------------------------------------------------


def _refuse(what: str, location: str, way_out: str) -> NoReturn:
    raise InputError(what, where=location, way_out=way_out)


def no_scale(location: str, scale: int | None) -> None:
    """Refuse a scale where there are none."""
    if scale:
        raise MissingInput(f"a single array has no scale {scale}", where=location, way_out="leave `scale` out")


def _cap_chunk(chunk: Any, dtype: Any, location: str) -> None:
    size = math.prod(chunk or ()) * np.dtype(dtype).itemsize
    if size > MAX_CHUNK_BYTES:
        _refuse(f"a chunk holds {size:,} bytes; the limit is {MAX_CHUNK_BYTES:,}", location, "rechunk the array")


def _check_order(names: Any, axes: str, location: str) -> None:
    """Refuse axes that are known and in another order than their role has them in."""
    own = [str(name).lower().rstrip("^") for name in names or ()]
    known = ["c" if name == "channel" else name for name in own][-len(axes) :]
    if set(known) == set(axes) and known != list(axes):
        raise WrongShape(
            f"the axes are {', '.join(known)}; they must be {', '.join(axes)}",
            where=location,
            way_out="transpose the array; for affinities, state their order as affinities.axes",
        )


def _at(location: str, slices: Slices) -> str:
    return f"{location}, box [" + ", ".join(f"{s.start}:{s.stop}" for s in slices) + "]"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "") or "nothing"
