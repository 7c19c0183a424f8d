import json
import pickle
import shutil
import warnings

import h5py
import numpy as np
import pytest

from pipeline.errors import (
    ChunkCorrupt,
    ChunkMissing,
    InputError,
    MissingInput,
    NotFinite,
    WrongShape,
    WrongType,
)
from pipeline.geometry import Box, VoxelSize
from pipeline.sources import open_source
from pipeline.volumes import ArraySpec, Volume, write_multiscale

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import zarr

SHAPE = (20, 70, 90)
BOX = Box((3, 5, 7), (18, 40, 80))
SIZE = VoxelSize.from_nm((30, 6, 6))


def noise(shape=SHAPE, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 251, shape).astype(dtype)


def make_zarr(path, data, version=3, attributes=None, **options):
    options = {"chunks": (1,) * (data.ndim - 3) + (16, 32, 32), **options}
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, zarr_format=version, **options)
    array[:] = data
    array.attrs.update(attributes or {})
    return array


def make_image(path, version, datasets, axes="zyx", unit="nanometer"):
    """An OME-Zarr group: 0.4 on zarr v2, 0.5 on zarr v3."""
    group = zarr.create_group(path, zarr_format=version)
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "zyx" else {}) for a in axes]
    listed = []
    for name, data, scale, translation in datasets:
        make_zarr(path / name, data, version)
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        listed.append({"path": name, "coordinateTransformations": steps})
    image = {"axes": described, "datasets": listed}
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if version == 3 else {"multiscales": [image]}
    )


@pytest.fixture(params=["zarr2", "zarr3", "sharded", "big-endian", "h5", "chunked h5", "npy", "fortran npy"])
def stored(request, tmp_path):
    """The same volume in every format."""
    data = noise(dtype="uint16")
    kind = request.param
    path = tmp_path / "volume"
    if kind.startswith("zarr"):
        make_zarr(path, data, int(kind[-1]))
    elif kind == "sharded":
        make_zarr(path, data, shards=(16, 64, 64))
    elif kind == "big-endian":
        make_zarr(path, data.astype(">u2"), 2, order="F")
    elif kind.endswith("h5"):
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file.create_dataset("volumes/raw", data=data, chunks=(16, 32, 32) if "chunked" in kind else None)
        return f"{tmp_path / 'v.h5'}:volumes/raw"
    else:
        path = tmp_path / "volume.npy"
        np.save(path, np.asfortranarray(data) if "fortran" in kind else data)
    return str(path)


def test_every_format_reads_the_same(stored):
    source = open_source(stored)
    assert (source.shape, source.dtype, source.voxel_size, source.offset) == (SHAPE, np.uint16, None, (0, 0, 0))
    assert source.axes == ("z", "y", "x")
    values = source.read(BOX)
    assert values.dtype == np.uint16
    assert values.flags.c_contiguous
    assert np.array_equal(values, noise(dtype="uint16")[BOX.slices()])
    assert np.array_equal(source.read(source.box), noise(dtype="uint16"))


def test_the_fingerprint_does_not_depend_on_the_format(stored, tmp_path):
    np.save(tmp_path / "reference.npy", noise(dtype="uint16"))
    assert open_source(stored).fingerprint() == open_source(str(tmp_path / "reference.npy")).fingerprint()


def test_a_source_travels_to_another_process(stored):
    source = pickle.loads(pickle.dumps(open_source(stored)))
    assert np.array_equal(source.read(BOX), noise(dtype="uint16")[BOX.slices()])


def test_reading_outside_is_refused(stored):
    with pytest.raises(WrongShape, match="reaches out"):
        open_source(stored).read(Box((0, 0, 0), (21, 1, 1)))


