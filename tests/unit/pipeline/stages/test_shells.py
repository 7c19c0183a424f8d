"""Shells: what up0 reads around a block is what the array holds there, and costs little more than the block itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import tables
from pipeline.config import parse
from pipeline.errors import ChunkCorrupt, ChunkMissing
from pipeline.geometry import Box, Grid, Index, Layer, VoxelSize
from pipeline.ops.shells import COLUMN, cut, needs
from pipeline.stages import shells
from pipeline.stages.borrowed_codes import BorrowedCodes
from pipeline.stages.code_source import CodeSource
from pipeline.stages.stage import Pass, Site, Stage
from pipeline.volumes import ArraySpec, Volume
from workers.block import BlockRef

OFFSETS: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0))
NM = VoxelSize.from_nm([30, 6, 6])


class Stored(CodeSource[Any, Any]):
    """Random codes on disk, in blocks of their own grid; some of them masked."""

    name = "stored"

    def __init__(self, site: Site, block: Index, dtype: str, hidden: tuple[Index, ...] = ()) -> None:
        super().__init__(site)
        self.grid, self.dtype, self.hidden = Grid(site.layer.roi, block), dtype, hidden

    def upstream(self) -> tuple[Stage[Any, Any], ...]:
        return ()

    def content(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "hidden": self.hidden}

    def passes(self) -> tuple[Pass, ...]:
        return (Pass("blocks", self.grid),)

    def needs(self, sweep: str, index: Index) -> Iterable[BlockRef]:
        return ()

    def masked(self, sweep: str, index: Index) -> bool:
        return index in self.hidden

    @property
    def offsets(self) -> tuple[Index, ...]:
        return OFFSETS

    @property
    def code_table(self) -> np.ndarray:
        return np.arange(256 if self.dtype == "uint8" else 65536)

    @property
    def code_grid(self) -> Grid:
        return self.grid

    def prepare(self) -> None:
        roi, chunk = self.site.layer.roi, self.site.config.blocks.chunk
        shape = (len(OFFSETS), *roi.shape)
        spec = ArraySpec(shape, self.dtype, self.grid.block, chunk, NM, roi.begin, len(OFFSETS))
        Volume.create(self.folder / "affinities", spec)

    def read(self, sweep: str, index: Index) -> Any:
        shape = (len(OFFSETS), *self.grid.block_box(index).shape)
        return np.random.default_rng(index).integers(1, self.code_table.size, shape).astype(self.dtype)

    compute = staticmethod(lambda inputs: inputs)  # type: ignore[assignment]

    def write(self, sweep: str, index: Index, outputs: Any) -> Any:
        return self.store_codes(index, outputs, np.zeros(256, np.int64))

    def memory_bytes(self, sweep: str) -> int:
        return 0

    def run(self) -> Stored:
        self.prepare()
        for index in self.grid:
            if not self.masked("blocks", index):
                written = self.write("blocks", index, self.read("blocks", index))
                assert written.parts == self.reread("blocks", index)
        return self


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def site_of(folder: Path, roi: Box, block: Index, chunk: Index) -> Site:
    config = parse({"input": {"synthetic": {}}, "blocks": {"shape": block, "chunk": chunk}}, where="test")
    layer = Layer(tuple(e + 1 for e in roi.end), roi, NM)  # type: ignore[arg-type]
    return Site(config, layer, {}, folder)


CUTS = [  # blocks of codes, later blocks, chunk
    ((4, 8, 8), (4, 8, 8), (4, 8, 8)),
    ((8, 16, 16), (4, 8, 8), (4, 8, 4)),
    ((4, 8, 8), (8, 16, 24), (4, 4, 8)),
    ((6, 8, 12), (4, 12, 8), (2, 4, 4)),
    ((2, 8, 12), (1, 12, 8), (1, 4, 4)),
    ((16, 32, 32), (8, 8, 16), (8, 8, 16)),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("coded", "block", "chunk"), CUTS)
def test_what_is_read_around_a_block_is_what_the_array_holds(
    tmp_path: Path, coded: Index, block: Index, chunk: Index, dtype: str
) -> None:
    roi = Box((3, 1, 2), (14, 24, 23))
    for hidden in ((), ((0, 0, 0), (1, 1, 1), (0, 1, 2), (2, 0, 1))):
        source = Stored(site_of(tmp_path, roi, block, chunk), coded, dtype, hidden).run()
        for index in Grid(roi, block):
            box = Grid(roi, block).block_box(index)
            expected = source.read_codes(box.grow((1, 1, 1)).clip(roi))
            found = source.read_around(box)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            assert found[0].all() or hidden
        files = list(source.folder.rglob("*"))
        assert len(files) <= source.inodes()
        assert sum(p.stat().st_size for p in (source.folder / "shells").rglob("*.arrow")) <= source.shell_bytes(
            roi.shape
        )


@pytest.mark.parametrize("coded", [(32, 64, 64), (32, 128, 128), (64, 256, 256)])
def test_little_more_is_decoded_than_a_block_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coded: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted: the chunks of the array that a read touches, and the sections of shells that it takes."""
    block, chunk, roi = (32, 128, 128), (32, 64, 64), Box((0, 0, 0), (96, 384, 384))
    source = Stored(site_of(tmp_path, roi, block, chunk), coded, "uint8")
    decoded = {"array": 0, "shells": 0}

    def array(self: Volume, box: Box, *, channels: int = 3) -> np.ndarray:
        cells = list(Grid(roi, chunk).touching(box))
        decoded["array"] += channels * len(cells) * Box.of_shape(chunk).voxels
        return np.zeros((channels, *box.shape), np.uint8)

    def sections(path: Path, names: Any = None) -> Any:
        found = tables.read_tables(path, names)
        decoded["shells"] += sum(column.nbytes for table in found.values() for column in table.values())
        return found

    middle = Grid(roi, block).block_box((1, 1, 1))
    for ref in source.code_refs(middle.grow((1, 1, 1))):
        box = source.grid.block_box(ref.index)
        shells.store(source._shells(ref.index), np.zeros((3, *box.shape), np.uint8), box, source._cells)
    monkeypatch.setattr(Volume, "read", array)
    monkeypatch.setattr(shells, "read_tables", sections)
    source.prepare()
    source.read_around(middle)
    owned = 3 * middle.voxels
    ratio = sum(decoded.values()) / owned
    with capsys.disabled():
        print(f"\ncodes in {coded}: {ratio:.3f} bytes decoded per byte owned {decoded}")  # noqa: T201
    assert decoded["array"] == owned
    assert ratio <= 1.3


