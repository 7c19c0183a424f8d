"""Re-reads and re-hashes what the receipts vouch for, and takes back the receipts of what does not match.

`neurotile run` then repairs: a block without a receipt is not done.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ChunkError
from pipeline.plan import Task
from pipeline.rundir import RunFolder
from pipeline.work import TaskWork, load_plan
from workers.block import BlockRef, Index
from workers.fence import Fence
from workers.journal import SUFFIX, Journal
from workers.loop import combined_digest
from workers.receipts import Receipts, pack, retract_record


@dataclass
class Verified:
    """What was found."""

    checked: int = 0
    masked: int = 0
    stale: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)  # block, what is wrong


def verify(root: Path, *, sample: float = 1.0, on_block: Callable[[Verified], None] = lambda _: None) -> Verified:
    """Check a run's data against its receipts; `sample` is the share of blocks, chosen at random."""
    folder = RunFolder(root)
    folder.load()
    fence = Fence(folder.fence)
    epoch = fence.acquire()
    try:
        pack(folder.journals, lenient=True, epoch=epoch)
        receipts = Receipts(folder.journals)
        plan = load_plan(folder, receipts)
        found = Verified()
        choose = random.Random(epoch)  # noqa: S311 - a sample, not a secret
        with Journal(folder.journals / f"{epoch:06d}-verify{SUFFIX}") as journal:
            for task in plan.tasks:
                for index, receipt in list(receipts.held(task.name)):
                    identity = TaskWork(task, receipts, folder).identity(index)
                    ref = BlockRef(task.name, index)
                    if (receipt.content, receipt.layout) != (identity.content, identity.layout):
                        found.stale += 1  # of an earlier config: its data is not where this config's would be
                        continue
                    if choose.random() >= sample:
                        continue
                    wrong = "" if receipt.state != "done" else _wrong(task, index, receipt.digest)
                    found.checked += receipt.state == "done"
                    found.masked += receipt.state == "masked"
                    if wrong:
                        found.damaged.append((str(ref), wrong))
                        journal.append(retract_record(ref, epoch, wrong))
                    on_block(found)
        return found
    finally:
        fence.release()


def _wrong(task: Task, index: Index, digest: str) -> str:
    """What is wrong with a block's stored data; nothing if it matches its receipt."""
    try:
        stored = combined_digest(task.stage.reread(task.sweep.name, index))
    except ChunkError as error:
        return error.what
    return "" if stored == digest else "the stored bytes are valid but not those of the receipt"
