"""Grids, boxes, hierarchy levels and voxel sizes: integers only.

A Box is half open, [begin, end), in voxels of one layer, with the layer's own fixed origin: coordinates never
depend on a block grid. A Grid cuts a Box into blocks; level l of a grid has blocks 2**l times as long, anchored at
the same corner, so a block of level l covers at most eight blocks of level l - 1.

Voxel sizes are exact: picometres, as integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

Index = tuple[int, int, int]

AXES = ("z", "y", "x")
ID_BITS_PER_AXIS = 21  # 1 + (z << 42 | y << 21 | x) must fit 63 bits


def _index(values: Iterator[int] | list[int] | tuple[int, ...]) -> Index:
    z, y, x = values
    return (int(z), int(y), int(x))


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels."""

    begin: Index
    end: Index

    @classmethod
    def of_shape(cls, shape: Index) -> Box:
        """The box of an array: from the origin."""
        return cls((0, 0, 0), _index(tuple(shape)))

    @property
    def shape(self) -> Index:
        """Extent along z, y, x."""
        return _index([max(0, e - b) for b, e in zip(self.begin, self.end, strict=True)])

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        z, y, x = self.shape
        return z * y * x

    def grow(self, before: Index, after: Index | None = None) -> Box:
        """Add a halo on the low and on the high side of every axis."""
        after = before if after is None else after
        return Box(
            _index([b - h for b, h in zip(self.begin, before, strict=True)]),
            _index([e + h for e, h in zip(self.end, after, strict=True)]),
        )

    def clip(self, limit: Box) -> Box:
        """The part of this box inside another; empty if they do not meet."""
        begin = _index([max(a, b) for a, b in zip(self.begin, limit.begin, strict=True)])
        end = _index([min(a, b) for a, b in zip(self.end, limit.end, strict=True)])
        return Box(begin, _index([max(b, e) for b, e in zip(begin, end, strict=True)]))

    def contains(self, other: Box) -> bool:
        """Whether the other box lies inside this one."""
        return self.clip(other) == other

    def shift(self, by: Index) -> Box:
        """The same box, moved."""
        return Box(
            _index([b + s for b, s in zip(self.begin, by, strict=True)]),
            _index([e + s for e, s in zip(self.end, by, strict=True)]),
        )

    def scale(self, factor: Index) -> Box:
        """The same region in voxels that are `factor` times finer."""
        return Box(
            _index([b * f for b, f in zip(self.begin, factor, strict=True)]),
            _index([e * f for e, f in zip(self.end, factor, strict=True)]),
        )

    def slices(self, origin: Index = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Slices of this box in an array whose first voxel is `origin`."""
        z, y, x = (slice(b - o, e - o) for b, e, o in zip(self.begin, self.end, origin, strict=True))
        return (z, y, x)

    def __str__(self) -> str:
        return "[" + ", ".join(f"{b}:{e}" for b, e in zip(self.begin, self.end, strict=True)) + "]"


@dataclass(frozen=True)
class Grid:
    """A box cut into blocks, anchored at the box's low corner."""

    box: Box
    block: Index

    @cached_property
    def shape(self) -> Index:
        """Number of blocks along z, y, x."""
        return _index([-(-s // b) for s, b in zip(self.box.shape, self.block, strict=True)])

    @property
    def count(self) -> int:
        """Number of blocks."""
        z, y, x = self.shape
        return z * y * x

    def __iter__(self) -> Iterator[Index]:
        for index in product(*(range(n) for n in self.shape)):
            yield _index(index)

    def block_box(self, index: Index) -> Box:
        """The voxels that a block owns."""
        begin = _index([b + i * s for b, i, s in zip(self.box.begin, index, self.block, strict=True)])
        return Box(begin, _index([b + s for b, s in zip(begin, self.block, strict=True)])).clip(self.box)

    def touching(self, box: Box) -> Iterator[Index]:
        """The blocks that share a voxel with a box."""
        inside = box.clip(self.box)
        if inside.voxels == 0:
            return
        ranges = [
            range((b - o) // s, (e - 1 - o) // s + 1)
            for b, e, o, s in zip(inside.begin, inside.end, self.box.begin, self.block, strict=True)
        ]
        for index in product(*ranges):
            yield _index(index)

    def coarser(self, levels: int = 1) -> Grid:
        """The grid whose blocks are 2**levels as long."""
        return Grid(self.box, _index([b << levels for b in self.block]))

    def children(self, index: Index) -> Iterator[Index]:
        """The blocks, one level finer, that make up block `index` of this grid's next coarser grid."""
        for offset in product((0, 1), repeat=3):
            child = _index([2 * i + o for i, o in zip(index, offset, strict=True)])
            if all(c < n for c, n in zip(child, self.shape, strict=True)):
                yield child

    @cached_property
    def levels(self) -> tuple[Grid, ...]:
        """This grid and its coarser ones, up to the one with a single block."""
        grids = [self]
        while grids[-1].count > 1:
            grids.append(grids[-1].coarser())
        return tuple(grids)

    def internal_faces(self, index: Index) -> int:
        """Bits (z-, z+, y-, y+, x-, x+ from bit 0) of the faces of a block that are not the box's own border."""
        bits = 0
        for axis, (i, n) in enumerate(zip(index, self.shape, strict=True)):
            bits |= (i > 0) << (2 * axis)
            bits |= (i < n - 1) << (2 * axis + 1)
        return bits


def parent_index(index: Index) -> Index:
    """The block of the next coarser grid that a block belongs to."""
    z, y, x = index
    return (z // 2, y // 2, x // 2)


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """The size of a voxel along z, y, x in integer picometres."""

    pm: Index

    @classmethod
    def from_nm(cls, nm: tuple[float, ...] | list[float]) -> VoxelSize:
        """From nanometres; picometres are exact to three decimals."""
        return cls(_index([round(value * 1000) for value in nm]))

    @property
    def nm(self) -> tuple[float, float, float]:
        """In nanometres."""
        z, y, x = (value / 1000 for value in self.pm)
        return (z, y, x)

    def ratio(self, finer: VoxelSize) -> Index | None:
        """How many voxels of a finer size make up one of this size, or None if not a whole number."""
        if any(c % f for c, f in zip(self.pm, finer.pm, strict=True)):
            return None
        return _index([c // f for c, f in zip(self.pm, finer.pm, strict=True)])

    def __str__(self) -> str:
        return " x ".join(f"{value:g}" for value in self.nm) + " nm"


@dataclass(frozen=True)
class Layer:
    """The volume that is segmented: its full extent fixes coordinates, the region of interest limits writing."""

    shape: Index
    roi: Box
    voxel_size: VoxelSize

    @property
    def box(self) -> Box:
        """The whole layer."""
        return Box.of_shape(self.shape)
