import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import ChunkCorrupt, ChunkMissing, WrongShape, WrongType
from pipeline.tables import digest_tables, read_tables, write_tables


def example():
    rng = np.random.default_rng(0)
    nodes = {"id": rng.integers(1, 2**63, 40, dtype=np.uint64), "size": np.arange(40), "flag": np.ones(40, np.uint8)}
    edges = {"u": np.zeros(0, np.uint64), "score": np.zeros(0), "code": np.zeros(0, np.int32)}
    return {"nodes": nodes, "edges": edges, "nothing": {}}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[s].keys() == b[s].keys()
        and all(a[s][c].dtype == b[s][c].dtype and np.array_equal(a[s][c], b[s][c], equal_nan=False) for c in a[s])
        for s in a
    )


def test_sections_of_different_lengths_come_back(tmp_path):
    path = tmp_path / "0" / "1" / "2.arrow"
    assert write_tables(path, example()) == digest_tables(example())
    found = read_tables(path)
    assert same(found, example())
    assert digest_tables(found) == digest_tables(example())
    assert same(read_tables(path, ["edges"]), {"edges": example()["edges"]})
    assert read_tables(path, ["nothing"]) == {"nothing": {}}
    assert list(path.parent.iterdir()) == [path]


def test_nothing_at_all_is_a_table_too(tmp_path):
    write_tables(tmp_path / "a", {})
    assert read_tables(tmp_path / "a") == {}
    write_tables(tmp_path / "a", {"edges": {}})
    assert read_tables(tmp_path / "a") == {"edges": {}}


columns = st.sampled_from(["u1", "u2", "i4", "u4", "i8", "u8", "f8"]).flatmap(
    lambda dtype: hnp.arrays(dtype, st.integers(0, 30), elements={"allow_nan": False} if dtype == "f8" else None)
)


@given(st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xy"), columns, max_size=1)))
@settings(max_examples=40, deadline=None)
def test_any_table_comes_back(tmp_path_factory, sections):
    path = tmp_path_factory.mktemp("tables") / "t.arrow"
    write_tables(path, sections)
    assert same(read_tables(path), sections)


def test_writing_again_replaces(tmp_path):
    path = tmp_path / "a"
    write_tables(path, example())
    write_tables(path, {"nodes": {"id": np.arange(3)}})
    assert same(read_tables(path), {"nodes": {"id": np.arange(3)}})


def test_views_are_stored_by_value(tmp_path):
    values = np.arange(20, dtype=np.uint64)
    sections = {"a": {"x": values[::2], "y": values.astype(">u8")[:10]}}
    assert write_tables(tmp_path / "a", sections) == digest_tables({"a": {"x": values[::2].copy(), "y": values[:10]}})
    assert same(read_tables(tmp_path / "a"), {"a": {"x": values[::2].copy(), "y": values[:10]}})


def test_others_can_read_it(tmp_path):
    write_tables(tmp_path / "a", example())
    with pa.OSFile(str(tmp_path / "a")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.num_rows == 1
    assert table.schema.field("nodes.id").type == pa.large_list(pa.uint64())
    assert table["nodes.size"][0].as_py() == list(range(40))


def test_no_damage_is_silent(tmp_path):
    path, rng = tmp_path / "a", np.random.default_rng(1)
    write_tables(path, example())
    good, caught = path.read_bytes(), 0
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        try:
            assert same(read_tables(path), example())  # padding between buffers may change
        except ChunkCorrupt:
            caught += 1
    assert caught > 200
    for length in [0, 1, 8, *rng.integers(0, len(good), 50)]:
        path.write_bytes(good[:length])
        with pytest.raises(ChunkCorrupt):
            read_tables(path)


def test_what_is_not_there_is_missing(tmp_path):
    with pytest.raises(ChunkMissing, match="missing") as caught:
        read_tables(tmp_path / "none")
    assert "neurotile run" in str(caught.value)
    write_tables(tmp_path / "a", example())
    with pytest.raises(ChunkCorrupt, match="no section faces"):
        read_tables(tmp_path / "a", ["faces"])
    (tmp_path / "plain").write_bytes(b"hello")
    with pytest.raises(ChunkCorrupt):
        read_tables(tmp_path / "plain")
    with pa.OSFile(str(tmp_path / "other"), "wb") as file, pa.ipc.new_file(file, pa.schema([])):
        pass
    with pytest.raises(ChunkCorrupt, match="not a table of neurotile"):
        read_tables(tmp_path / "other")


@pytest.mark.parametrize(
    ("sections", "error", "reason"),
    [
        ({"a": {"x": np.zeros(2), "y": np.zeros(3)}}, WrongShape, "different lengths"),
        ({"a": {"x": np.zeros((2, 2))}}, WrongShape, "2 axes"),
        ({"a": {"x": np.zeros(2, bool)}}, WrongType, "bool"),
        ({"a": {"x": np.array(["b"])}}, WrongType, "<U1"),
        ({"a.b": {"x": np.zeros(2)}}, WrongShape, "no name"),
        ({"a": {"": np.zeros(2)}}, WrongShape, "no name"),
    ],
)
def test_what_a_table_cannot_hold_is_refused(tmp_path, sections, error, reason):
    with pytest.raises(error, match=reason):
        write_tables(tmp_path / "a", sections)
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_of_content():
    one = {"a": {"x": np.arange(3), "y": np.arange(3)}, "b": {}}
    other = {"b": {}, "a": {"y": np.arange(3), "x": np.arange(3)}}
    assert digest_tables(one) == digest_tables(other)
    changed = [
        {"a": {"x": np.arange(3), "y": np.arange(3)}},
        {"a": {"x": np.arange(3), "z": np.arange(3)}, "b": {}},
        {"a": {"x": np.arange(3), "y": np.arange(3).astype("u8")}, "b": {}},
        {"a": {"x": np.arange(3), "y": np.arange(1, 4)}, "b": {}},
    ]
    assert len({digest_tables(t) for t in [one, *changed]}) == 5


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pipeline.errors import StorageBusy
from pipeline.tables import write_tables
import pyarrow.ipc
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write_tables(Path(sys.argv[1]), {"a": {"x": np.random.default_rng(0).random(1000)}})
except StorageBusy as error:
    sys.stderr.write(str(error))
    sys.exit(7)
"""


def test_a_full_disk_is_retryable_and_leaves_the_old_table(tmp_path):
    path = tmp_path / "a"
    write_tables(path, example())
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "free space" in done.stderr
    assert same(read_tables(path), example())
    assert list(tmp_path.iterdir()) == [path]
