"""Sources with channels, and .npz archives."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline import source_formats
from pipeline.errors import ChunkCorrupt, InputError, MissingInput, NotFinite, WrongShape
from pipeline.geometry import Box, VoxelSize
from pipeline.sources import open_source

SHAPE = (10, 40, 30)
BOX = Box((2, 5, 7), (9, 31, 30))
KINDS = ("zarr2", "zarr3", "h5", "chunked h5", "npy", "npz", "fortran npz", "compressed npz")


def noise(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).random((4, *SHAPE)).astype(dtype)


def store(folder: Path, kind: str, data: np.ndarray) -> str:
    if kind.startswith("zarr"):
        array = zarr.create_array(
            folder / kind, shape=data.shape, chunks=(3, 16, 16, 16), dtype=data.dtype, zarr_format=int(kind[-1])
        )
        array[:] = data
        return str(folder / kind)
    if kind.endswith("h5"):
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("some/edges", data=data, chunks=(2, 5, 16, 3) if "chunked" in kind else None)
        return f"{folder / 'a.h5'}:some/edges"
    if kind == "npy":
        np.save(folder / "a.npy", data)
        return str(folder / "a.npy")
    save = np.savez_compressed if kind.startswith("compressed") else np.savez
    save(folder / "a.npz", first=np.arange(7), edges=np.asfortranarray(data) if "fortran" in kind else data)
    return f"{folder / 'a.npz'}:edges"


@pytest.mark.parametrize("axes", ["czyx", "zyxc"])
@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_read_first_wherever_they_lie(tmp_path: Path, kind: str, axes: str) -> None:
    data = noise()
    location = store(tmp_path, kind, data if axes == "czyx" else np.ascontiguousarray(np.moveaxis(data, 0, 3)))
    source = pickle.loads(pickle.dumps(open_source(location, axes=axes)))
    assert (source.shape, source.channels, source.axes) == (SHAPE, 4, ("c", "z", "y", "x"))
    found = source.read(BOX)
    assert found.flags.c_contiguous
    assert np.array_equal(found, data[(..., *BOX.slices())])
    assert np.array_equal(source.read_unchecked(BOX, range(1, 3)), data[(slice(1, 3), *BOX.slices())])
    np.save(tmp_path / "reference.npy", data)
    assert source.fingerprint() == open_source(str(tmp_path / "reference.npy"), axes="czyx").fingerprint()


@pytest.mark.parametrize("kind", ["npz", "fortran npz", "compressed npz"])
def test_a_volume_may_lie_in_an_archive(tmp_path: Path, kind: str) -> None:
    source = open_source(store(tmp_path, kind, noise("float64")[0]))
    assert np.array_equal(source.read(BOX), noise("float64")[0][BOX.slices()])


def test_an_image_with_channels_says_its_voxel_size(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "image", zarr_format=3)
    kinds = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes = [*kinds, *({"name": a, "type": "space", "unit": "nanometer"} for a in "zyx")]
    steps = [{"type": "scale", "scale": [1, 1, 30, 6, 6]}]
    listed = [{"path": "s0", "coordinateTransformations": steps}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": listed}]}})
    data = noise()[None]
    zarr.create_array(tmp_path / "image/s0", shape=data.shape, chunks=(1, 2, 8, 8, 8), dtype="f4")[:] = data
    source = open_source(str(tmp_path / "image"), axes="czyx")
    assert (source.shape, source.channels, source.voxel_size) == (SHAPE, 4, VoxelSize.from_nm((30, 6, 6)))
    assert np.array_equal(source.read(BOX), data[0][(..., *BOX.slices())])
    with pytest.raises(WrongShape, match="the axes are c, z, y, x; they must be z, y, x, c"):
        open_source(str(tmp_path / "image"), axes="zyxc")


def test_names_of_axes_are_heeded(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(*SHAPE, 4), chunks=(8, 8, 8, 4), dtype="f4", attributes={"axis_names": [*"zyx", "c^"]}
    )
    array[:] = np.moveaxis(noise(), 0, 3)
    assert open_source(str(tmp_path / "a"), axes="zyxc").channels == 4
    with pytest.raises(WrongShape, match="the axes are z, y, x, c; they must be c, z, y, x"):
        open_source(str(tmp_path / "a"), axes="czyx")


def test_a_bad_voxel_is_named_without_its_channel(tmp_path: Path) -> None:
    data = noise()
    data[2, 6, 20, 25] = np.nan
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(NotFinite, match=r"voxel \(6, 20, 25\) holds nan"):
        open_source(str(tmp_path / "a.npy"), axes="czyx").read(BOX)


def test_four_axes_are_no_image_and_three_no_affinities(tmp_path: Path) -> None:
    np.save(tmp_path / "four.npy", noise())
    np.save(tmp_path / "three.npy", noise()[0])
    with pytest.raises(WrongShape, match="a volume has three axes, z, y, x"):
        open_source(str(tmp_path / "four.npy"))
    with pytest.raises(WrongShape, match="affinities have four axes, here z, y, x, c, none of them empty"):
        open_source(str(tmp_path / "three.npy"), axes="zyxc")


# ---- archives ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "says"), [("", "must be named"), (":nothing", "has no array 'nothing'")])
def test_an_archive_lists_its_arrays(tmp_path: Path, name: str, says: str) -> None:
    store(tmp_path, "npz", noise())
    with pytest.raises(MissingInput, match=says) as caught:
        open_source(f"{tmp_path / 'a.npz'}{name}")
    assert "edges, first" in str(caught.value)
    with pytest.raises(MissingInput, match="no such"):
        open_source(f"{tmp_path / 'b.npz'}:edges")


def test_an_archive_is_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "harm").touch, ())

    np.savez(tmp_path / "a.npz", edges=np.array([[[Bomb()]]], object))
    with pytest.raises(InputError, match="Python objects"):
        open_source(f"{tmp_path / 'a.npz'}:edges")
    assert not (tmp_path / "harm").exists()


def test_damaged_archives_are_errors(tmp_path: Path) -> None:
    location = store(tmp_path, "compressed npz", noise())
    source = open_source(location, axes="czyx")
    path = tmp_path / "a.npz"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(ChunkCorrupt, match="data is damaged"):
        source.read(BOX)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        open_source(location, axes="czyx")
    store(tmp_path, "npz", noise())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("short.npy", np.lib.format.magic(1, 0) + b"\x05\x00{}{}")
    with pytest.raises(InputError, match="cannot be read"):
        open_source(f"{path}:short", axes="czyx")


def test_a_compressed_archive_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = store(tmp_path, "compressed npz", noise())
    monkeypatch.setattr(source_formats, "MAX_NPZ_BYTES", 1000)
    with pytest.raises(InputError, match="a compressed array of 192,000 bytes; the limit is 1,000"):
        open_source(location, axes="czyx")
