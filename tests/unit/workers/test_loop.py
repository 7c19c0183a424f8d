"""The block loop: protocol order, retries, quarantine, masks, read-ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workers.block import BlockRef, Index
from workers.errors import Poison, Retryable
from workers.journal import Journal
from workers.loop import BlockLoop, Claim, Identity, is_retryable
from workers.receipts import Receipts


@dataclass
class Claimed:
    index: Index
    settled: list[bool] = field(default_factory=list)

    def settle(self, *, done: bool) -> None:
        self.settled.append(done)


@dataclass
class Work:
    """Doubles numbers; `mishaps` maps a block to errors raised by its next attempts."""

    folder: Path
    task: str = "double/blocks"
    mishaps: dict[Index, list[Exception]] = field(default_factory=dict)
    masked: frozenset[Index] = frozenset()
    has_receipt: bool = False
    log: list[str] = field(default_factory=list)

    def identity(self, index: Index) -> Identity:
        return Identity("content", "layout", "reads")

    def overwrites(self, index: Index) -> bool:
        return self.has_receipt

    def read(self, index: Index) -> Any:
        return None if index in self.masked else index[2]

    def compute(self, inputs: Any) -> Any:
        errors = self.mishaps.get((0, 0, inputs), [])
        if errors:
            raise errors.pop(0)
        return 2 * inputs

    def write(self, index: Index, outputs: Any) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        journal = next(self.folder.glob("*.journal")).read_text()
        mine = [line for line in journal.splitlines() if f'"block":"0.0.{index[2]}"' in line]
        assert not any('"kind":"receipt"' in line for line in mine), "the receipt came before the data"
        self.log.append(f"write {index[2]} retracted={any('retract' in line for line in mine)}")
        return {"out": str(outputs)}, {"value": outputs}

    def bundle(self, index: Index, error: BaseException, inputs: Any) -> str:
        return f"bundle of {index[2]}"


def run(work: Work, count: int, *, read_ahead: bool) -> tuple[Receipts, list[Claimed]]:
    claims = [Claimed((0, 0, n)) for n in range(count)]
    left = iter(claims)
    claim_next: Callable[[], Claim | None] = lambda: next(left, None)  # noqa: E731
    with Journal(work.folder / "1.journal") as journal:
        BlockLoop(work, journal, epoch=1, retries=2, pause_s=0.0).run(claim_next, read_ahead=read_ahead)
    return Receipts(work.folder), claims


@pytest.mark.parametrize("read_ahead", [False, True])
def test_everything_is_done_once(tmp_path: Path, read_ahead: bool) -> None:
    work = Work(tmp_path, masked=frozenset({(0, 0, 3)}))
    receipts, claims = run(work, 8, read_ahead=read_ahead)
    assert [c.settled for c in claims] == [[True]] * 8
    found = {index[2]: receipt.state for index, receipt in receipts.held(work.task)}
    assert found == {n: "masked" if n == 3 else "done" for n in range(8)}
    assert receipts.summary(BlockRef(work.task, (0, 0, 5))) == {"value": 10}
    assert not receipts.started


@pytest.mark.parametrize("read_ahead", [False, True])
def test_passing_faults_are_tried_again_and_poison_is_not(tmp_path: Path, read_ahead: bool) -> None:
    work = Work(tmp_path)
    work.mishaps = {
        (0, 0, 1): [Retryable("busy"), OSError(28, "No space left on device")],
        (0, 0, 2): [Poison("bad data"), Poison("never reached")],
        (0, 0, 3): [Retryable("busy")] * 9,
        (0, 0, 4): [ValueError("a bug")],
    }
    receipts, claims = run(work, 6, read_ahead=read_ahead)
    assert [c.settled for c in claims] == [[True], [True], [False], [False], [False], [True]]
    failures = {index[2]: failure for index, failure in receipts.failures(work.task)}
    assert {n: (f.error, f.retryable) for n, f in failures.items()} == {
        2: ("Poison", False),
        3: ("Retryable", True),
        4: ("ValueError", False),
    }
    assert len(work.mishaps[0, 0, 2]) == 1
    assert len(work.mishaps[0, 0, 3]) == 6
    assert failures[2].bundle == "bundle of 2"
    assert failures[2].identity == "content:reads"


def test_old_receipts_are_retracted_before_data_is_replaced(tmp_path: Path) -> None:
    work = Work(tmp_path, has_receipt=True)
    run(work, 2, read_ahead=False)
    assert work.log == ["write 0 retracted=True", "write 1 retracted=True"]


def test_stopping_takes_no_further_block(tmp_path: Path) -> None:
    work = Work(tmp_path)
    claims = iter([Claimed((0, 0, n)) for n in range(5)])
    with Journal(tmp_path / "1.journal") as journal:
        loop = BlockLoop(work, journal, epoch=1)

        def claim_next() -> Claim | None:
            claim = next(claims)
            loop.stopping = claim.index[2] == 1
            return claim

        loop.run(claim_next, read_ahead=False)
    assert len(list(Receipts(tmp_path).held(work.task))) == 2


def test_what_passes_and_what_does_not() -> None:
    assert is_retryable(OSError(28, "full"))
    assert is_retryable(MemoryError())
    assert is_retryable(Retryable("x"))
    assert not is_retryable(FileNotFoundError(2, "gone"))
    assert not is_retryable(Poison("x"))
