"""What every stage promises: what it needs, what decides its answer, and read, compute, write for one block.

A stage has one or more passes over a grid of blocks (hierarchical stages: one pass a level, up, then down). A pass of
a stage is a task, named `stage/pass`. `read` and `write` do the input and output, `compute` calls the op and touches
nothing else, so that reading ahead, retrying and reproducing a block are the same for all stages.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pipeline.config import RunConfig
from pipeline.geometry import Box, Grid, Index, Layer
from workers.block import BlockRef

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
S = TypeVar("S", bound="Stage[Any, Any]")


@dataclass(frozen=True)
class Pass:
    """One sweep over a grid of blocks."""

    name: str
    grid: Grid


@dataclass(frozen=True)
class Written:
    """What a block's write left on disk: a digest for every part, and numbers worth keeping in its receipt."""

    parts: Mapping[str, str]
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where a stage lives: the config, the layer, the run's data folder and the stages before it."""

    config: RunConfig
    layer: Layer
    facts: Mapping[str, Any]  # resolved once per run: fingerprints, weights' spec and hash
    data: Path
    before: tuple[Stage[Any, Any], ...] = ()
    summary: Callable[[BlockRef], Mapping[str, Any]] = lambda _: {}

    def find(self, kind: type[S]) -> S:
        """The stage of a kind that comes before; of several, the one that is active."""
        found = [stage for stage in self.before if isinstance(stage, kind)]
        if not found:
            raise LookupError(f"no {kind.__name__} stage comes before")
        return next((stage for stage in found if stage.active), found[0])


def canonical_hash(content: Any) -> str:
    """A hash of JSON content that does not depend on key order or white space."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Stage(ABC, Generic[Inputs, Outputs]):
    """A stage of the pipeline, bound to its site."""

    name: ClassVar[str]
    schema: ClassVar[int] = 1  # raise it whenever the op's answer changes
    storage: ClassVar[int] = 1  # raise it whenever the same answer is stored in another form
    pool: ClassVar[Literal["cpu", "gpu"]] = "cpu"

    def __init__(self, site: Site) -> None:
        self.site = site

    # ---- what it is --------------------------------------------------------------------------------------------
    @property
    def active(self) -> bool:
        """Whether the config calls for it. What is not active has no passes and is no part of the plan."""
        return True

    @abstractmethod
    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        """The stages whose output it reads."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Everything besides the inputs that decides the answer: JSON, no paths, no worker counts."""

    @abstractmethod
    def passes(self) -> tuple[Pass, ...]:
        """The sweeps, in order."""

    @abstractmethod
    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        """The blocks whose output a block reads: of other stages and of earlier passes."""

    def block_content(self, sweep: str, index: Index) -> Any:
        """What decides this block's answer beyond the stage's content (an override that touches it); mostly nothing."""
        return None

    def masked(self, sweep: str, index: Index) -> bool:
        """Whether there is nothing to compute here: the block gets a receipt and no data."""
        return False

    def pool_of(self, sweep: str) -> Literal["cpu", "gpu"]:
        """Which workers do a pass: those of the stage's pool, unless it says otherwise."""
        return self.pool

    def device_class(self, sweep: str) -> str | None:
        """What kind of device computes in a pass, if its bits depend on that."""
        return None

    # ---- the work ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Create the arrays, before the first block. Idempotent."""
        return None

    @abstractmethod
    def read(self, sweep: str, index: Index) -> Inputs:
        """Fetch what a block needs; everything `compute` uses is in the result."""

    @abstractmethod
    def compute(self, inputs: Inputs) -> Outputs:
        """Call the op."""

    @abstractmethod
    def write(self, sweep: str, index: Index, outputs: Outputs) -> Written:
        """Store a block durably."""

    @abstractmethod
    def reread(self, sweep: str, index: Index) -> Mapping[str, str]:
        """The digests of what is stored now, for comparison with the receipt."""

    # ---- what it costs -----------------------------------------------------------------------------------------
    @abstractmethod
    def memory_bytes(self, sweep: str) -> int:
        """A bound on a worker's peak memory in one block, interpreter and libraries not counted."""

    @abstractmethod
    def stored_bytes(self) -> int:
        """A bound on what it stores, before compression."""

    def inodes(self) -> int:
        """Files and folders it makes; one file a block unless it says otherwise."""
        return sum(2 + p.grid.shape[0] * (1 + p.grid.shape[1]) + p.grid.count for p in self.passes())

    # ---- derived -----------------------------------------------------------------------------------------------
    @cached_property
    def identity(self) -> str:
        """The content hash: same hash, same answer."""
        inputs = {stage.name: stage.identity for stage in self.upstream()}
        return canonical_hash({"stage": self.name, "schema": self.schema, "content": self.content(), "inputs": inputs})

    @cached_property
    def layout(self) -> str:
        """The layout hash: how the same answer is cut and stored."""
        passes = [[p.name, p.grid.box.begin, p.grid.box.end, p.grid.block] for p in self.passes()]
        form = {"passes": passes, "chunk": self.site.config.blocks.chunk, "storage": self.storage}
        return canonical_hash(form)

    @cached_property
    def folder(self) -> Path:
        """Where its outputs live: under their content and layout hash, so that no late worker meets newer data."""
        return self.site.data / f"{self.name}-{self.identity[:12]}-{self.layout[:8]}"

    def sweep(self, name: str) -> Pass:
        """One pass by name."""
        return next(p for p in self.passes() if p.name == name)

    def task(self, sweep: str) -> str:
        """The name of a pass as a task."""
        return f"{self.name}/{sweep}"

    def refs(self, sweep: str, box: Box) -> Iterable[BlockRef]:
        """The blocks of one pass that touch a box."""
        task = self.task(sweep)
        return (BlockRef(task, index) for index in self.sweep(sweep).grid.touching(box))

    def table_path(self, sweep: str, index: Index) -> Path:
        """The table container of a block."""
        z, y, x = index
        return self.folder / sweep / str(z) / str(y) / f"{x}.arrow"
