"""Affinities made elsewhere: every convention of storing them gives the same codes; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.geometry import Box, Grid, Index
from pipeline.ops import affinities as op
from pipeline.ops.affinities import NEAREST, Reading, encode, keep_existing_edges, reach, reading

Edge = frozenset[Index]
FURTHER: tuple[Index, ...] = ((-2, 0, 0), (0, 3, 0), (0, -1, 2), (1, 1, 1))
DTYPES = ("uint8", "uint16", "float16", "float32", "float64")


def plus(p: Index, o: Index) -> Index:
    z, y, x = (a + b for a, b in zip(p, o, strict=True))
    return (z, y, x)


def minus(o: Index) -> Index:
    return (-o[0], -o[1], -o[2])


def levels(dtype: str) -> np.ndarray:
    """Values that a file may hold."""
    if dtype.startswith("uint"):
        return np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    return np.linspace(0, 1, 400).astype(dtype)


def expected_code(value: Any, boundary: bool) -> int:
    """The code of one stored value, slowly."""
    if value.dtype.kind == "u":
        return int(np.iinfo(value.dtype).max) - int(value) if boundary else int(value)
    exact = 1.0 - float(value) if boundary else float(value)
    return round(exact * 65535)


class Case:
    """A random volume of edges, stored in a random convention, and the codes that they must become."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.dtype = DTYPES[seed % len(DTYPES)]
        self.boundary = bool(rng.integers(2))
        z, y, x = (int(n) for n in rng.integers(2, 6, 3))
        self.box = Box.of_shape((z, y, x))
        further = [o for o in FURTHER if rng.integers(2)]
        edges = [o if rng.integers(2) else minus(o) for o in NEAREST] + further
        order = rng.permutation(len(edges))
        self.stored_at = ("start", "end")[int(rng.integers(2))]
        self.start = [edges[i] for i in order]  # as offsets from the voxel that stores the value
        self.offsets = self.start if self.stored_at == "start" else [minus(o) for o in self.start]
        lead = int(rng.integers(0, 2))
        self.channels = [lead + i for i in range(len(edges))]
        self.file = np.zeros((lead + len(edges), z, y, x), self.dtype)
        self.codes: dict[tuple[Edge, Index], int] = {}
        for channel, offset in zip(self.channels, self.start, strict=True):
            for p in np.ndindex(z, y, x):
                value = rng.choice(levels(self.dtype))
                self.file[(channel, *p)] = value
                key = (frozenset((p, plus(p, offset))), _plain(offset))
                self.codes[key] = expected_code(value, self.boundary)

    def reading(self) -> Reading:
        kind = "boundary" if self.boundary else "affinity"
        return reading(self.offsets, self.channels, stored_at=self.stored_at, kind=kind)  # type: ignore[arg-type]

    def expected(self, offsets: tuple[Index, ...]) -> np.ndarray:
        result = np.zeros((len(offsets), *self.box.shape), op.code_dtype(np.dtype(self.dtype)))
        for channel, offset in enumerate(offsets):
            for p in np.ndindex(self.box.shape):
                q = plus(p, offset)
                if all(0 <= a < n for a, n in zip(q, self.box.shape, strict=True)):
                    result[(channel, *p)] = self.codes[frozenset((p, q)), _plain(offset)]
        return result

    def found(self, how: Reading, block: Index) -> np.ndarray:
        grid = Grid(self.box, block)
        result = np.zeros((len(how.offsets), *self.box.shape), op.code_dtype(np.dtype(self.dtype)))
        before, after = reach(how.offsets)
        for index in grid:
            box = grid.block_box(index)
            given = how.source(box).clip(self.box)
            values = self.file[how.channels.start : how.channels.stop][(..., *given.slices())]
            codes = encode(np.ascontiguousarray(values), given, box, how)
            around = box.grow(before, after)
            absent = np.ones(around.shape, bool)
            absent[around.clip(self.box).slices(around.begin)] = False
            keep_existing_edges(codes, absent, how.offsets)
            result[(..., *box.slices())] = codes
        return result


def _plain(offset: Index) -> Index:
    return max(offset, minus(offset))


def test_every_convention_and_grid_gives_the_same_codes() -> None:
    rng = np.random.default_rng(0)
    for seed in range(150):
        case = Case(seed)
        how = case.reading()
        assert how.offsets[:3] == NEAREST
        assert {_plain(o) for o in how.offsets} == {_plain(o) for o in case.offsets}
        z, y, x = (int(n) for n in rng.integers(1, 6, 3))
        np.testing.assert_array_equal(case.found(how, (z, y, x)), case.expected(how.offsets), err_msg=str(seed))


