"""One run at a time on a directory, and no worker of an earlier run left when the next one starts.

`run.lock` is held exclusively by the scheduler, `workers.lock` is shared by its workers. A new scheduler takes
`run.lock` at once or gives up (exit 75); then it waits until the last worker of the run before has gone, raises the
epoch, and starts. A worker that comes late takes its share first and then finds that its epoch has passed. Workers
watch `run.lock`: when nobody holds it, their scheduler is dead and they leave.

Locks are open-file-description locks: they end with their process, however it ends, and can be asked about without
being taken.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from pathlib import Path

from workers.errors import Fenced, RunLocked
from workers.files import write_atomically

_FLOCK = "@hhqqi4x"  # struct flock on Linux: type, whence, start, length, pid


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _held_by_other(handle: int, kind: int) -> bool:
    """Whether a lock of this kind would collide with somebody else's."""
    answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


class Fence:
    """The fence of a run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run = -1
        self._workers = -1

    @property
    def epoch(self) -> int:
        """The number of the newest run on this directory."""
        try:
            return int((self.folder / "epoch").read_text())
        except FileNotFoundError:
            return 0

    def _open(self, name: str) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self, *, patience_s: float = 120.0) -> int:
        """Become the one run on this directory; returns the new epoch."""
        self._run = self._open("run.lock")
        if not _lock(self._run, fcntl.F_WRLCK):
            holder = os.pread(self._run, 4096, 0).decode(errors="replace").strip()
            self.release()
            raise RunLocked(
                f"another run holds this directory: {holder or 'it did not say who it is'}",
                where=str(self.folder.parent),
                way_out="wait for it, or end it; `neurotile status` shows what it does",
            )
        who = {"pid": os.getpid(), "host": socket.gethostname(), "epoch": self.epoch + 1}
        os.ftruncate(self._run, 0)
        os.pwrite(self._run, json.dumps(who).encode(), 0)
        workers = self._without_workers(patience_s)
        try:
            epoch = self.epoch + 1
            write_atomically(self.folder / "epoch", str(epoch).encode())
        finally:
            os.close(workers)
        return epoch

    def _without_workers(self, patience_s: float) -> int:
        """Wait until the last worker has gone; a lock that keeps others out until it is closed."""
        handle = self._open("workers.lock")
        deadline = time.monotonic() + patience_s
        while not _lock(handle, fcntl.F_WRLCK):
            if time.monotonic() > deadline:
                os.close(handle)
                self.release()
                raise RunLocked(
                    f"workers of the run before have not left after {patience_s:.0f} s",
                    where=str(self.folder.parent),
                    way_out="end them (their process ids stand in the journals' names), then run again",
                )
            time.sleep(0.05)
        return handle

    def join(self, epoch: int) -> None:
        """Enter as a worker of one epoch; Fenced if a newer run has taken over."""
        self._workers = self._open("workers.lock")
        if not _lock(self._workers, fcntl.F_RDLCK):
            raise Fenced("a newer run is taking this directory over", where=str(self.folder.parent))
        self.check(epoch)
        self._run = self._open("run.lock")

    def check(self, epoch: int) -> None:
        """Fenced unless the epoch is still the newest."""
        newest = self.epoch
        if newest != epoch:
            raise Fenced(f"run {newest} has replaced run {epoch}", where=str(self.folder.parent))

    def scheduler_alive(self) -> bool:
        """For a worker: whether somebody holds the run."""
        return _held_by_other(self._run, fcntl.F_RDLCK)

    def held(self) -> bool:
        """For a bystander: whether a run goes on here."""
        if not (self.folder / "run.lock").exists():
            return False
        handle = os.open(self.folder / "run.lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _held_by_other(handle, fcntl.F_RDLCK)
        finally:
            os.close(handle)

    def release(self) -> None:
        """Let go; the end of the process does the same."""
        for handle in (self._run, self._workers):
            if handle >= 0:
                os.close(handle)
        self._run = self._workers = -1