def test_the_fingerprint_notices_change(tmp_path):
    data = noise()
    prints = set()
    for changed in (data, data[:, :, :-1], data.astype("uint16"), data + np.uint8(1)):
        np.save(tmp_path / "a.npy", changed)
        prints.add(open_source(str(tmp_path / "a.npy")).fingerprint())
    make_zarr(tmp_path / "sized", data, attributes={"voxel_size": [30, 6, 6]})
    prints.add(open_source(str(tmp_path / "sized")).fingerprint())
    assert len(prints) == 5


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_names_its_scales(tmp_path, version):
    fine, coarse = noise(), noise((20, 35, 45))
    path = tmp_path / "image"
    datasets = [
        ("s0", fine, [0.03, 0.006, 0.006], [0.3, 0, 0.012]),
        ("s1", coarse, [0.03, 0.012, 0.012], [0.3, 0.003, 0.012]),
    ]
    make_image(path, version, datasets, unit="micrometer")
    source = open_source(str(path))
    assert (source.voxel_size, source.offset, source.shape) == (SIZE, (10, 0, 2), SHAPE)
    assert np.array_equal(source.read(BOX), fine[BOX.slices()])
    second = open_source(str(path), 1)
    assert (second.voxel_size, second.origin_pm) == (VoxelSize.from_nm((30, 12, 12)), (300_000, 3_000, 12_000))
    assert np.array_equal(second.read(second.box), coarse)
    direct = open_source(str(path / "s1"))
    assert (direct.voxel_size, direct.fingerprint()) == (second.voxel_size, second.fingerprint())
    with pytest.raises(MissingInput, match="no scale 2") as caught:
        open_source(str(path), 2)
    assert "0 (30 x 6 x 6 nm), 1 (30 x 12 x 12 nm)" in str(caught.value)


def test_single_times_and_channels_are_dropped_and_others_refused(tmp_path):
    data = noise()
    make_image(tmp_path / "one", 3, [("0", data[None, None], [1, 1, 30, 6, 6], [0] * 5)], axes="tczyx")
    assert np.array_equal(open_source(str(tmp_path / "one")).read(BOX), data[BOX.slices()])
    make_image(tmp_path / "two", 3, [("0", np.stack([data, data]), [1, 30, 6, 6], [0] * 4)], axes="czyx")
    with pytest.raises(WrongShape, match=r"\(2, 20, 70, 90\)"):
        open_source(str(tmp_path / "two"))
    make_image(tmp_path / "xyz", 3, [("0", data, [30, 6, 6], [0] * 3)], axes="xyz")
    with pytest.raises(WrongShape, match="x, y, z"):
        open_source(str(tmp_path / "xyz"))


def test_our_own_arrays_are_sources_too(tmp_path):
    spec = ArraySpec(
        shape=(8, 16, 16),
        dtype="uint64",
        block=(8, 16, 16),
        chunk=(8, 8, 8),
        voxel_size=VoxelSize.from_nm((33.5, 8, 8)),
        offset=(1, 2, 3),
    )
    volume = Volume.create(tmp_path / "g" / "labels", spec)
    volume.write(volume.box, noise((8, 16, 16), "uint64"))
    write_multiscale(tmp_path / "g", [("labels", spec.voxel_size, spec.offset)], name="l", axes=("z", "y", "x"))
    for location in ("g", "g/labels"):
        source = open_source(str(tmp_path / location))
        assert (source.voxel_size, source.offset) == (spec.voxel_size, spec.offset)
        assert np.array_equal(source.read(source.box), noise((8, 16, 16), "uint64"))


@pytest.mark.parametrize(
    ("attributes", "nm"),
    [
        ({"resolution": [40.0, 4.0, 4.0], "offset": [80.0, 0.0, 8.0]}, (40, 4, 4)),
        ({"voxel_size": [33500, 8000, 8000], "units": ["pm"] * 3}, (33.5, 8, 8)),
        ({"voxel_size": [1, 40, 4, 4], "units": "nm"}, (40, 4, 4)),
        ({}, None),
    ],
)
def test_voxel_sizes_beside_arrays(tmp_path, attributes, nm):
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        file.create_dataset("raw", data=noise()).attrs.update(attributes)
    make_zarr(tmp_path / "a", noise(), attributes=attributes)
    for location in (f"{tmp_path}/a.hdf:raw", f"{tmp_path}/a"):
        source = open_source(location)
        assert source.voxel_size == (None if nm is None else VoxelSize.from_nm(nm))
        assert source.offset == ((2, 0, 2) if "offset" in attributes else (0, 0, 0))