MUTANTS: dict[str, Callable[[Reading], Reading]] = {
    "edges of the other sign are not moved": lambda r: replace(r, fetch=((0, 0, 0),) * len(r.fetch)),
    "all are moved": lambda r: replace(r, fetch=NEAREST + r.fetch[3:]),
    "channels in the file's order": lambda r: replace(r, channel=tuple(sorted(r.channel))),
    "boundaries taken for affinities": lambda r: replace(r, boundary=not r.boundary),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_rule_broken_is_noticed(mutant: Callable[[Reading], Reading]) -> None:
    cases = [Case(seed) for seed in range(20)]
    how = [case.reading() for case in cases]
    found = [case.found(mutant(h), (3, 3, 3)) for case, h in zip(cases, how, strict=True)]
    wrong = [not np.array_equal(f, case.expected(h.offsets)) for f, case, h in zip(found, cases, how, strict=True)]
    assert any(wrong)


def test_codes_keep_what_floats_say() -> None:
    values = np.array([0, 1, 0.5, 1 / 65535, 0.4 / 65535, 0.6 / 65535], np.float64).reshape(1, 1, 1, 6)
    three = np.repeat(values, 3, axis=0)
    box = Box.of_shape((1, 1, 6))
    codes = encode(three, box, box, reading(NEAREST))
    assert codes[0].ravel().tolist() == [0, 65535, 32768, 1, 0, 1]
    assert op.code_table(np.dtype("float32"))[codes].max() == 65535
    every = (np.arange(65536) / 65535).astype(np.float32)
    whole = Box.of_shape((1, 1, 65536))
    there_and_back = encode(np.tile(every, (3, 1, 1, 1)), whole, whole, reading(NEAREST))
    assert np.array_equal(there_and_back[0].ravel(), np.arange(65536)), "16-bit affinities survive as float32"
    assert op.code_table(np.dtype("uint8"))[[0, 1, 255]].tolist() == [0, 257, 65535]


def test_edges_with_an_absent_end_do_not_exist() -> None:
    rng = np.random.default_rng(1)
    offsets = (*NEAREST, *FURTHER)
    shape = (4, 5, 6)
    for dtype in (np.uint8, np.uint16):
        before, after = reach(offsets)
        absent = rng.random([b + n + a for b, n, a in zip(before, shape, after, strict=True)]) < 0.2
        codes = rng.integers(1, np.iinfo(dtype).max, (len(offsets), *shape), dtype)
        kept = codes.copy()
        histogram = keep_existing_edges(kept, absent, offsets)
        bins = np.zeros(256, int)
        for channel, offset in enumerate(offsets):
            for p in np.ndindex(shape):
                here = plus(p, before)
                exists = not absent[here] and not absent[plus(here, offset)]
                assert kept[(channel, *p)] == (codes[(channel, *p)] if exists else 0)
                if exists and channel < 3:
                    bins[codes[(channel, *p)] >> (0 if dtype == np.uint8 else 8)] += 1
        assert histogram.tolist() == bins.tolist()


@pytest.mark.parametrize(
    ("offsets", "says"),
    [
        ([(-1, 0, 0), (0, -1, 0), (0, 0, -2)], "nearest neighbour along x is missing"),
        ([(0, -1, 0), (0, 0, -1), (0, 0, -5)], "nearest neighbour along z is missing"),
        ([*NEAREST, (0, 0, 1)], "the same edges as another channel"),
        ([*NEAREST, (0, 0, 0)], "no edge"),
    ],
)
def test_what_is_no_set_of_edges_is_refused(offsets: list[Index], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        reading(offsets)


def test_values_beyond_the_range_are_refused_or_cut() -> None:
    values = np.full((3, 2, 2, 2), 0.5, np.float32)
    op.require_unit_range(values, (0, 0, 0), first_channel=0, where="file")
    values[1, 1, 0, 1] = 1.25
    with pytest.raises(InputError, match=r"channel 4 at voxel \(11, 20, 31\) holds 1.25"):
        op.require_unit_range(values, (10, 20, 30), first_channel=3, where="file")
    box = Box.of_shape((2, 2, 2))
    assert encode(values, box, box, replace(reading(NEAREST), clip=True))[1, 1, 0, 1] == 65535
    op.require_unit_range(values.astype(np.uint8), (0, 0, 0), first_channel=0, where="file")
