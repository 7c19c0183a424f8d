"""Files that are either whole and on the disk, or not there.

A file is written beside its target under `NAME.partial-PID-RANDOM`, fsynced, renamed over the target, and its folder
fsynced. A folder that is made is fsynced into its parent, all the way up to one that was there before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LEVELS = 4  # an array or a pass adds at most so many below the folder that exists when workers start
_synced: set[Path] = set()  # folders whose entries this process has made durable


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and the levels above it, durably.

    A sibling may have made a level without having synced it yet, so every process syncs the levels above its own
    files once, whoever made them.
    """
    missing = []
    level = folder
    while not level.is_dir():
        missing.append(level)
        level = level.parent
    if not missing and folder in _synced:
        return
    if len(_synced) > 65536:
        _synced.clear()
    _synced.difference_update(missing)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    for path in (folder, *folder.parents)[: max(len(missing), _LEVELS)]:
        if path in _synced or not os.access(path.parent, os.R_OK):
            break
        sync_folder(path.parent)
    _synced.update((folder, *folder.parents)[: max(len(missing), _LEVELS)])


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that durably takes the place of `path` if the block ends well, and vanishes if it does not."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        make_folder(path.parent)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file: a reader sees the old one or the new one, also after a power cut."""
    with replacing(path) as file:
        file.write(content)


def link_atomically(path: Path, target: Path) -> None:
    """Point a relative link at a target, by one rename."""
    fresh = path.with_name(f"{path.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
    fresh.symlink_to(os.path.relpath(target, path.parent))
    fresh.rename(path)
    sync_folder(path.parent)