@pytest.mark.parametrize(
    "attributes", [{"voxel_size": 8}, {"voxel_size": [0, 6, 6]}, {"resolution": [1, 2, 3], "units": ["parsec"] * 3}]
)
def test_voxel_sizes_that_make_no_sense_are_refused(tmp_path, attributes):
    make_zarr(tmp_path / "a", noise(), attributes=attributes)
    with pytest.raises(InputError, match="voxel_size, offset or units"):
        open_source(str(tmp_path / "a"))


def test_what_is_not_there_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("volumes/raw", data=noise())
    make_zarr(tmp_path / "c.zarr" / "volumes" / "raw", noise(), 2)
    zarr.create_group(tmp_path / "d.zarr")
    make_zarr(tmp_path / "d.zarr" / "raw", noise())
    (tmp_path / "image.tif").write_bytes(b"II*")
    for location, reason in {
        "none": "no such file",
        "none.h5:raw": "no such HDF5 file",
        "a.h5:volumes": "one of: volumes/raw",
        "a.h5:other": "one of: volumes/raw",
        "a.h5": "one of: volumes/raw",
        "c.zarr": "volumes/raw",
        "d.zarr": "it has: raw",
        "image.tif": "OME-Zarr group, file.h5:dataset",
    }.items():
        with pytest.raises(MissingInput) as caught:
            open_source(str(tmp_path / location))
        assert reason in str(caught.value), str(caught.value)
        assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(MissingInput, match="no scale 1"):
        open_source(str(tmp_path / "d.zarr" / "raw"), 1)


def test_wrong_types_and_shapes_are_named(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4, 4)))
    np.save(tmp_path / "complex.npy", np.zeros((3, 4, 4), complex))
    np.save(tmp_path / "image.npy", noise())
    with pytest.raises(WrongShape, match=r"\(3, 4\)"):
        open_source(str(tmp_path / "flat.npy"))
    with pytest.raises(WrongShape, match="empty"):
        open_source(str(tmp_path / "empty.npy"))
    with pytest.raises(WrongType, match="complex128"):
        open_source(str(tmp_path / "complex.npy"))
    source = open_source(str(tmp_path / "image.npy"))
    source.require("uint8", "uint16", role="the image")
    with pytest.raises(WrongType, match="the truth is uint8; it must be uint32 or uint64"):
        source.require("uint32", "uint64", role="the truth")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "trap.npy", np.array([[[Trap()]]], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npy", "plain.npy"):
        with pytest.raises(InputError, match="cannot be read"):
            open_source(str(tmp_path / name))


def test_not_finite_values_are_found_where_they_are_read(tmp_path):
    data = noise(dtype="float32")
    data[4, 6, 8] = np.inf
    np.save(tmp_path / "a.npy", data)
    source = open_source(str(tmp_path / "a.npy"))
    assert source.read(Box((5, 0, 0), SHAPE)).all() is not None
    with pytest.raises(NotFinite, match=r"\(4, 6, 8\) holds inf"):
        source.read(BOX)
    assert source.fingerprint()


@pytest.mark.parametrize("version", [2, 3])
def test_a_missing_chunk_of_a_zarr_is_no_fill_value(tmp_path, version):
    make_zarr(tmp_path / "a", noise(), version, fill_value=9)
    (tmp_path / "a" / {2: "1.0.0", 3: "c/1/0/0"}[version]).unlink()
    source = open_source(str(tmp_path / "a"))
    assert source.read(Box((0, 0, 0), (16, 70, 90))).any()
    with pytest.raises(ChunkMissing, match=r"chunk \{1, 0, 0\}") as caught:
        source.read(BOX)
    assert "[[mask]]" in str(caught.value)
    assert source.fingerprint() == source.fingerprint()


def test_a_missing_chunk_of_an_hdf5_is_no_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        part = file.create_dataset("part", shape=SHAPE, dtype="uint8", chunks=(16, 32, 32), fillvalue=9)
        part[:16] = noise()[:16]
        file.create_dataset("never", shape=SHAPE, dtype="uint8")
    source = open_source(f"{tmp_path}/a.h5:part")
    assert np.array_equal(source.read(Box((2, 3, 4), (16, 70, 90))), noise()[2:16, 3:, 4:])
    with pytest.raises(ChunkMissing, match=r"chunk at \(16, 0, 0\)"):
        source.read(BOX)
    with pytest.raises(ChunkMissing):
        open_source(f"{tmp_path}/a.h5:never").read(BOX)


def test_damaged_data_is_named(tmp_path):
    make_zarr(tmp_path / "a", noise())
    chunk = tmp_path / "a" / "c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(ChunkCorrupt, match="damaged"):
        open_source(str(tmp_path / "a")).read(BOX)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("raw", data=noise(), chunks=(16, 32, 32), fletcher32=True)
        place = raw.id.get_chunk_info(0).byte_offset
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(place + 5)
        file.write(b"\xff\x00\xff")
    with pytest.raises(ChunkCorrupt):
        open_source(f"{tmp_path}/a.h5:raw").read(BOX)
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        open_source(f"{tmp_path}/b.h5:raw")
    np.save(tmp_path / "a.npy", noise())
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-5])
    with pytest.raises(InputError, match="cannot be read"):
        open_source(str(tmp_path / "a.npy"))