def test_a_block_of_another_grid_needs_nothing_else(tmp_path: Path) -> None:
    """The layout does not depend on the later blocks: they can be cut anew without making codes again."""
    roi = Box((0, 0, 0), (16, 32, 32))
    one, other = (Stored(site_of(tmp_path, roi, b, (4, 8, 8)), (8, 16, 16), "uint8") for b in ((4, 8, 8), (8, 32, 16)))
    assert one.folder == other.folder
    assert Stored(site_of(tmp_path, roi, (8, 8, 8), (8, 8, 8)), (8, 16, 16), "uint8").folder != one.folder


def test_the_smallest_face_is_read() -> None:
    cells = Grid(Box((0, 0, 0), (12, 24, 30)), (4, 8, 10))
    found = needs(Box((4, 8, 10), (8, 16, 20)), cells.box, cells)
    assert len(found) == 26
    for section, face, part in found:
        outside = sum(n == 1 for n in part.shape)
        assert face.contains(part)
        if outside == 1:
            assert face == part
        if outside == 3:
            assert section.startswith(("low_x", "high_x"))
    assert {section for section, _, _ in found} <= cut(np.zeros((3, 12, 24, 30), np.uint8), cells.box, cells).keys()


def test_lost_and_damaged_shells_are_errors_and_verify_sees_them(tmp_path: Path) -> None:
    roi = Box((0, 0, 0), (8, 16, 16))
    source = Stored(site_of(tmp_path, roi, (4, 8, 8), (4, 8, 8)), (4, 16, 16), "uint8").run()
    receipt = source.reread("blocks", (1, 0, 0))
    assert set(receipt) == {"affinities", "shells"}
    path = source._shells((1, 0, 0))
    stored = tables.read_tables(path)
    changed = {name: {COLUMN: table[COLUMN] ^ np.uint8(1)} for name, table in stored.items()}
    tables.write_tables(path, changed)
    now = source.reread("blocks", (1, 0, 0))
    assert now["affinities"] == receipt["affinities"]
    assert now["shells"] != receipt["shells"]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ChunkCorrupt):
        source.read_around(Box((0, 0, 0), (4, 8, 8)))
    path.unlink()
    with pytest.raises(ChunkMissing):
        source.reread("blocks", (1, 0, 0))


def test_borrowed_codes_have_shells_too(tmp_path: Path) -> None:
    roi = Box((0, 0, 0), (8, 16, 16))
    source = Stored(site_of(tmp_path / "one", roi, (4, 8, 8), (4, 8, 8)), (8, 16, 16), "uint16", ((0, 0, 0),))
    source.hidden = ()
    source.run()
    part = Box((0, 8, 0), (8, 16, 16))
    site = replace(site_of(tmp_path / "two", part, (4, 8, 8), (4, 8, 8)), layer=Layer(roi.end, part, NM))
    borrowed = BorrowedCodes(site, source)
    borrowed.prepare()
    for index in borrowed.code_grid:
        written = borrowed.write("blocks", index, borrowed.compute(borrowed.read("blocks", index)))
        assert written.parts == borrowed.reread("blocks", index)
    for index in borrowed.code_grid:
        box = borrowed.code_grid.block_box(index)
        np.testing.assert_array_equal(borrowed.read_around(box), borrowed.read_codes(box.grow((1, 1, 1)).clip(part)))


def test_a_section_is_read_without_the_others(tmp_path: Path) -> None:
    """Other sections may be beyond decoding."""
    rng = np.random.default_rng(0)
    sections = {name: {COLUMN: rng.integers(0, 256, 5000).astype(np.uint8)} for name in ("a", "b", "c")}
    path = tmp_path / "t.arrow"
    tables.write_tables(path, sections)
    content = bytearray(path.read_bytes())
    where = content.index(bytes(sections["b"][COLUMN][:2000]))  # zstd stores noise as it is
    content[where - 30 : where + 4000] = bytes(4030)
    path.write_bytes(content)
    found = tables.read_tables(path, ["a", "c"])
    for name in ("a", "c"):
        np.testing.assert_array_equal(found[name][COLUMN], sections[name][COLUMN])
    with pytest.raises(ChunkCorrupt):
        tables.read_tables(path, ["b"])
