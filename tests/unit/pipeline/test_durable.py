import errno
import os

import pytest

from pipeline import durable
from pipeline.errors import ChunkCorrupt, ChunkMissing, StorageBusy


def _interrupted(path):
    with durable.replacing(path) as file:
        file.write(b"half")
        (left,) = [p.name for p in path.parent.iterdir() if p != path]
        assert left.startswith(f"file.partial-{os.getpid()}-")
        raise KeyboardInterrupt


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    durable.replace_file(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert path.read_bytes() == b"old"
    durable.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_data_is_synced_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), real_fsync(handle))
    )
    monkeypatch.setattr(type(tmp_path), "rename", lambda path, to: (calls.append("rename"), real_rename(path, to)))
    durable.make_folder(tmp_path)
    calls.clear()
    durable.replace_file(tmp_path / "file", b"content")
    assert [c.partition(".partial")[0] for c in calls] == [str(tmp_path / "file"), "rename", str(tmp_path)]


def test_a_folder_that_was_removed_is_made_again(tmp_path):
    folder = tmp_path / "a" / "b"
    durable.make_folder(folder)
    folder.rmdir()
    durable.make_folder(folder)
    assert folder.is_dir()


def test_the_sweep_takes_leftovers_only(tmp_path):
    left = ["x.arrow.partial-12-0", "zarr.json.partial-7-3", "0.__lock", "0_b3e656de6a57304a.__lock"]
    kept = ["x.arrow", "zarr.json", "0", "notes.partial", "lock"]
    (tmp_path / "c").mkdir()
    for name in left + kept:
        (tmp_path / "c" / name).touch()
    assert [p.name for p in durable.sweep_partial(tmp_path)] == sorted(left)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted(kept)
    assert durable.sweep_partial(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (errno.ENOSPC, StorageBusy, "free space"),
        (errno.EDQUOT, StorageBusy, "quota"),
        (errno.EFBIG, StorageBusy, "free space"),
        (errno.EIO, StorageBusy, "disk"),
        (errno.ESTALE, StorageBusy, "mount"),
        (errno.EROFS, StorageBusy, "writable"),
        (None, StorageBusy, "disk"),
        (errno.ENOENT, ChunkMissing, "verify"),
    ],
)
def test_an_errno_has_a_name_and_a_way_out(code, kind, hint):
    error = durable.storage_error(code, "text", where="here")
    assert type(error) is kind
    assert hint in error.way_out


def test_reading_is_capped_and_named(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert durable.read_file(path, limit=5) == b"12345"
    with pytest.raises(ChunkCorrupt, match="5 bytes"):
        durable.read_file(path, limit=4)
    with pytest.raises(ChunkMissing):
        durable.read_file(tmp_path / "none", limit=4)


def test_a_write_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageBusy):
        durable.replace_file(tmp_path / "file", b"a folder is in the way")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
