"""Which record holds is decided by epochs alone, in whatever order the journals are read."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

from workers.block import BlockRef
from workers.journal import Journal, Record
from workers.receipts import PACKED_OVER, Failure, Receipts, failed_record, pack, retract_record

REF = BlockRef("stage/pass", (1, 0, 2))


def receipt(epoch: int, digest: str = "d", ref: BlockRef = REF) -> Record:
    return {
        "v": 1,
        "kind": "receipt",
        "task": ref.task,
        "block": ref.label,
        "epoch": epoch,
        "host": "h",
        "pid": 1,
        "state": "done",
        "content": "c",
        "layout": "l",
        "reads": "r",
        "parts": {},
        "digest": digest,
        "summary": {"answer": 42},
        "seconds": 0.5,
    }


def failed(epoch: int) -> Record:
    return failed_record(REF, Failure(epoch, "E", "what", False, "", "c:r"))


def journals(folder: Path, records: list[Record]) -> Receipts:
    for number, record in enumerate(records):
        with Journal(folder / f"{number:03d}.journal") as journal:
            journal.append(record)
    return Receipts(folder)


def state(receipts: Receipts) -> str:
    found = receipts.get(REF)
    assert found is None or receipts.failure(REF) is None
    return found.digest if found else "failed" if receipts.failure(REF) else "nothing"


def test_the_order_of_reading_does_not_matter(tmp_path: Path) -> None:
    cases: list[tuple[list[Record], str]] = [
        ([receipt(1)], "d"),
        ([receipt(1), failed(2)], "failed"),
        ([receipt(1), failed(1)], "d"),
        ([receipt(1), retract_record(REF, 2, "")], "nothing"),
        ([receipt(1), retract_record(REF, 2, ""), receipt(2, "new")], "new"),
        ([receipt(1), retract_record(REF, 2, ""), failed(2)], "failed"),
        ([receipt(1), failed(2), retract_record(REF, 3, "")], "nothing"),
        ([receipt(1), failed(2), receipt(3, "new")], "new"),
    ]
    for number, (records, expected) in enumerate(cases):
        for turn, order in enumerate(permutations(records)):
            assert state(journals(tmp_path / f"{number}-{turn}", list(order))) == expected, (number, order)


def test_summaries_are_read_on_demand(tmp_path: Path) -> None:
    assert journals(tmp_path, [receipt(1)]).summary(REF) == {"answer": 42}


def test_packing_keeps_what_holds(tmp_path: Path) -> None:
    records: list[Any] = [receipt(1, f"d{n}", BlockRef("t/p", (0, 0, n))) for n in range(PACKED_OVER + 1)]
    before = journals(tmp_path, [*records, receipt(1), retract_record(REF, 2, ""), failed(3)])
    pack(tmp_path, epoch=4)
    assert len(list(tmp_path.iterdir())) == 1
    after = Receipts(tmp_path)
    assert dict(before.held("t/p")).keys() == dict(after.held("t/p")).keys()
    assert [r.digest for _, r in sorted(after.held("t/p"))] == [r.digest for _, r in sorted(before.held("t/p"))]
    assert state(after) == "failed"
