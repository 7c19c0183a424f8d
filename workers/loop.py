"""One worker: claim a block, read, compute, write, receipt.

1. The next block is claimed and read while the present one is computed, and the one before is written: three blocks
   at most are in memory. Where blocks are few and long, reading ahead is switched off, so that nobody hoards them.
2. Block protocol: durable data, then the receipt, then the scheduler hears of it. Before data that an older receipt
   vouches for is overwritten, that receipt is retracted.
3. An error is retryable (full disk, memory, stale mount: tried again here, with a pause) or poison (quarantined at
   once). A failed block leaves a record and a bundle that reproduces it; the worker goes on with the next one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from workers.block import BlockRef, Index
from workers.errors import Fenced, Retryable
from workers.journal import Journal
from workers.receipts import SCHEMA, Failure, failed_record, retract_record
from workers.watchdog import peak_bytes

PASSING_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM}


@dataclass(frozen=True)
class Identity:
    """What a block is: the hashes that its receipt carries."""

    content: str
    layout: str
    reads: str

    @property
    def key(self) -> str:
        """What decides the block's answer, in one string."""
        return f"{self.content}:{self.reads}"


class Work(Protocol):
    """What a task offers to the loop. Implemented outside this package."""

    task: str

    def identity(self, index: Index) -> Identity:
        """The hashes of a block, with the digests of what it reads now."""

    def overwrites(self, index: Index) -> bool:
        """Whether an older receipt vouches for data that writing would replace."""

    def read(self, index: Index) -> Any:
        """Fetch a block's inputs; None when the block is masked."""

    def compute(self, inputs: Any) -> Any:
        """Inputs to outputs."""

    def write(self, index: Index, outputs: Any) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Store durably; the digests of the parts and a summary."""

    def bundle(self, index: Index, error: BaseException, inputs: Any) -> str:
        """Keep what is needed to reproduce a failure; where it is."""


class Claim(Protocol):
    """A block in this worker's hands."""

    index: Index

    def settle(self, *, done: bool) -> None:
        """Tell whoever handed it out."""


@dataclass
class Attempt:
    """A claimed block on its way through the loop."""

    claim: Claim
    inputs: Any = None
    outputs: Any = None
    error: BaseException | None = None
    began: float = 0.0


def combined_digest(parts: Mapping[str, str]) -> str:
    """One digest for all the parts of a block."""
    return hashlib.sha256("\n".join(f"{name}={parts[name]}" for name in sorted(parts)).encode()).hexdigest()


def is_retryable(error: BaseException) -> bool:
    """Whether the same attempt may succeed later."""
    if isinstance(error, OSError):
        return error.errno in PASSING_ERRNOS
    return isinstance(error, Retryable | MemoryError)


class BlockLoop:
    """Runs claimed blocks of one task until there are no more."""

    def __init__(
        self,
        work: Work,
        journal: Journal,
        *,
        epoch: int,
        retries: int = 2,
        pause_s: float = 0.5,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.work = work
        self.journal = journal
        self.epoch = epoch
        self.retries = retries
        self.pause_s = pause_s
        self.before_commit = before_commit
        self.in_hand: set[Index] = set()
        self.stopping = False
        self._host = socket.gethostname()

    def run(self, claim_next: Callable[[], Claim | None], *, read_ahead: bool) -> None:
        """Work until `claim_next` has no more blocks, or `stopping` is set."""
        if read_ahead:
            self._run_overlapped(claim_next)
            return
        while (attempt := self._claim(claim_next)) is not None:
            self._read(attempt)
            self._compute(attempt)
            self._finish(attempt)

    def _run_overlapped(self, claim_next: Callable[[], Claim | None]) -> None:
        def fetch() -> Attempt | None:
            attempt = self._claim(claim_next)
            if attempt is not None:
                self._read(attempt)
            return attempt

        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            writing: Future[None] | None = None
            fetching = reader.submit(fetch)
            while (attempt := fetching.result()) is not None:
                fetching = reader.submit(fetch)
                self._compute(attempt)
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._finish, attempt)
            if writing is not None:
                writing.result()

    # ---- the steps ---------------------------------------------------------------------------------------------
    def _claim(self, claim_next: Callable[[], Claim | None]) -> Attempt | None:
        claim = None if self.stopping else claim_next()
        if claim is None:
            return None
        self.in_hand.add(claim.index)
        with suppress(Retryable):  # only for the curious: a full disk is the write's affair
            self.journal.append(self._base("start", claim.index), durable=False)
        return Attempt(claim, began=time.monotonic())

    def _read(self, attempt: Attempt) -> None:
        try:
            attempt.inputs = self.work.read(attempt.claim.index)
        except Exception as error:
            attempt.error = error

    def _compute(self, attempt: Attempt) -> None:
        if attempt.error is None and attempt.inputs is not None:
            try:
                attempt.outputs = self.work.compute(attempt.inputs)
            except Exception as error:
                attempt.error = error

    def _commit(self, attempt: Attempt) -> None:
        index = attempt.claim.index
        self.before_commit()
        if self.work.overwrites(index):
            self.journal.append(retract_record(BlockRef(self.work.task, index), self.epoch, "about to be rewritten"))
        masked = attempt.inputs is None
        parts, summary = ({}, {}) if masked else self.work.write(index, attempt.outputs)
        identity = self.work.identity(index)
        self.journal.append(
            {
                **self._base("receipt", index),
                "state": "masked" if masked else "done",
                "content": identity.content,
                "layout": identity.layout,
                "reads": identity.reads,
                "parts": dict(parts),
                "digest": "masked" if masked else combined_digest(parts),
                "summary": dict(summary),
                "seconds": round(time.monotonic() - attempt.began, 4),
                "peak_mb": peak_bytes() >> 20,
            }
        )

    def _finish(self, attempt: Attempt) -> None:
        """Commit; on an error try again from the start while that may help, then record the failure."""
        for left in range(self.retries, -1, -1):
            if attempt.error is None:
                try:
                    self._commit(attempt)
                except Fenced:
                    raise
                except Exception as error:
                    attempt.error = error
            if attempt.error is None:
                break
            if left == 0 or not is_retryable(attempt.error):
                self._give_up(attempt)
                break
            time.sleep(self.pause_s * 2 ** (self.retries - left))
            attempt.error = None
            self._read(attempt)
            self._compute(attempt)
        self.in_hand.discard(attempt.claim.index)
        attempt.claim.settle(done=attempt.error is None)

    def _give_up(self, attempt: Attempt) -> None:
        error = attempt.error
        if error is None:
            return
        index = attempt.claim.index
        try:
            bundle = self.work.bundle(index, error, attempt.inputs)
        except OSError as full:
            bundle = f"no bundle: {full.strerror}"
        key = self.work.identity(index).key
        failure = Failure(self.epoch, type(error).__name__, str(error), is_retryable(error), bundle, key)
        try:
            self.journal.append(failed_record(BlockRef(self.work.task, index), failure))
        except Retryable:
            pass  # the disk that failed the block may fail the record too; without a receipt the block is not done

    def _base(self, kind: str, index: Index) -> dict[str, Any]:
        ref = BlockRef(self.work.task, index)
        return {
            "v": SCHEMA,
            "kind": kind,
            "task": ref.task,
            "block": ref.label,
            "epoch": self.epoch,
            "host": self._host,
            "pid": os.getpid(),
        }
