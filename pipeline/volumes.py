"""Arrays: the only module, with sources.py (users' files, read in place), that opens them; nothing else creates them.

1. An array is OME-Zarr 0.5: zarr v3, one shard file per block holding all channels, inner chunks of one channel,
   zstd level 1 and crc32c on every inner chunk and on the shard's index. funlib.persistence's attributes stand beside.
2. A write replaces whole shards. At the far border of an array the shard is filled up with zeros, as zarr wants it:
   if only the inside were written, tensorstore would read the old shard first, and could not replace a damaged one.
   It is durable on return: tensorstore fsyncs file and folder, and the folders above are synced before. tensorstore's
   file locks are off: a shard has one writer, a stopped process would block its successor for ever, and what a killed
   one leaves in the lock file would end up behind the next writer's shorter shard. Without locks every write goes to
   a file of its own and is renamed.
3. A read checks every checksum and never gets a fill value: what was not written raises ChunkMissing.
4. Boxes are in layer coordinates: element 0 of the array is voxel `offset` of the layer.
5. The metadata is written once, whole, and checked on every open; creating an array again is a no-op if it is the same
   array and refused if it is not.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from pipeline import durable, ome
from pipeline.errors import ChunkCorrupt, ChunkMissing, IdentityMismatch, NotFinite, StorageBusy, WrongShape, WrongType
from pipeline.geometry import Box, Index, VoxelSize

Array = np.ndarray[Any, Any]

MAX_METADATA_BYTES = 1 << 20
MAX_CHUNK_BYTES = 2 << 30
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")

_AGAIN = "`neurotile verify RUN` lists what else is lost, then `neurotile run --out RUN` makes it again"
_limits = {"file_io_concurrency": 1, "data_copy_concurrency": 1}


@dataclass(frozen=True)
class ArraySpec:
    """What an array is. `block` is the shard, `chunk` the inner chunk; both spatial. `channels` makes it CZYX."""

    shape: tuple[int, ...]
    dtype: str
    block: Index
    chunk: Index
    voxel_size: VoxelSize
    offset: Index = (0, 0, 0)
    channels: int | None = None

    def __post_init__(self) -> None:
        lead = () if self.channels is None else (self.channels,)
        if len(self.shape) != 3 + len(lead) or self.shape[:-3] != lead or min(self.shape) < 1:
            raise WrongShape(f"an array of shape {self.shape} with {self.channels} channels cannot be")
        if any(c < 1 or b % c for b, c in zip(self.block, self.chunk, strict=True)):
            raise WrongShape(f"the chunk {self.chunk} must divide the block {self.block}")
        if self.dtype not in DTYPES:
            raise WrongType(f"an array cannot hold {self.dtype}; it holds one of {', '.join(DTYPES)}")

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes."""
        return ("z", "y", "x") if self.channels is None else ("c", "z", "y", "x")

    @property
    def spatial(self) -> Index:
        """The shape along z, y, x."""
        z, y, x = self.shape[-3:]
        return (z, y, x)

    @property
    def lead(self) -> tuple[int, ...]:
        """The shape before z, y, x: the channels, or nothing."""
        return self.shape[:-3]


def set_concurrency(*, file_io: int = 1, copy: int = 1) -> None:
    """How many threads tensorstore may use in this process; call it before the first array is opened."""
    _limits.update(file_io_concurrency=file_io, data_copy_concurrency=copy)
    tensorstore_context.cache_clear()


@cache
def tensorstore_context() -> Any:
    """The process's one tensorstore context: bounded threads, no cache that could hand out old bytes."""
    limits = {key: {"limit": value} for key, value in _limits.items()}
    own = {"cache_pool": {"total_bytes_limit": 0}, "file_io_locking": {"mode": "none"}, "file_io_sync": True}
    return ts.Context({**limits, **own})


def digest(array: Array) -> str:
    """A hash of dtype, shape and values."""
    values = np.ascontiguousarray(array)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    result = hashlib.sha256(json.dumps([values.dtype.str, list(array.shape)]).encode())
    if values.size:
        result.update(values.reshape(-1).view(np.uint8).data)
    return result.hexdigest()


