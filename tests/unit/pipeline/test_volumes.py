import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import durable, volumes
from pipeline.errors import ChunkCorrupt, ChunkMissing, IdentityMismatch, NotFinite, StorageBusy, WrongShape, WrongType
from pipeline.geometry import Box, VoxelSize
from pipeline.volumes import ArraySpec, Volume, array_error, digest, write_multiscale
from workers import files as durable_files

BLOCK = Box((0, 0, 0), (8, 16, 16))
SIZE = VoxelSize.from_nm((30, 6, 6))


def spec(**changes):
    plain = {"shape": (12, 24, 20), "dtype": "uint8", "block": (8, 16, 16), "chunk": (8, 8, 8), "voxel_size": SIZE}
    return ArraySpec(**{**plain, **changes})


def noise(shape, dtype="uint8", seed=0):
    values = np.random.default_rng(seed).integers(0, 251, shape)
    return values.astype(dtype)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def shard(volume, label="0/0/0"):
    return volume.path / "c" / label


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "int32", "float32"])
@pytest.mark.parametrize("channels", [None, 3])
def test_every_block_comes_back(tmp_path, dtype, channels):
    lead = () if channels is None else (channels,)
    volume = Volume.create(
        tmp_path / "a", spec(shape=(*lead, 12, 24, 20), dtype=dtype, channels=channels, offset=(5, 0, 7))
    )
    whole = noise((*lead, 12, 24, 20), dtype)
    for z in (0, 8):
        for y in (0, 16):
            for x in (0, 16):
                local = Box((z, y, x), (z + 8, y + 16, x + 16)).clip(Box.of_shape((12, 24, 20)))
                data = np.ascontiguousarray(whole[(..., *local.slices())])
                assert volume.write(local.shift((5, 0, 7)), data) == digest(data)
    assert np.array_equal(volume.read(volume.box), whole)
    inner = Box((6, 3, 8), (15, 20, 25))
    assert np.array_equal(volume.read(inner), whole[(..., *inner.slices((5, 0, 7)))])
    assert volume.read(inner).flags.c_contiguous
    assert len([f for f in files(volume.path) if f != "zarr.json"]) == 8


def test_a_write_makes_one_file_and_leaves_its_neighbours_alone(tmp_path):
    volume = Volume.create(tmp_path / "a", spec())
    neighbour = Box((0, 0, 16), (8, 16, 20))
    volume.write(neighbour, noise(neighbour.shape))
    before = shard(volume, "0/0/1").stat()
    volume.write(BLOCK, noise(BLOCK.shape))
    assert files(volume.path) == ["c/0/0/0", "c/0/0/1", "zarr.json"]
    assert shard(volume, "0/0/1").stat().st_mtime_ns == before.st_mtime_ns
    assert shard(volume, "0/0/1").stat().st_ino == before.st_ino


def test_zeros_are_stored_and_what_was_not_written_is_missing(tmp_path):
    volume = Volume.create(tmp_path / "a", spec())
    volume.write(BLOCK, np.zeros(BLOCK.shape, np.uint8))
    assert not volume.read(BLOCK).any()
    with pytest.raises(ChunkMissing, match="is missing") as caught:
        volume.read(Box((0, 0, 15), (1, 1, 17)))
    assert "box [0:1, 0:1, 15:17]" in str(caught.value)
    assert "neurotile verify" in str(caught.value)


def test_a_missing_inner_chunk_is_missing(tmp_path):
    import tensorstore as ts

    volume = Volume.create(tmp_path / "a", spec(shape=(8, 16, 16)))
    kvstore = {"driver": "file", "path": str(volume.path)}
    part = ts.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    part[:, :8, :8].write(noise((8, 8, 8))).result()
    assert volume.read(Box((0, 0, 0), (8, 8, 8))).any()
    with pytest.raises(ChunkMissing):
        volume.read(BLOCK)


