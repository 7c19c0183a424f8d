"""What the journals say: for every block, whether its bytes are durable, and which bytes, or why not.

Kinds of record (all carry `task`, `block` and `epoch`, the number of the run that wrote them):

* `start`     a worker took the block (not synced: for the curious and for crash reports)
* `receipt`   the block's data is durable: content and layout hash, digest of what it read and of what it wrote
* `retract`   receipts of earlier epochs no longer hold: before data is overwritten, or when `verify` finds damage
* `failed`    the block could not be done: error, whether trying again may help, how to reproduce it

Order is by epoch alone, never by clock: a receipt holds against failures and retractions of its own and of earlier
epochs, and is undone by those of later ones. Receipts of one epoch agree, because a block is a pure function.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.block import BlockRef, Index, parse_index
from workers.files import sync_folder
from workers.journal import SUFFIX, Record, read_record_at, read_records, write_packed

SCHEMA = 1
PACKED_OVER = 64  # more journals than this are packed into one when a run starts


@dataclass(frozen=True, slots=True)
class Receipt:
    """The part of a receipt that staleness needs; the rest stays in the journal."""

    epoch: int
    state: str  # done | masked | evicted
    content: str
    layout: str
    reads: str
    digest: str
    seconds: float
    journal: str
    offset: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a block is not done."""

    epoch: int
    error: str
    what: str
    retryable: bool
    bundle: str
    identity: str  # content and reads of the attempt: a block that has changed since deserves another one


class Receipts:
    """All receipts and failures of a run, kept current by reading on where the last read ended."""

    def __init__(self, folder: Path, *, lenient: bool = False) -> None:
        self.folder = folder
        self._lenient = lenient
        self._read_to: dict[str, int] = {}
        self._receipts: dict[str, dict[Index, Receipt]] = {}
        self._failures: dict[str, dict[Index, Failure]] = {}
        self._retracted: dict[BlockRef, int] = {}
        self.started: dict[BlockRef, str] = {}  # blocks in a worker's hands: who has them
        self.refresh()

    # ---- reading -----------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Take in what was appended since."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(FileNotFoundError):  # packed away by a run that starts: the packed one says the same
                self._read(path)

    def _read(self, path: Path) -> None:
        start = self._read_to.get(path.name, 0)
        if path.stat().st_size > start:
            for offset, end, record in read_records(path, start, lenient=self._lenient):
                self._take(record, path.name, offset)
                self._read_to[path.name] = end

    def _take(self, record: Record, journal: str, offset: int) -> None:
        ref = BlockRef(sys.intern(record["task"]), parse_index(record["block"]))
        kind = record["kind"]
        if kind == "start":
            self.started[ref] = f"{record['host']}:{record['pid']}"
            return
        self.started.pop(ref, None)
        if kind == "receipt":
            self._take_receipt(ref, record, journal, offset)
        elif kind == "retract":
            self._retracted[ref] = max(record["epoch"], self._retracted.get(ref, -1))
        elif kind == "failed":
            failure = Failure(*(record[name] for name in ("epoch", "error", "what", "retryable", "bundle", "identity")))
            known = self._failures.setdefault(ref.task, {}).get(ref.index)
            if known is None or known.epoch <= failure.epoch:
                self._failures[ref.task][ref.index] = failure

    def _take_receipt(self, ref: BlockRef, record: Record, journal: str, offset: int) -> None:
        receipt = Receipt(
            epoch=record["epoch"],
            state=sys.intern(record["state"]),
            content=sys.intern(record["content"]),
            layout=sys.intern(record["layout"]),
            reads=record["reads"],
            digest=record["digest"],
            seconds=record["seconds"],
            journal=sys.intern(journal),
            offset=offset,
        )
        known = self._receipts.setdefault(ref.task, {}).get(ref.index)
        if known is None or known.epoch <= receipt.epoch:
            self._receipts[ref.task][ref.index] = receipt

    # ---- asking ------------------------------------------------------------------------------------------------
    def get(self, ref: BlockRef) -> Receipt | None:
        """The receipt that holds, if any."""
        receipt = self._receipts.get(ref.task, {}).get(ref.index)
        if receipt is None or self._retracted.get(ref, -1) > receipt.epoch:
            return None
        failure = self._failures.get(ref.task, {}).get(ref.index)
        return None if failure is not None and failure.epoch > receipt.epoch else receipt

    def failure(self, ref: BlockRef) -> Failure | None:
        """The failure that holds, if any."""
        failure = self._failures.get(ref.task, {}).get(ref.index)
        if failure is None or self._retracted.get(ref, -1) > failure.epoch:
            return None
        receipt = self._receipts.get(ref.task, {}).get(ref.index)
        return None if receipt is not None and receipt.epoch >= failure.epoch else failure

    def record(self, ref: BlockRef) -> dict[str, Any]:
        """The whole receipt, from its journal."""
        receipt = self.get(ref)
        if receipt is None:
            raise LookupError(f"no receipt for {ref}")
        return read_record_at(self.folder / receipt.journal, receipt.offset)

    def summary(self, ref: BlockRef) -> dict[str, Any]:
        """The numbers that a block left in its receipt."""
        numbers: dict[str, Any] = self.record(ref).get("summary", {})
        return numbers

    def held(self, task: str) -> Iterator[tuple[Index, Receipt]]:
        """Every receipt of a task that holds."""
        for index in self._receipts.get(task, {}):
            receipt = self.get(BlockRef(task, index))
            if receipt is not None:
                yield index, receipt

    def failures(self, task: str) -> Iterator[tuple[Index, Failure]]:
        """Every failure of a task that holds."""
        for index in self._failures.get(task, {}):
            failure = self.failure(BlockRef(task, index))
            if failure is not None:
                yield index, failure

    @property
    def tasks(self) -> list[str]:
        """The tasks that have left any record."""
        return sorted(self._receipts.keys() | self._failures.keys())


def pack(folder: Path, *, lenient: bool = False, epoch: int) -> None:
    """Replace many journals by one that holds what still holds. Only while the fence is held."""
    journals = sorted(folder.glob(f"*{SUFFIX}"))
    if len(journals) <= PACKED_OVER and not lenient:
        return
    receipts = Receipts(folder, lenient=lenient)

    def records() -> Iterator[Record]:
        for task in receipts.tasks:
            for index, _ in sorted(receipts.held(task)):
                yield receipts.record(BlockRef(task, index))
            for index, failure in sorted(receipts.failures(task)):
                yield failed_record(BlockRef(task, index), failure)

    write_packed(folder / f"{epoch:06d}-packed{SUFFIX}", records())
    for path in journals:
        path.unlink()
    sync_folder(folder)


def failed_record(ref: BlockRef, failure: Failure) -> Record:
    """The record of a failure."""
    return {
        "v": SCHEMA,
        "kind": "failed",
        "task": ref.task,
        "block": ref.label,
        "epoch": failure.epoch,
        "error": failure.error,
        "what": failure.what,
        "retryable": failure.retryable,
        "bundle": failure.bundle,
        "identity": failure.identity,
    }


def retract_record(ref: BlockRef, epoch: int, why: str) -> Record:
    """The record that undoes the receipts of earlier epochs."""
    return {"v": SCHEMA, "kind": "retract", "task": ref.task, "block": ref.label, "epoch": epoch, "why": why}
