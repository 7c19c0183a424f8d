"""Affinities made elsewhere, brought into the order and the codes of this pipeline.

1. A channel's offset o says which edge its value at voxel p is: the one from p to p + o (`stored_at` start), or the one
   that ends there, from p - o to p (`end`). That is the same as offset -o with `start`, so all are read as `start`.
2. Ours are the nearest edges (-1, 0, 0), (0, -1, 0), (0, 0, -1), in this order; then all others, in the order given. A
   nearest edge given as +1 joins the same two voxels but lies at the other one: it is fetched one voxel before.
3. Floats become 16-bit codes, round(65535 a) with halves to even, taken in double precision: no two values of a
   network's uint8 or of float16 steps above 1/65535 fall together. Whole numbers stay as they are: code c of 8 bits
   stands for 257 c, of 16 bits for itself. A boundary probability b counts as the affinity 1 - b.
4. An edge with an end that is absent (masked, or outside the region of interest) does not exist: its code is 0. Of the
   edges that exist, a nearest one with code 0 counts as none, too; that is affinity 0, or below 1/131070.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, InputError
from pipeline.geometry import AXES, Box, Index

FULL_SCALE = 65535
BINS = 256
NEAREST: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
NOWHERE: Index = (0, 0, 0)
UNIT = "values must lie from 0 to 1; give affinities.clip = true to cut them off there"


@dataclass(frozen=True)
class Reading:
    """How given channels become ours: for each of ours its offset, where it comes from, and what values mean."""

    offsets: tuple[Index, ...]
    channel: tuple[int, ...]  # of the given ones
    fetch: tuple[Index, ...]  # the edge stored at p is found at p + fetch
    boundary: bool = False
    clip: bool = False

    @property
    def channels(self) -> range:
        """The given channels that are needed, with those between them."""
        return range(min(self.channel), max(self.channel) + 1)

    def source(self, box: Box) -> Box:
        """The voxels that hold the edges of a box; it may reach out of the layer."""
        return box.grow(_least(self.fetch), NOWHERE)


def reading(
    offsets: Sequence[Index],
    channels: Sequence[int] | None = None,
    *,
    stored_at: Literal["start", "end"] = "start",
    kind: Literal["affinity", "boundary"] = "affinity",
    clip: bool = False,
) -> Reading:
    """Bring channels with these offsets into our order; refuses what is no set of edges."""
    channels = range(len(offsets)) if channels is None else channels
    from_start = [_negative(o) if stored_at == "end" else o for o in offsets]
    _refuse_repeated(from_start)
    chosen: list[tuple[Index, int, Index]] = []
    for axis, ours in enumerate(NEAREST):
        for given, channel in zip(from_start, channels, strict=True):
            if given in (ours, _negative(ours)):
                chosen.append((ours, channel, NOWHERE if given == ours else ours))
        if len(chosen) != axis + 1:
            raise ConfigError(
                f"the nearest neighbour along {AXES[axis]} is missing: {ours} or {_negative(ours)}",
                where="affinities.offsets",
                way_out="list the offsets of all channels; the three nearest ones are needed",
            )
    nearest = {*NEAREST, *map(_negative, NEAREST)}
    further = zip(from_start, channels, strict=True)
    chosen += [(offset, channel, NOWHERE) for offset, channel in further if offset not in nearest]
    return Reading(
        tuple(offset for offset, _, _ in chosen),
        tuple(channel for _, channel, _ in chosen),
        tuple(fetch for _, _, fetch in chosen),
        kind == "boundary",
        clip,
    )


def encode(values_CZYX: NDArray[Any], given: Box, box: Box, how: Reading) -> NDArray[Any]:
    """Codes of a box from the needed channels of the box `given`; 0 where that does not reach."""
    codes_CZYX = np.zeros((len(how.offsets), *box.shape), code_dtype(values_CZYX.dtype))
    for codes_ZYX, channel, fetch in zip(codes_CZYX, how.channel, how.fetch, strict=True):
        there = box.shift(fetch).clip(given)
        here = there.shift(_negative(fetch))
        values_ZYX = values_CZYX[channel - how.channels.start][there.slices(given.begin)]
        codes_ZYX[here.slices(box.begin)] = _codes(values_ZYX, boundary=how.boundary, clip=how.clip)
    return codes_CZYX


def _codes(values: NDArray[Any], *, boundary: bool, clip: bool) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return np.iinfo(values.dtype).max - values if boundary else values
    exact = values.astype(np.float64)
    if clip:
        np.clip(exact, 0.0, 1.0, out=exact)
    if boundary:
        np.subtract(1.0, exact, out=exact)
    exact *= FULL_SCALE
    return np.rint(exact, out=exact).astype(np.uint16)


def code_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What codes of given values are: uint8 for uint8, else uint16."""
    return np.dtype(np.uint8 if dtype == np.uint8 else np.uint16)


