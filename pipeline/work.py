"""Between stages and workers: what a task's blocks are, which of them need work, and how one is done.

Identity of a block: `content` is the stage's hash with whatever is special to the block; `layout` how it is stored;
`reads` a digest over the digests of the blocks it reads. A block is stale iff its content or a digest that it read has
changed, so a recomputed block that comes out as before leaves everything after it alone.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config import RunConfig, parse
from pipeline.errors import WrongDevice
from pipeline.geometry import Index
from pipeline.plan import Plan, Task, build
from pipeline.rundir import RunFolder
from pipeline.stages.stage import canonical_hash
from workers.block import BlockRef
from workers.loop import Identity
from workers.receipts import Failure, Receipts

BUNDLE_BYTES = 256 << 20  # larger inputs are not copied into a bundle; the command reproduces them anyway


def recorded_config(folder: RunFolder) -> RunConfig:
    """The config of the run in a directory."""
    return parse(folder.load()["config"], where=str(folder.record))


def load_plan(folder: RunFolder, receipts: Receipts) -> Plan:
    """The plan of the run in a directory, as it was resolved when it started."""
    record = folder.load()
    config = parse(record["config"], where=str(folder.record))
    return build(config, record["facts"], folder.data, receipts.summary)


class TaskWork:
    """One task, as the block loop sees it."""

    def __init__(self, task: Task, receipts: Receipts, folder: RunFolder) -> None:
        self.task = task.name
        self._stage = task.stage
        self._sweep = task.sweep.name
        self._receipts = receipts
        self._folder = folder

    def ref(self, index: Index) -> BlockRef:
        """A block of this task."""
        return BlockRef(self.task, index)

    def check_device(self, *, mixed: bool) -> None:
        """Refuse to compute on another class of device than the run's first block, unless mixing is allowed."""
        mine = self._stage.device_class(self._sweep)
        if mine is None:
            return
        settled = self._folder.settle_device(mine)
        if settled != mine and not mixed:
            raise WrongDevice(
                f"this worker computes on {mine}, the run on {settled}: their bits may differ",
                where=str(self._folder.device),
                way_out="start workers on like devices, or set predict.mixed_devices = true and lose bit-identity",
            )

    def identity(self, index: Index) -> Identity:
        """The hashes of a block, given the receipts that hold now."""
        own = self._stage.block_content(self._sweep, index)
        content = self._stage.identity if own is None else canonical_hash([self._stage.identity, own])
        digests = hashlib.sha256()
        for need in self._stage.needs(self._sweep, index):
            receipt = self._receipts.get(need)
            digests.update(f"{need}={receipt.digest if receipt else 'missing'}\n".encode())
        return Identity(content, self._stage.layout, digests.hexdigest())

    def overwrites(self, index: Index) -> bool:
        """Whether a receipt vouches for this block now."""
        return self._receipts.get(self.ref(index)) is not None

    def read(self, index: Index) -> Any:
        """The block's inputs, or None if it is masked."""
        return None if self._stage.masked(self._sweep, index) else self._stage.read(self._sweep, index)

    def compute(self, inputs: Any) -> Any:
        """The stage's op."""
        return self._stage.compute(inputs)

    def write(self, index: Index, outputs: Any) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Store durably."""
        written = self._stage.write(self._sweep, index, outputs)
        return written.parts, written.summary

    def bundle(self, index: Index, error: BaseException, inputs: Any) -> str:
        """The error, the command that reproduces it, and the inputs where they are arrays of a bearable size."""
        place = self._folder.failed / self.task / self.ref(index).label
        place.mkdir(parents=True, exist_ok=True)
        arrays = dict(_arrays_in(inputs))
        kept = bool(arrays) and sum(a.nbytes for a in arrays.values()) <= BUNDLE_BYTES
        story = {
            "task": self.task,
            "block": self.ref(index).label,
            "error": type(error).__name__,
            "message": str(error),
            "command": reproduce_command(self._folder, self.ref(index)),
            "reads": [str(need) for need in self._stage.needs(self._sweep, index)],
            "inputs": "inputs.npz" if kept else "not kept: too large, or the block could not be read",
            "traceback": traceback.format_exception(error),
        }
        (place / "error.json").write_text(json.dumps(story, indent=1))
        if kept:
            np.savez(place / "inputs.npz", **arrays)  # type: ignore[arg-type]
        return str(place.relative_to(self._folder.root))


def reproduce_command(folder: RunFolder, ref: BlockRef) -> str:
    """One command that runs one block in the foreground."""
    return f"neurotile worker {shlex.quote(str(folder.root.absolute()))} {ref.task} --block {ref.label} --debug"


def _arrays_in(inputs: Any, prefix: str = "") -> Iterable[tuple[str, np.ndarray[Any, Any]]]:
    if isinstance(inputs, np.ndarray):
        yield prefix or "array", inputs
    elif isinstance(inputs, Mapping):
        for key, value in inputs.items():
            yield from _arrays_in(value, f"{prefix}.{key}".strip("."))
    elif isinstance(inputs, list | tuple):
        for number, value in enumerate(inputs):
            yield from _arrays_in(value, f"{prefix}.{number}".strip("."))
    elif hasattr(inputs, "__dataclass_fields__"):
        for name in inputs.__dataclass_fields__:
            yield from _arrays_in(getattr(inputs, name), f"{prefix}.{name}".strip("."))


@dataclass
class Survey:
    """How the blocks of one task stand."""

    task: Task
    current: dict[Index, str] = field(default_factory=dict)  # index -> digest
    masked: set[Index] = field(default_factory=set)
    ready: list[Index] = field(default_factory=list)
    stale: int = 0  # of the ready ones: those that were done before
    failed: dict[Index, Failure] = field(default_factory=dict)
    waiting: list[Index] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All blocks."""
        return self.task.sweep.grid.count

    @property
    def done(self) -> int:
        """Blocks with data."""
        return len(self.current) - len(self.masked)

    def counts(self) -> dict[str, int]:
        """Counts by state; they add up to `total`."""
        return {
            "total": self.total,
            "done": self.done,
            "masked": len(self.masked),
            "failed": len(self.failed),
            "waiting": len(self.waiting),
            "pending": len(self.ready),
        }


