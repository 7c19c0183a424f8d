"""The known answers of a generated volume with loops: where its processes touch themselves.

1. Every site of `loops` has one self-contact. It belongs to the box that holds the voxel in its middle, so that the
   lists of several boxes together are the list of the whole.
2. Both arms have one id in the truth. Voxels of either arm beside the contact, the one in its middle, and one in the
   slit at the bend are told, and how far the contact and the whole process reach.

Points of a loop's own coordinates are laid out as the generator does it, and the warp is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Index
from pipeline.ops.forest import pack
from pipeline.ops.loops import HALF_NM, KINDS, RISE_NM, Loop, Loops, laid, loop_at, loops, sites_around
from pipeline.ops.neurites import ARM
from pipeline.ops.warped_cells import unwarp, warp_of

AROUND_NM = 260.0  # an arm's surface is hardly ever further from its axis
BESIDE_NM = 60.0  # from the boundary between the arms to a voxel inside one
Voxel = tuple[float, float, float]


@dataclass(frozen=True)
class SelfContact:
    """One process that touches itself; voxels of the volume."""

    label: int  # of both arms
    kind: Literal["touching", "gapped"]
    far: bool  # the bend lies outside a network's view around the contact
    contact: Index  # in the middle of the contact: background
    bend: Index  # in the slit where the arms are connected
    sides: tuple[Index, Index]  # in either arm, beside the middle of the contact
    contact_box: Box  # of the contact, as far as the arms are parallel
    box: Box  # of the whole process; may reach out of the volume


def self_contacts(box: Box, *, seed: int, voxel_size_nm: Voxel, loop_kinds: str) -> tuple[SelfContact, ...]:
    """The self-contacts whose middle lies in a box, by site."""
    every = loops(seed, KINDS.index(loop_kinds), warp_of(seed, calm=True))
    size = np.array(voxel_size_nm, np.float64)
    low_nm, high_nm = np.array(box.begin) * size, np.array(box.end) * size
    found = (_contact(every, site, size) for site in sites_around(low_nm - size, high_nm + size))
    return tuple(one for one in found if box.contains(_around((one.contact,))))


def _contact(every: Loops, site: Index, size: NDArray[np.float64]) -> SelfContact:
    loop: Loop = loop_at(every, site)

    def voxel(u: float, v: float, w: float) -> Index:
        place = laid(every, loop, (u, v, w))
        z, y, x = (int(n) for n in np.floor(np.array(unwarp(every.warp, place[0], place[1], place[2])) / size))
        return (z, y, x)

    start, end = -0.5 * (loop.contact + loop.bend), 0.5 * (loop.contact + loop.bend)
    middle, rise = start + 0.5 * loop.contact, RISE_NM if loop.flat else 0.5 * HALF_NM
    wide = HALF_NM + loop.bulge
    rims = [voxel(u, 0.0, w) for u in (start, start + loop.contact) for w in (-rise, rise)]
    corners = [voxel(u, v, w) for u in (start, end) for v in (-wide, wide) for w in (-rise, rise)]
    reach = [int(-(-AROUND_NM // n)) for n in size]
    return SelfContact(
        label=int(pack(ARM, site[0], site[1], site[2])),
        kind="gapped" if loop.gapped else "touching",
        far=bool(loop.far),
        contact=voxel(middle, 0.0, 0.0),
        bend=voxel(end, 0.0, 0.0),
        sides=(voxel(middle, BESIDE_NM, 0.0), voxel(middle, -BESIDE_NM, 0.0)),
        contact_box=_around(rims),
        box=_around(corners).grow((reach[0], reach[1], reach[2])),
    )


def _around(voxels: list[Index] | tuple[Index, ...]) -> Box:
    """The least box that holds voxels."""
    low, high = np.min(voxels, axis=0).tolist(), (np.max(voxels, axis=0) + 1).tolist()
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
