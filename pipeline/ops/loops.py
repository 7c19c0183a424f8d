"""Processes that touch themselves: bent so that their two arms lie side by side, at places that are known.

1. Physical space is cut into sites. Each holds one loop, well inside it; a hash of the site decides what it is like.
2. In its own coordinates (u along the loop, v across it in the section, w along z) a loop is the mirror image of one
   arm: along the contact the arm runs at v = `half`; then it opens by `bulge` (0: a hairpin; more: a ring with a seam)
   and comes back to v = 0 at the bend. A flat loop has three such paths above each other.
3. At the bend a furrow comes close to cutting the process: it spares a slit, `SLIT_NM` to either side. So evidence of
   connection is weak where it is true, and evidence of a boundary is strong where both sides are one object.
4. Far loops have their bend outside a view of `VIEW_NM` around the middle of the contact, near ones inside.
5. The arms are laid out in warped space so that the surface between them is upright where the contact is: the vector
   between them is the normal of that surface there, the cross product of two tangents.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import vectorised
from pipeline.ops.position_hash import U64, Kernel, hash3, mix, share, subkey
from pipeline.ops.warped_cells import Warp, unwarp, warp

SITE_NM = (900.0, 2100.0, 2100.0)
VIEW_NM = (600.0, 1536.0, 1536.0)  # a network's patch: 20 x 128 x 128 voxels of 30 x 12 x 12 nm
KINDS = ("touching", "gapped", "both")
TOUCHING, GAPPED, BOTH = range(3)
NO_LOOPS = -1
HALF_NM = 150.0  # of the distance between the arms' axes
RADIUS_NM = (155.0, 140.0)  # of a tube; of every path of a flat process
LEVELS = 3  # paths of a flat process, above each other
RISE_NM = 115.0  # from one of them to the next
SLIT_NM = (28.0, 140.0)  # of the furrow at the bend: half its width along u, half its height along z
CONTACT_NM = 13.0  # truth is 0 this near to the boundary between touching arms
JITTER_NM = (120.0, 150.0, 150.0)
LEAN = 0.3  # slope of a loop against the axes of the section
POINTS = 7  # of one arm's path
CAPSULES = 2 * LEVELS * (POINTS - 1)  # at most
PURPOSE = 3000


class Loop(NamedTuple):
    """What one loop is like; lengths in nm."""

    z: Kernel  # its middle
    y: Kernel
    x: Kernel
    along_y: Kernel  # unit vector of u
    along_x: Kernel
    contact: Kernel  # length over which the arms lie side by side
    bend: Kernel  # from there to the bend
    bulge: Kernel
    apart: Kernel  # truth is 0 this near to the boundary between the arms
    flat: Kernel
    far: Kernel
    gapped: Kernel


class Loops(NamedTuple):
    """The loops of a volume: a key, which kinds, and the warp of space."""

    key: np.uint64
    kinds: int
    warp: Warp


def loops(seed: int, kinds: int, bent: Warp) -> Loops:
    """The loops of a seed."""
    return Loops(U64(subkey(U64(seed), U64(PURPOSE))), kinds, bent)


@vectorised
def loop_at(every: Kernel, site: Kernel) -> Kernel:
    """The loop of a site."""
    bits = hash3(every.key, site[0], site[1], site[2])
    shape, lengths = mix(bits + U64(1)), mix(bits + U64(2))
    far, flat = (bits & U64(1)) == U64(1), (bits & U64(2)) == U64(2)
    gapped = every.kinds == GAPPED or (every.kinds == BOTH and (bits & U64(4)) == U64(4))
    bulge = (140.0 + 160.0 * share(shape, 0)) if bits & U64(8) else 0.0
    lean = LEAN * (2.0 * share(shape, 1) - 1.0)
    size = math.sqrt(1.0 + lean * lean)
    one, other = (1.0 if bits & U64(16) else -1.0) / size, lean / size
    contact = 650.0 + 100.0 * share(lengths, 0) if far else 440.0 + 90.0 * share(lengths, 0)
    bend = 570.0 + 30.0 * share(lengths, 1) if far else 300.0 + 50.0 * share(lengths, 1)
    apart = 20.0 + 7.0 * share(shape, 2) if gapped else CONTACT_NM
    place = mix(bits + U64(3))
    z = (site[0] + 0.5) * SITE_NM[0] + JITTER_NM[0] * (share(place, 0) - 0.5)
    y = (site[1] + 0.5) * SITE_NM[1] + JITTER_NM[1] * (share(place, 1) - 0.5)
    x = (site[2] + 0.5) * SITE_NM[2] + JITTER_NM[2] * (share(place, 2) - 0.5)
    if bits & U64(32):
        one, other = other, one
    return Loop(z, y, x, one, other, contact, bend, bulge, apart, flat, far, gapped)


@vectorised
def site_of(z: Kernel, y: Kernel, x: Kernel) -> Kernel:
    """The site that a physical point lies in."""
    return (
        np.int64(math.floor(z / SITE_NM[0])),
        np.int64(math.floor(y / SITE_NM[1])),
        np.int64(math.floor(x / SITE_NM[2])),
    )


@vectorised
def inward(loop: Kernel, point: Kernel) -> Kernel:
    """Physical to the loop's own coordinates u, v, w."""
    y, x = point[1] - loop.y, point[2] - loop.x
    return y * loop.along_y + x * loop.along_x, x * loop.along_y - y * loop.along_x, point[0] - loop.z


@vectorised
def outward(loop: Kernel, u: Kernel, v: Kernel, w: Kernel) -> Kernel:
    """The loop's own coordinates to physical ones."""
    return loop.z + w, loop.y + u * loop.along_y - v * loop.along_x, loop.x + u * loop.along_x + v * loop.along_y


