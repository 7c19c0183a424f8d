"""Region-graph tables: one container file per block and pass. The only module that opens or creates tables.

1. A container is an Arrow IPC file with a single row. A column is called `section.column` and its one value is the
   whole column, a `large_list`, so that sections of different lengths share a file that pyarrow, polars and duckdb
   read as it is. Buffers are compressed with zstd.
2. The schema's metadata says, for every column, its type, length and the CRC32 of its little-endian bytes, and carries
   a CRC32 of that statement. Reading checks both: a damaged file is an error, never other numbers.
3. A file is replaced whole and durably, so that writing the same block twice leaves the second block, not a sum.
4. The digest covers names, types, lengths and values, not the file's bytes: another version of Arrow or zstd writes
   other bytes with the same digest.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import durable
from pipeline.errors import ChunkCorrupt, ChunkMissing, WrongShape, WrongType

Array = np.ndarray[Any, Any]
Table = Mapping[str, Array]  # columns of equal length

SCHEMA = 1
MAX_FILE_BYTES = 16 << 30  # a container of a block is far smaller; what is larger is not ours
DTYPES = frozenset({"u1", "u2", "i4", "i8", "u4", "u8", "f8"})

_KEY = b"neurotile"
_AGAIN = "`neurotile verify RUN` lists what else is damaged, then `neurotile run --out RUN` makes it again"


def write_tables(path: Path, sections: Mapping[str, Table]) -> str:
    """Replace a container, durably; returns the digest of its content."""
    columns = _columns(sections, where=str(path))
    names, lists, facts = [], [], {}
    for name, column in columns.items():
        values = pa.array(column)
        offsets = pa.array(np.array([0, len(column)], dtype=np.int64))
        names.append(name)
        lists.append(pa.LargeListArray.from_arrays(offsets, values))
        facts[name] = {"dtype": column.dtype.str[1:], "length": len(column), "crc32": zlib.crc32(column.data)}
    metadata = {_KEY: _seal({"schema": SCHEMA, "sections": sorted(sections), "columns": facts})}
    schema = pa.schema([pa.field(n, a.type, nullable=False) for n, a in zip(names, lists, strict=True)], metadata)
    batch = pa.record_batch(lists, schema=schema)
    try:
        with durable.replacing(path) as file:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_file(file, schema, options=options) as writer:
                writer.write_batch(batch)
    except OSError as error:
        raise durable.storage_error(error.errno, str(error), where=str(path)) from error
    return digest_tables(sections)


def read_tables(path: Path, sections: Sequence[str] | None = None) -> dict[str, dict[str, Array]]:
    """The sections of a container (all by default), checked. The arrays are read-only views."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _corrupt(f"the file is larger than {MAX_FILE_BYTES:,} bytes", path)
        with pa.OSFile(str(path), "rb") as file:
            return _read(file, path, sections)
    except pa.ArrowException as error:
        raise _corrupt(f"this is not a readable table: {_one_line(error)}", path) from error
    except (UnicodeDecodeError, MemoryError) as error:
        raise _corrupt(f"this is not a readable table: {_one_line(error)}", path) from error
    except FileNotFoundError:
        raise ChunkMissing("a table of a block is missing", where=str(path), way_out=_AGAIN) from None
    except OSError as error:
        if error.errno is None:  # Arrow's own complaints about content: truncated, cannot be decompressed
            raise _corrupt(f"this is not a readable table: {_one_line(error)}", path) from error
        raise durable.storage_error(error.errno, str(error), where=str(path)) from error


def digest_tables(sections: Mapping[str, Table]) -> str:
    """A hash of names, types, lengths and values; the order of sections and columns does not enter."""
    columns = _columns(sections, where="digest")
    head = {"sections": sorted(sections), "columns": {n: [c.dtype.str[1:], len(c)] for n, c in columns.items()}}
    result = hashlib.sha256(_canonical(head))
    for name in sorted(columns):
        result.update(columns[name].data)
    return result.hexdigest()


