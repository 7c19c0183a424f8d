"""Append-only, CRC-framed records: one file per writing process, so that no two processes ever share one.

A record is one line, `crc32 json`. `append` returns after fdatasync, so a record that was appended survives a power
cut. A record that could not be written whole is cut off again; a torn last line, left by a kill, is dropped by the
reader. Anything else that fails its checksum is damage and is said, never skipped in silence.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.errors import JournalDamaged, Retryable
from workers.files import replacing, sync_folder

Record = dict[str, Any]
SUFFIX = ".journal"


class Journal:
    """The writing end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._good = 0
        self._turn = threading.Lock()  # read-ahead, writing and the watchdog append from threads of their own
        sync_folder(path.parent)

    def append(self, record: Record, *, durable: bool = True) -> None:
        """Write one record; with `durable`, return only when it is on disk."""
        frame = _frame(record)
        with self._turn:
            self._append(frame, durable=durable)

    def _append(self, frame: bytes, *, durable: bool) -> None:
        try:
            written = os.write(self._file, frame)
            if written != len(frame):
                raise OSError(28, "only part of the record could be written")
            if durable:
                os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._good)
            raise Retryable(
                f"a record could not be made durable: {error.strerror}",
                where=str(self.path),
                way_out="free some space, then run again: the block counts as not done",
            ) from error
        self._good += len(frame)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _frame(record: Record) -> bytes:
    body = json.dumps(record, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> Record | None:
    if len(line) < 10 or line[8:9] != b" ":
        return None
    body = line[9:]
    if line[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read_records(path: Path, start: int = 0, *, lenient: bool = False) -> Iterator[tuple[int, int, Record]]:
    """Yield (offset, end offset, record) from `start`; the torn tail is dropped, damage elsewhere is an error.

    With `lenient`, damaged records are left out: for `verify`, which trusts only the data itself.
    """
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    offset = 0
    while True:
        newline = content.find(b"\n", offset)
        if newline < 0:
            return  # a torn tail, or a record being written at this moment
        record = _parse(content[offset:newline])
        if record is not None:
            yield start + offset, start + newline + 1, record
        elif newline + 1 < len(content) and not lenient:
            raise JournalDamaged(
                f"a record at byte {start + offset} of a journal does not match its checksum",
                where=str(path),
                way_out="`neurotile verify RUN` checks the data against the receipts left and mends the journal",
            )
        offset = newline + 1


def read_record_at(path: Path, offset: int) -> Record:
    """One record whose place is known."""
    with path.open("rb") as file:
        file.seek(offset)
        record = _parse(file.readline().rstrip(b"\n"))
    if record is None:
        raise JournalDamaged(f"the record at byte {offset} does not match its checksum", where=str(path))
    return record


def write_packed(path: Path, records: Iterator[Record]) -> None:
    """Write many records as one finished journal: whole or not at all."""
    with replacing(path) as file:
        file.writelines(_frame(record) for record in records)