class Volume:
    """One array on disk. Make it with `create` or `open`; safe to pickle into another process."""

    def __init__(self, path: Path, spec: ArraySpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def create(cls, path: Path, spec: ArraySpec) -> Volume:
        """Make the array, or accept the one that is there if it is the same."""
        target = path / "zarr.json"
        if not target.exists():
            durable.replace_file(target, _encode(_metadata(spec)))
        found = cls.open(path)
        if found.spec != spec:
            ours, theirs = asdict(spec), asdict(found.spec)
            diff = "; ".join(f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if theirs[key] != ours[key])
            raise IdentityMismatch(
                f"the array that is here is another one: {diff}",
                where=str(path),
                way_out="give the run another directory, or remove this array if nothing needs it",
            )
        return found

    @classmethod
    def open(cls, path: Path) -> Volume:
        """Open an array of neurotile; its metadata is checked."""
        target = path / "zarr.json"
        found = load_json(durable.read_file(target, limit=MAX_METADATA_BYTES), where=str(target))
        attributes: dict[str, Any] = found.get("attributes", {})
        try:
            spec = _parse(attributes["neurotile"])
        except (KeyError, TypeError, ValueError, AttributeError, WrongShape, WrongType) as error:
            raise _damaged(f"the metadata of an array is damaged: {error}", target) from error
        expected = _metadata(spec)
        ours = {key: attributes.get(key) for key in expected["attributes"]}
        if {**found, "attributes": ours} != expected:
            raise _damaged("the metadata of an array contradicts itself", target)
        return cls(path, spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Volume, (self.path, self.spec))

    def __repr__(self) -> str:
        return f"Volume({self.path}, {self.spec.dtype} {self.spec.shape})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        return np.dtype(self.spec.dtype)

    @cached_property
    def box(self) -> Box:
        """The layer voxels it covers."""
        return Box.of_shape(self.spec.spatial).shift(self.spec.offset)

    @cached_property
    def _store(self) -> Any:
        """The open array, widened to whole shards so that a border shard is written without reading the old one."""
        document = _metadata(self.spec)
        whole = [-(-s // b) * b for s, b in zip(self.spec.spatial, self.spec.block, strict=True)]
        document["shape"] = [*self.spec.lead, *whole]
        del document["attributes"], document["node_type"]
        try:
            return ts.open(
                {
                    "driver": "zarr3",
                    "kvstore": {"driver": "file", "path": str(self.path)},
                    "metadata": document,
                    "assume_metadata": True,  # just read and checked; widened here
                    "fill_missing_data_reads": False,
                    "store_data_equal_to_fill_value": True,
                },
                context=tensorstore_context(),
            ).result()
        except (ValueError, OSError) as error:
            raise array_error(error, where=str(self.path)) from error

    def read(self, box: Box, *, channels: int | None = None) -> Array:
        """The values of a box, (C)ZYX; the box must lie inside. `channels` reads only the first ones."""
        self._inside(box)
        lead = (...,) if channels is None else (slice(0, channels),)
        try:
            values = self._store[(*lead, *box.slices(self.spec.offset))].read(order="C").result()
        except (ValueError, OSError) as error:
            raise array_error(error, where=f"{self.path}, box {box}") from error
        return np.asarray(values)

    def write(self, box: Box, data: Array) -> str:
        """Replace the whole shards of a box, durably; returns the digest of the data."""
        self._check(box, data)
        try:
            for shard in self._shards(box):
                durable.make_folder(shard.parent)
            target = self._store[(..., *self._whole(box).slices(self.spec.offset))]
            target.write(self._filled(box, data)).result()
        except (ValueError, OSError) as error:
            raise array_error(error, where=f"{self.path}, box {box}") from error
        return digest(data)

    def _inside(self, box: Box) -> None:
        if not self.box.contains(box):
            raise WrongShape(f"the box {box} reaches out of the array, which covers {self.box}", where=str(self.path))

    def _check(self, box: Box, data: Array) -> None:
        where = f"{self.path}, box {box}"
        self._inside(box)
        if data.dtype != self.dtype:
            raise WrongType(f"the data is {data.dtype}, the array {self.dtype}", where=where)
        if data.shape != (*self.spec.lead, *box.shape):
            raise WrongShape(f"the data has shape {data.shape}, not {(*self.spec.lead, *box.shape)}", where=where)
        local = box.shift(_negative(self.spec.offset))
        edges = zip(local.begin, local.end, self.spec.spatial, self.spec.block, strict=True)
        if any(b % s or (e % s and e != n) for b, e, n, s in edges):
            raise WrongShape(
                f"a write must cover whole shards of {self.spec.block}, counted from {self.spec.offset}", where=where
            )
        require_finite(data, origin=box.begin, where=where)

    def _whole(self, box: Box) -> Box:
        """The box, grown at the array's far border to whole shards."""
        steps = zip(box.end, self.spec.offset, self.spec.block, strict=True)
        z, y, x = (o - (o - e) // s * s for e, o, s in steps)
        return Box(box.begin, (z, y, x))

    def _filled(self, box: Box, data: Array) -> Array:
        whole = self._whole(box)
        if whole == box:
            return data
        padded = np.zeros((*self.spec.lead, *whole.shape), dtype=self.dtype)
        padded[(..., *box.slices(box.begin))] = data
        return padded

    def _shards(self, box: Box) -> list[Path]:
        """The shard files of a box."""
        local = self._whole(box).shift(_negative(self.spec.offset))
        ranges = [range(b // s, e // s) for b, e, s in zip(local.begin, local.end, self.spec.block, strict=True)]
        root = self.path.joinpath("c", *("0" for _ in self.spec.lead))
        return [root / str(z) / str(y) / str(x) for z in ranges[0] for y in ranges[1] for x in ranges[2]]


def write_multiscale(
    group: Path, datasets: Sequence[tuple[str, VoxelSize, Index]], *, name: str, axes: Sequence[str]
) -> None:
    """Write or replace the OME-Zarr 0.5 metadata of a group: (path in the group, voxel size, offset in voxels)."""
    attributes = ome.multiscale_attributes(datasets, name=name, axes=axes)
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    durable.replace_file(group / "zarr.json", _encode(document))


def load_json(content: bytes, *, where: str) -> dict[str, Any]:
    """A JSON object out of a file that nobody vouches for."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"this is not JSON: {error}", where) from error
    if not isinstance(found, dict):
        raise _damaged("this is JSON, but not an object", where)
    return found


def require_finite(data: Array, *, origin: Index, where: str) -> None:
    """Refuse NaN and infinity; the message names the first bad voxel."""
    if data.dtype.kind != "f" or np.isfinite(data).all():
        return
    first = np.argwhere(~np.isfinite(data))[0]
    voxel = tuple(int(i) + o for i, o in zip(first[-3:], origin, strict=True))
    raise NotFinite(
        f"voxel {voxel} holds {data[tuple(first)]}",
        where=where,
        way_out="replace what is not finite, or mask the region",
    )


def array_error(error: Exception, *, where: str, way_out: str = _AGAIN) -> ChunkMissing | ChunkCorrupt | StorageBusy:
    """The error behind what tensorstore raised."""
    text = " ".join(str(error).split()).partition(" [tensorstore_spec=")[0]
    code = re.search(r"\[os_error_code='(\d+)'\]", text)
    if isinstance(error, OSError) or code:
        number = int(code[1]) if code else getattr(error, "errno", None)
        return durable.storage_error(number, text, where=where)
    if "NOT_FOUND" in text:
        return ChunkMissing(f"data is missing: {text}", where=where, way_out=way_out)
    if "RESOURCE_EXHAUSTED" in text or "UNAVAILABLE" in text:
        return durable.storage_error(None, text, where=where)
    return ChunkCorrupt(f"data is damaged: {text}", where=where, way_out=way_out)


def _metadata(spec: ArraySpec) -> dict[str, Any]:
    """The zarr.json of an array."""
    one = () if spec.channels is None else (1,)
    raw, crc = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    sharding = {
        "chunk_shape": [*one, *spec.chunk],
        "codecs": [raw, zstd, crc],
        "index_codecs": [raw, crc],
        "index_location": "end",
    }
    own = {**asdict(spec), "voxel_size": spec.voxel_size.pm}
    own["crc32"] = zlib.crc32(_encode(own))
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*spec.lead, *spec.block]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if np.dtype(spec.dtype).kind in "iu" else 0.0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(spec.axes),
        "attributes": {
            **ome.funlib_attributes(spec.voxel_size, spec.offset, channels=spec.channels is not None),
            "neurotile": own,
        },
    }
    plain: dict[str, Any] = json.loads(_encode(document))
    return plain


def _parse(own: Any) -> ArraySpec:
    """The spec in an array's own attributes."""
    facts = dict(own)
    if facts.pop("crc32") != zlib.crc32(_encode(facts)):
        raise ValueError("its checksum is wrong")
    for key in ("shape", "block", "chunk", "offset"):
        facts[key] = tuple(facts[key])
    return ArraySpec(**{**facts, "voxel_size": VoxelSize(tuple(facts["voxel_size"]))})


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, indent=1).encode()


def _negative(offset: Index) -> Index:
    z, y, x = offset
    return (-z, -y, -x)


def _damaged(what: str, where: Path | str) -> ChunkCorrupt:
    return ChunkCorrupt(what, where=str(where), way_out="restore this file, or remove the array and run again")