def test_no_damage_is_silent(tmp_path):
    volume = Volume.create(tmp_path / "a", spec(dtype="uint64"))
    data = noise(BLOCK.shape, "uint64")
    volume.write(BLOCK, data)
    path, rng = shard(volume), np.random.default_rng(1)
    good = path.read_bytes()
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        with pytest.raises((ChunkCorrupt, ChunkMissing)):
            volume.read(BLOCK)
    for length in (0, 1, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(ChunkCorrupt):
            volume.read(BLOCK)
    path.unlink()
    with pytest.raises(ChunkMissing):
        volume.read(BLOCK)


@pytest.mark.parametrize("box", [BLOCK, Box((8, 16, 16), (12, 24, 20))])
def test_a_damaged_shard_can_be_written_again(tmp_path, box):
    volume = Volume.create(tmp_path / "a", spec())
    label = "0/0/0" if box == BLOCK else "1/1/1"
    shard(volume, label).parent.mkdir(parents=True)
    shard(volume, label).write_bytes(b"not a shard")
    volume.write(box, noise(box.shape))
    assert np.array_equal(volume.read(box), noise(box.shape))


def test_what_a_killed_writer_left_does_not_reach_the_next_shard(tmp_path):
    volume = Volume.create(tmp_path / "a", spec())
    shard(volume).parent.mkdir(parents=True)
    left = Path(f"{shard(volume)}.__lock")
    left.write_bytes(b"x" * 100_000)
    volume.write(BLOCK, noise(BLOCK.shape))
    assert np.array_equal(volume.read(BLOCK), noise(BLOCK.shape))
    assert durable.sweep_partial(tmp_path) == [left]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from pipeline.volumes import Volume
volume = Volume.open(Path(sys.argv[1]))
data = np.random.default_rng(0).integers(0, 251, volume.box.shape).astype(volume.dtype)
print("ready", flush=True)
while True:
    volume.write(volume.box, data)
"""


def test_a_killed_writer_leaves_a_whole_shard_and_nothing_that_the_sweep_misses(tmp_path):
    volume = Volume.create(tmp_path / "a", spec(shape=(8, 16, 16), dtype="uint64"))
    volume.write(BLOCK, noise(BLOCK.shape, "uint64"))
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(volume.path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.05)
        writer.kill()
        writer.communicate()
        assert np.array_equal(volume.read(BLOCK), noise(BLOCK.shape, "uint64"))
    durable.sweep_partial(volume.path)
    assert files(volume.path) == ["c/0/0/0", "zarr.json"]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pipeline.errors import StorageBusy
from pipeline.volumes import Volume
volume = Volume.open(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    volume.write(volume.box, np.random.default_rng(1).integers(0, 251, volume.box.shape).astype(volume.dtype))
except StorageBusy as error:
    sys.stderr.write(str(error))
    sys.exit(7)
"""


def test_a_full_disk_is_retryable_and_leaves_the_old_shard(tmp_path):
    volume = Volume.create(tmp_path / "a", spec(shape=(8, 16, 16)))
    volume.write(BLOCK, noise(BLOCK.shape))
    done = subprocess.run([sys.executable, "-c", FULL, str(volume.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "File too large" in done.stderr
    assert "free space" in done.stderr
    assert np.array_equal(volume.read(BLOCK), noise(BLOCK.shape))
    assert files(volume.path) == ["c/0/0/0", "zarr.json"]


@pytest.mark.parametrize(
    ("message", "kind", "hint"),
    [
        (
            "RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']",
            StorageBusy,
            "free space",
        ),
        ("UNKNOWN: Failed to read: Input/output error [os_error_code='5']", StorageBusy, "check the disk"),
        ("UNKNOWN: Stale file handle [os_error_code='116']", StorageBusy, "check the disk"),
        ("PERMISSION_DENIED: open: Permission denied [os_error_code='13']", StorageBusy, "writable"),
        ("NOT_FOUND: chunk {1, 1, 1} stored at local file is missing", ChunkMissing, "verify"),
        ("DATA_LOSS: Digest mismatch, stored digest is 0x1 [tensorstore_spec='{...}']", ChunkCorrupt, "verify"),
        ("FAILED_PRECONDITION: ZSTD_decompressStream() failed", ChunkCorrupt, "verify"),
    ],
)
def test_messages_of_tensorstore_become_named_errors(message, kind, hint):
    error = array_error(ValueError(message), where="here")
    assert type(error) is kind
    assert hint in error.way_out
    assert "tensorstore_spec" not in str(error)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box((0, 0, 0), (8, 16, 15)), "whole shards"),
        (Box((1, 0, 0), (8, 16, 16)), "whole shards"),
        (Box((8, 16, 16), (12, 24, 19)), "whole shards"),
        (Box((8, 16, 16), (16, 32, 32)), "reaches out"),
        (Box((-8, 0, 0), (0, 16, 16)), "reaches out"),
    ],
)
def test_only_whole_shards_are_written(tmp_path, box, reason):
    volume = Volume.create(tmp_path / "a", spec())
    with pytest.raises(WrongShape, match=reason):
        volume.write(box, noise(box.shape))
    assert files(volume.path) == ["zarr.json"]


@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    chunk=st.tuples(*[st.integers(1, 4)] * 3),
    times=st.tuples(*[st.integers(1, 3)] * 3),
    offset=st.tuples(*[st.integers(-9, 9)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_any_layout_returns_what_was_written(tmp_path_factory, shape, chunk, times, offset):
    block = tuple(c * t for c, t in zip(chunk, times, strict=True))
    path = tmp_path_factory.mktemp("layout")
    volume = Volume.create(path / "a", spec(shape=shape, chunk=chunk, block=block, offset=offset))
    data = noise(shape)
    volume.write(volume.box, data)
    assert np.array_equal(Volume.open(path / "a").read(volume.box), data)


def test_wrong_data_is_refused(tmp_path):
    volume = Volume.create(tmp_path / "a", spec(dtype="float32"))
    with pytest.raises(WrongType, match="float64"):
        volume.write(BLOCK, np.zeros(BLOCK.shape))
    with pytest.raises(WrongShape, match=r"\(1, 8, 16, 16\)"):
        volume.write(BLOCK, np.zeros((1, *BLOCK.shape), np.float32))
    bad = np.zeros(BLOCK.shape, np.float32)
    bad[3, 4, 5] = np.nan
    with pytest.raises(NotFinite, match=r"\(3, 4, 5\) holds nan"):
        volume.write(BLOCK, bad)
    with pytest.raises(WrongShape, match="must divide"):
        spec(chunk=(8, 8, 7))
    with pytest.raises(WrongShape, match="channels"):
        spec(channels=2)
    with pytest.raises(WrongType, match="complex64"):
        spec(dtype="complex64")


def _create(path):
    Volume.create(path, spec())


def test_creating_twice_is_nothing_and_another_array_is_refused(tmp_path):
    path = tmp_path / "a"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_create, args=(path,)) for _ in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    before = (path / "zarr.json").stat().st_mtime_ns
    assert Volume.create(path, spec()).spec == spec()
    assert (path / "zarr.json").stat().st_mtime_ns == before
    assert files(path) == ["zarr.json"]
    with pytest.raises(IdentityMismatch, match="dtype uint8 instead of uint64"):
        Volume.create(path, spec(dtype="uint64"))


def test_metadata_is_checked(tmp_path):
    volume = Volume.create(tmp_path / "a", spec())
    target = volume.path / "zarr.json"
    good, rng = target.read_bytes(), np.random.default_rng(2)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        target.write_bytes(bad)
        try:
            assert Volume.open(volume.path).spec == spec()  # white space may change
        except ChunkCorrupt:
            continue
    changed = json.loads(good)
    changed["attributes"]["note"] = "someone else's attribute is no damage"
    target.write_text(json.dumps(changed))
    assert Volume.open(volume.path).spec == spec()
    changed["attributes"]["voxel_size"] = [1, 1, 1]
    target.write_text(json.dumps(changed))
    with pytest.raises(ChunkCorrupt, match="contradicts"):
        Volume.open(volume.path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 200_000, b" " * (1 << 20) + b"{}", b'{"attributes": 3}'])
def test_hostile_metadata_is_refused(tmp_path, content):
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(ChunkCorrupt):
        Volume.open(tmp_path)


def test_an_array_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(ChunkMissing):
        Volume.open(tmp_path / "nothing")


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize(
    ("nm", "units", "sizes"), [((30, 6, 6), "nm", (30, 6, 6)), ((33.5, 8.6, 8), "pm", (33500, 8600, 8000))]
)
def test_funlib_and_zarr_open_every_array(tmp_path, channels, nm, units, sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import zarr
        from funlib.persistence import open_ds

    lead = () if channels is None else (channels,)
    made = spec(shape=(*lead, 8, 16, 16), channels=channels, voxel_size=VoxelSize.from_nm(nm), offset=(1, 2, 3))
    volume = Volume.create(tmp_path / "a", made)
    volume.write(volume.box, noise((*lead, 8, 16, 16)))
    array = open_ds(volume.path)
    assert tuple(array.voxel_size) == sizes
    assert tuple(array.offset) == tuple(o * s for o, s in zip((1, 2, 3), sizes, strict=True))
    assert array.units == [units] * 3
    assert np.array_equal(array[array.roi], volume.read(volume.box))
    assert np.array_equal(zarr.open_array(volume.path, mode="r")[:], volume.read(volume.box))


def test_a_multiscale_group_says_where_its_arrays_lie(tmp_path):
    write_multiscale(tmp_path, [("0", SIZE, (1, 2, 3))], name="labels", axes=("z", "y", "x"))
    write_multiscale(
        tmp_path,
        [("0", SIZE, (1, 2, 3)), ("1", VoxelSize.from_nm((30, 12, 12)), (1, 1, 1))],
        name="l",
        axes=("z", "y", "x"),
    )
    ome = json.loads((tmp_path / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert [d["path"] for d in ome["multiscales"][0]["datasets"]] == ["0", "1"]
    assert ome["multiscales"][0]["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [30.0, 6.0, 6.0]},
        {"type": "translation", "translation": [30.0, 12.0, 18.0]},
    ]
    assert files(tmp_path) == ["zarr.json"]


def test_a_volume_travels_to_another_process(tmp_path):
    volume = Volume.create(tmp_path / "a", spec())
    volume.write(BLOCK, noise(BLOCK.shape))
    assert np.array_equal(pickle.loads(pickle.dumps(volume)).read(BLOCK), noise(BLOCK.shape))


def test_the_digest_is_of_values():
    data = noise((4, 5, 6), "uint16")
    assert digest(data) == digest(np.asfortranarray(data)) == digest(data.astype(">u2"))
    assert digest(data[:, ::2]) == digest(data[:, ::2].copy())
    different = [data.astype("uint32"), data.reshape(4, 30), data + np.uint16(1), data[:0]]
    assert len({digest(d) for d in [data, *different]}) == 5


def test_every_folder_and_file_is_synced_before_a_write_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable_files, "sync_folder", lambda folder: synced.append(folder))
    monkeypatch.setattr(durable_files, "_synced", set())
    volume = Volume.create(tmp_path / "stage" / "a", spec())
    assert {tmp_path, tmp_path / "stage", volume.path} <= set(synced)
    synced.clear()
    volume.write(BLOCK, noise(BLOCK.shape))
    assert {volume.path, volume.path / "c", volume.path / "c/0"} <= set(synced)  # tensorstore syncs c/0/0
    synced.clear()
    volume.write(BLOCK, noise(BLOCK.shape))
    assert synced == []


def test_concurrency_is_bounded():
    volumes.set_concurrency(file_io=2, copy=1)
    assert volumes.tensorstore_context()["file_io_concurrency"].to_json() == {"limit": 2}
    volumes.set_concurrency()
    assert volumes.tensorstore_context()["file_io_concurrency"].to_json() == {"limit": 1}
    assert volumes.tensorstore_context()["cache_pool"].to_json() in ({}, {"total_bytes_limit": 0})