class Ledger:
    """Walks the tasks in order and knows which blocks are current: receipt, identity and all it read agree."""

    def __init__(self, plan: Plan, receipts: Receipts, folder: RunFolder) -> None:
        self.plan = plan
        self.receipts = receipts
        self.folder = folder
        self._current: dict[str, dict[Index, str]] = {}

    def survey(self, task: Task, *, again: bool = False) -> Survey:
        """Sort a task's blocks by state. With `again`, blocks that failed for good are ready once more.

        Tasks must be surveyed in order: what a block reads must have been surveyed before.
        """
        work = TaskWork(task, self.receipts, self.folder)
        found = Survey(task)
        for index in task.sweep.grid:
            if not self._inputs_current(task, index):
                found.waiting.append(index)
                continue
            identity = work.identity(index)
            receipt = self.receipts.get(work.ref(index))
            if receipt is not None and (receipt.content, receipt.layout, receipt.reads) == (
                identity.content,
                identity.layout,
                identity.reads,
            ):
                found.current[index] = receipt.digest
                if receipt.state == "masked":
                    found.masked.add(index)
                continue
            failure = self.receipts.failure(work.ref(index))
            if failure is not None and not failure.retryable and not again and failure.identity == identity.key:
                found.failed[index] = failure
                continue
            found.ready.append(index)
            found.stale += receipt is not None
        self._current[task.name] = found.current
        return found

    def settle(self, task: Task, epoch: int) -> Survey:
        """Survey after execution: what is ready and has failed in this epoch counts as failed."""
        self.receipts.refresh()
        found = self.survey(task)
        for index in list(found.ready):
            failure = self.receipts.failure(BlockRef(task.name, index))
            if failure is not None and failure.epoch == epoch:
                found.ready.remove(index)
                found.failed[index] = failure
        return found

    def _inputs_current(self, task: Task, index: Index) -> bool:
        return all(need.index in self._current.get(need.task, {}) for need in task.stage.needs(task.sweep.name, index))