def _columns(sections: Mapping[str, Table], *, where: str) -> dict[str, Array]:
    """Every column under its full name, contiguous and little-endian; refuses what a container cannot hold."""
    columns = {}
    for section, table in sections.items():
        lengths = set()
        for name, values in table.items():
            full = f"{section}.{name}"
            if "." in section or "." in name or not section or not name:
                raise WrongShape(f"{full!r} is no name for a column: no dots, nothing empty", where=where)
            column = np.ascontiguousarray(values)
            if column.ndim != 1 or values.ndim != 1:
                raise WrongShape(f"column {full} has {values.ndim} axes, not 1", where=where)
            if column.dtype.str[1:] not in DTYPES:
                raise WrongType(f"column {full} is {column.dtype}; tables hold {sorted(DTYPES)}", where=where)
            lengths.add(len(column))
            columns[full] = column.astype(column.dtype.newbyteorder("<"), copy=False)
        if len(lengths) > 1:
            raise WrongShape(f"the columns of section {section} have different lengths: {sorted(lengths)}", where=where)
    return columns


def _read(file: Any, path: Path, sections: Sequence[str] | None) -> dict[str, dict[str, Array]]:
    schema = pa.ipc.open_file(file).schema
    facts = _unseal(schema.metadata, path)
    wanted = list(facts["sections"]) if sections is None else list(sections)
    absent = [s for s in wanted if s not in facts["sections"]]
    if absent:
        raise _corrupt(f"it has no section {', '.join(absent)}; it has {', '.join(facts['sections'])}", path)
    result: dict[str, dict[str, Array]] = {section: {} for section in wanted}
    fields = [n for n in facts["columns"] if n.partition(".")[0] in result]
    if not fields:
        return result
    options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(n) for n in fields], use_threads=False)
    reader = pa.ipc.open_file(file, options=options)
    if reader.num_record_batches != 1:
        raise _corrupt(f"it holds {reader.num_record_batches} record batches instead of 1", path)
    batch = reader.get_batch(0)
    for name in fields:
        section, _, column = name.partition(".")
        result[section][column] = _column(batch, name, facts["columns"][name], path)
    return result


def _column(batch: Any, name: str, fact: Mapping[str, Any], path: Path) -> Array:
    """One column, compared with what the metadata says of it."""
    lists = batch.column(batch.schema.get_field_index(name))
    lists.validate()
    if len(lists) != 1 or lists.null_count:
        raise _corrupt(f"column {name} has {len(lists)} rows instead of 1", path)
    values = lists.flatten()
    if values.null_count or len(values) != fact["length"]:
        raise _corrupt(f"column {name} has {len(values)} values instead of {fact['length']}", path)
    column: Array = values.to_numpy(zero_copy_only=True)
    if column.dtype.str[1:] != fact["dtype"] or zlib.crc32(column.data) != fact["crc32"]:
        raise _corrupt(f"column {name} fails its checksum", path)
    return column


def _seal(facts: Mapping[str, Any]) -> bytes:
    body = _canonical(facts)
    return b"%08x" % zlib.crc32(body) + body


def _unseal(metadata: Mapping[bytes, bytes] | None, path: Path) -> dict[str, Any]:
    sealed = (metadata or {}).get(_KEY, b"")
    body = sealed[8:]
    if len(sealed) < 8 or sealed[:8] != b"%08x" % zlib.crc32(body):
        raise _corrupt("its metadata fails its checksum, or it is not a table of neurotile", path)
    facts: dict[str, Any] = json.loads(body)
    if facts["schema"] != SCHEMA:
        raise _corrupt(f"it has schema {facts['schema']}; this version reads {SCHEMA}", path)
    return facts


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _corrupt(what: str, path: Path) -> ChunkCorrupt:
    return ChunkCorrupt(f"a table is damaged: {what}", where=str(path), way_out=_AGAIN)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