@vectorised
def path(loop: Kernel, point: Kernel) -> Kernel:
    """u and v of the points of one arm; the last one is the bend."""
    start = -0.5 * (loop.contact + loop.bend)
    opening, wide = start + loop.contact, HALF_NM + loop.bulge
    if point < 3:
        return start + 0.5 * point * loop.contact, HALF_NM
    if point == 3:
        return opening + 0.3 * loop.bend, HALF_NM + 0.8 * loop.bulge
    if point == 4:
        return opening + 0.6 * loop.bend, wide
    if point == 5:
        return opening + 0.88 * loop.bend, 0.65 * wide
    return opening + loop.bend, 0.0


@vectorised
def wall_gap(every: Kernel, warped: Kernel) -> Kernel:
    """Distance from the surface of the loop in whose site a warped point lies; negative inside."""
    z, y, x = unwarp(every.warp, warped[0], warped[1], warped[2])
    loop = loop_at(every, site_of(z, y, x))
    u, v, w = inward(loop, (z, y, x))
    v, rise = abs(v), abs(w)
    radius = RADIUS_NM[1] if loop.flat else RADIUS_NM[0]
    if loop.flat:
        rise = max(rise - RISE_NM, 0.0)
    start = -0.5 * (loop.contact + loop.bend)
    closed = loop.contact if loop.bulge > 0.0 else loop.contact + 0.6 * loop.bend
    between = start <= u <= start + closed and v < HALF_NM  # nothing comes in between the arms
    least = rise * rise if between else np.inf
    for point in range(POINTS - 1):
        a, b = path(loop, point), path(loop, point + 1)
        along, across = b[0] - a[0], b[1] - a[1]
        t = ((u - a[0]) * along + (v - a[1]) * across) / (along * along + across * across)
        t = min(max(t, 0.0), 1.0)
        du, dv = u - a[0] - t * along, v - a[1] - t * across
        least = min(least, du * du + dv * dv + rise * rise)
    return math.sqrt(least) - radius


@vectorised
def furrow(loop: Kernel, point: Kernel) -> Kernel:
    """Distance from the furrow at the bend: the plane v = 0 but for the slit."""
    u, v, w = inward(loop, point)
    end = 0.5 * (loop.contact + loop.bend)
    spared = min(SLIT_NM[0] - abs(u - end), SLIT_NM[1] - abs(w))
    return math.sqrt(v * v + spared * spared) if spared > 0.0 else abs(v)


@vectorised
def laid(every: Kernel, loop: Kernel, own: Kernel) -> Kernel:
    """Where a point of a loop's own coordinates lies in warped space, with arms that face each other upright."""
    u, v, w = own
    z, y, x = outward(loop, u, v, w)
    here = warp(every.warp, z, y, x)
    a, b = outward(loop, u - 40.0, 0.0, w), outward(loop, u + 40.0, 0.0, w)
    c, d = outward(loop, u, 0.0, w - 40.0), outward(loop, u, 0.0, w + 40.0)
    a, b = warp(every.warp, a[0], a[1], a[2]), warp(every.warp, b[0], b[1], b[2])
    c, d = warp(every.warp, c[0], c[1], c[2]), warp(every.warp, d[0], d[1], d[2])
    f, g = (b[0] - a[0], b[1] - a[1], b[2] - a[2]), (d[0] - c[0], d[1] - c[1], d[2] - c[2])
    normal = (f[1] * g[2] - f[2] * g[1], f[2] * g[0] - f[0] * g[2], f[0] * g[1] - f[1] * g[0])
    z, y, x = outward(loop, u, 0.0, w)
    middle = warp(every.warp, z, y, x)
    z, y, x = outward(loop, u, HALF_NM if v > 0.0 else -HALF_NM, w)
    side = warp(every.warp, z, y, x)
    size = math.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
    straight = (side[0] - middle[0]) * normal[0] + (side[1] - middle[1]) * normal[1] + (side[2] - middle[2]) * normal[2]
    reach = min(abs(v), HALF_NM) / (size if straight > 0.0 else -size)
    part = min(abs(v), HALF_NM) / HALF_NM
    return (
        here[0] + reach * normal[0] - part * (side[0] - middle[0]),
        here[1] + reach * normal[1] - part * (side[1] - middle[1]),
        here[2] + reach * normal[2] - part * (side[2] - middle[2]),
    )


@vectorised
def lay_loop(every: Kernel, site: Kernel, capsule: Kernel, arm: Kernel, joint: Kernel) -> Kernel:
    """Fill in the capsules of a site's loop, which arm each belongs to, and those that join both; how many."""
    loop, at = loop_at(every, site), 0
    radius = RADIUS_NM[1] if loop.flat else RADIUS_NM[0]
    for side in range(2):
        for level in range(LEVELS if loop.flat else 1):
            w = (level - 1.0) * RISE_NM if loop.flat else 0.0
            for point in range(POINTS - 1):
                for end in range(2):
                    u, v = path(loop, point + end)
                    place = laid(every, loop, (u, v if side == 0 else -v, w))
                    for axis in range(3):
                        capsule[at, 4 * end + axis] = place[axis]
                capsule[at, 3] = capsule[at, 7] = radius
                arm[at], joint[at] = side, point == POINTS - 2
                at += 1
    return at


def sites_around(low_nm: NDArray[np.float64], high_nm: NDArray[np.float64]) -> tuple[tuple[int, int, int], ...]:
    """The sites that hold a point between two physical corners, in order."""
    first = [int(n) for n in np.floor(low_nm / SITE_NM)]
    last = [int(n) for n in np.floor(high_nm / SITE_NM)]
    spans = [range(a, b + 1) for a, b in zip(first, last, strict=True)]
    return tuple((z, y, x) for z in spans[0] for y in spans[1] for x in spans[2])