def test_data_in_other_files_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = h5py.VirtualLayout(shape=SHAPE, dtype="uint8")
        layout[:] = h5py.VirtualSource(tmp_path / "gone.h5", "raw", shape=SHAPE)
        file.create_virtual_dataset("virtual", layout)
    with pytest.raises(InputError, match="other files"):
        open_source(f"{tmp_path}/a.h5:virtual")
    make_image(tmp_path / "image", 3, [("0", noise(), [30, 6, 6], [0, 0, 0])])
    shutil.move(tmp_path / "image" / "0", tmp_path / "elsewhere")
    metadata = json.loads((tmp_path / "image" / "zarr.json").read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../elsewhere"
    (tmp_path / "image" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="out of its own folder"):
        open_source(str(tmp_path / "image"))


def zarray(**changes):
    plain = {"zarr_format": 2, "shape": SHAPE, "chunks": [16, 32, 32], "dtype": "|u1", "order": "C", "fill_value": 0}
    return json.dumps({**plain, "compressor": None, "filters": None, **changes})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (" " * (1 << 20) + "{}", "1,048,576"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        (zarray(chunks=[1 << 20, 1 << 20, 1 << 20]), "the limit is"),
        (zarray(compressor={"id": "lz4"}), "cannot be read"),
        (zarray(filters=[{"id": "delta", "dtype": "|u1"}]), "cannot be read"),
        (zarray(dtype="|O"), "cannot be read"),
    ],
)
def test_hostile_metadata_is_refused(tmp_path, content, reason):
    (tmp_path / ".zarray").write_text(content)
    with pytest.raises(InputError, match=reason):
        open_source(str(tmp_path))


@pytest.mark.parametrize("image", [[], [{}], [{"axes": 3}], [{"axes": [], "datasets": [{"path": "0"}]}], {"a": 1}])
def test_broken_image_metadata_is_refused(tmp_path, image):
    zarr.create_group(tmp_path / "a", attributes={"ome": {"version": "0.5", "multiscales": image}})
    with pytest.raises(InputError, match=r"OME-Zarr 0\.4 or 0\.5"):
        open_source(str(tmp_path / "a"))


def test_zstd_as_numcodecs_notes_it_is_read(tmp_path):
    import numcodecs

    codec, data = numcodecs.Zstd(1, checksum=True), noise((16, 32, 32))
    (tmp_path / ".zarray").write_text(zarray(shape=data.shape, compressor=codec.get_config(), dimension_separator="/"))
    (tmp_path / "0" / "0").mkdir(parents=True)
    (tmp_path / "0" / "0" / "0").write_bytes(codec.encode(data))
    assert np.array_equal(open_source(str(tmp_path)).read(Box.of_shape((16, 32, 32))), data)


@pytest.mark.parametrize("compressor", ["zlib", "zstd", "blosc"])
def test_a_chunk_that_inflates_is_stopped(tmp_path, compressor):
    import numcodecs

    codec = {"zlib": numcodecs.Zlib(9), "zstd": numcodecs.Zstd(1), "blosc": numcodecs.Blosc()}[compressor]
    (tmp_path / ".zarray").write_text(zarray(compressor=codec.get_config()))
    (tmp_path / "0.0.0").write_bytes(codec.encode(bytes(64 << 20)))
    with pytest.raises(ChunkCorrupt):
        open_source(str(tmp_path)).read(Box((0, 0, 0), (1, 1, 1)))
