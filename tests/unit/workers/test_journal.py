"""A journal gives back exactly what was appended, whatever a kill or a bit flip does to its bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from workers.errors import JournalDamaged, Retryable
from workers.files import write_atomically
from workers.journal import Journal, read_record_at, read_records, write_packed


def filled(path: Path, count: int = 5) -> list[dict[str, object]]:
    records: list[dict[str, object]] = [{"number": n, "text": "ü\n" * n} for n in range(count)]
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
    return records


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    records = filled(tmp_path / "a.journal")
    found = list(read_records(tmp_path / "a.journal"))
    assert [record for _, _, record in found] == records
    assert read_record_at(tmp_path / "a.journal", found[3][0]) == records[3]


def test_every_torn_tail_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    records = filled(path)
    whole = path.read_bytes()
    ends = [end for _, end, _ in read_records(path)]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        assert [r for _, _, r in read_records(path)] == records[:kept]


def test_every_bit_flip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    records = filled(path)
    whole = bytearray(path.read_bytes())
    choose = random.Random(0)
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        try:
            found = [r for _, _, r in read_records(path)]
        except JournalDamaged:
            pass
        else:
            assert found == records[: len(found)]
            assert len(found) == len(records) - 1  # only damage to the last record can pass for a torn tail
        lenient = [r for _, _, r in read_records(path, lenient=True)]
        assert all(r in records for r in lenient)


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        journal.append({"n": 1})
        ((_, end, _),) = read_records(path)
        journal.append({"n": 2})
        assert [r for _, _, r in read_records(path, end)] == [{"n": 2}]


def test_two_writers_cannot_share_a_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.journal"), pytest.raises(FileExistsError):
        Journal(tmp_path / "a.journal")


def test_a_record_that_did_not_fit_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        journal.append({"n": 1})

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fdatasync", full)
            with pytest.raises(Retryable, match="No space left"):
                journal.append({"n": 2})
        journal.append({"n": 3})
    assert [r for _, _, r in read_records(path)] == [{"n": 1}, {"n": 3}]


def test_packed_and_small_files_are_whole(tmp_path: Path) -> None:
    write_packed(tmp_path / "p.journal", iter([{"n": 1}, {"n": 2}]))
    assert [r["n"] for _, _, r in read_records(tmp_path / "p.journal")] == [1, 2]
    write_atomically(tmp_path / "small", b"old")
    write_atomically(tmp_path / "small", b"new")
    assert (tmp_path / "small").read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.journal", "small"]
