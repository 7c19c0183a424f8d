"""What errors of the operating system mean, and what killed writers leave behind.

Files are written whole by `workers.files`. What a killed process leaves is recognisable: `*.partial-*` from there,
`*.__lock` from tensorstore (its temporary file and its lock in one). `sweep_partial` removes both; only the holder of
the run's fence may call it, because it cannot tell a live writer's file from a dead one's.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from pipeline.errors import ChunkCorrupt, ChunkMissing, StorageBusy
from workers.files import make_folder as make_folder
from workers.files import replacing as replacing

PARTIAL = re.compile(r".+\.partial-\d+-[0-9a-f]+$|.+\.__lock$")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file durably; readers see the old one or the new one."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise storage_error(error.errno, str(error), where=str(path)) from error


def read_file(path: Path, *, limit: int) -> bytes:
    """A whole file, refused before it is loaded if it is larger than it can honestly be."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ChunkCorrupt(
                    f"the file holds {size:,} bytes, more than the {limit:,} that such a file can have",
                    where=str(path),
                    way_out="this is not a file of the kind expected here; restore the right one",
                )
            return file.read()
    except OSError as error:
        raise storage_error(error.errno, str(error), where=str(path)) from error


def storage_error(code: int | None, what: str, *, where: str) -> StorageBusy | ChunkMissing:
    """The error that an errno stands for."""
    if code in (errno.ENOENT, errno.ENOTDIR):
        return ChunkMissing(
            "a file that should be here is missing",
            where=where,
            way_out="`neurotile verify RUN` finds the blocks it belongs to, `neurotile run --out RUN` makes them again",
        )
    if code in _FULL:
        way_out = "free space (or raise the quota) on this file system, then `neurotile run --out RUN`"
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        way_out = "make this place readable and writable for this user, then `neurotile run --out RUN`"
    else:
        way_out = "check the disk and the mount, then `neurotile run --out RUN`"
    return StorageBusy(f"the storage refused: {what}", where=where, way_out=way_out)


def sweep_partial(folder: Path) -> list[Path]:
    """Remove what killed writers left below a folder; returns what was removed. Hold the run's fence while you do."""
    removed = []
    for parent, _, names in os.walk(folder):
        for name in names:
            if PARTIAL.match(name):
                path = Path(parent, name)
                path.unlink(missing_ok=True)
                removed.append(path)
    return sorted(removed)