def code_table(dtype: np.dtype[Any]) -> NDArray[np.int64]:
    """The integer behind every code of a dtype."""
    return np.arange(256, dtype=np.int64) * 257 if dtype == np.uint8 else np.arange(65536, dtype=np.int64)


def require_unit_range(values_CZYX: NDArray[Any], origin: Index, *, first_channel: int, where: str) -> None:
    """Refuse floats below 0 or above 1; the message names the first one."""
    if values_CZYX.dtype.kind != "f":
        return
    outside = (values_CZYX < 0) | (values_CZYX > 1)
    if outside.any():
        channel, *at = (int(i) for i in np.argwhere(outside)[0])
        voxel = tuple(i + o for i, o in zip(at, origin, strict=True))
        raise InputError(
            f"channel {first_channel + channel} at voxel {voxel} holds {values_CZYX[(channel, *at)]}: no affinity",
            where=where,
            way_out=UNIT,
        )


def reach(offsets: Sequence[Index]) -> tuple[Index, Index]:
    """How far edges lead before and behind the voxel that stores them."""
    return _least(offsets), _least([_negative(offset) for offset in offsets])


def keep_existing_edges(
    codes_CZYX: NDArray[Any], absent_ZYX: NDArray[np.bool_], offsets: Sequence[Index]
) -> NDArray[np.int64]:
    """Set the codes of edges with an absent end to 0, in place; returns the histogram of the nearest that exist.

    `absent_ZYX` covers the voxels of the codes and their `reach` around.
    """
    before, _ = reach(offsets)
    shape = codes_CZYX.shape[1:]
    here = absent_ZYX[_window(before, NOWHERE, shape)]
    histogram = np.zeros(BINS, np.int64)
    for number, (codes_ZYX, offset) in enumerate(zip(codes_CZYX, offsets, strict=True)):
        exists = ~(here | absent_ZYX[_window(before, offset, shape)])
        codes_ZYX[~exists] = 0
        if number < len(NEAREST):
            kept = codes_ZYX[exists]
            bins = kept if kept.dtype == np.uint8 else (kept >> 8).astype(np.uint8)
            histogram += np.bincount(bins, minlength=BINS)
    return histogram


def _window(before: Index, offset: Index, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(b + o, b + o + n) for b, o, n in zip(before, offset, shape, strict=True))


def _refuse_repeated(offsets: Sequence[Index]) -> None:
    """Refuse offsets that are no edges or the same ones."""
    seen: set[Index] = set()
    for offset in offsets:
        if offset == NOWHERE or offset in seen:
            what = "no edge" if offset == NOWHERE else "the same edges as another channel"
            raise ConfigError(
                f"the offset {offset} is {what}",
                where="affinities.offsets",
                way_out="give every channel its own offset; leave channels out with affinities.channels",
            )
        seen |= {offset, _negative(offset)}


def _least(offsets: Sequence[Index]) -> Index:
    """Along every axis how far the offsets reach below 0."""
    z, y, x = (max(0, *(-offset[axis] for offset in offsets)) for axis in range(3))
    return (z, y, x)


def _negative(offset: Index) -> Index:
    z, y, x = offset
    return (-z, -y, -x)
