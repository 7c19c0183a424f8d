"""The forest of neurites of a generated volume: which node goes on to which, a function of position alone.

1. Space (after warping) holds two jittered lattices of nodes: thin neurites every 240 nm, and, sparse, thick dendrites
   every 1,400 nm. A node's place is a hash of its lattice index.
2. Every node wishes to go on to the next node along one of the three axes. Neighbours mostly wish the same, so that
   bundles form; some wish at random, so that bundles cross. A few wish nothing: there a neurite ends.
3. A node accepts one of the nodes that wish to come to it, and sometimes another: a branch. Axes are never crossed.
4. Following accepted wishes ends at a root, after at most 256 steps. The root names the object: its packed index is
   the id. Steps only go up along the axes, so there are no cycles.
5. A thick dendrite exists if its root's hash says so. Thin nodes inside it do not exist. A thin neurite that runs
   into it ends there, or becomes a spine: part of the dendrite.
6. On request some neurites fold back: their root also turns to a neighbour that runs beside them, and both carry one
   id, while their flanks go on touching through a membrane.
7. On request there are loops (`loops`) in place of dendrites: thin nodes inside them do not exist, and a thin neurite
   that runs into one ends there.

What a node wishes costs some work and is asked for many times: a small hash table remembers it during one call.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import vectorised
from pipeline.ops.loops import NO_LOOPS, Loops, loops, wall_gap
from pipeline.ops.position_hash import U64, Kernel, hash3, mix, noise3, share, subkey
from pipeline.ops.warped_cells import warp_of

THIN, THICK = 0, 1
SPACING_NM = (240.0, 1400.0)
JITTER = (0.62, 0.5)
ENDS = (1.0 / 24.0, 1.0 / 9.0)  # share of nodes that wish nothing
BRANCHES = 0.25  # share of second wishes that are accepted
THICK_SHARE = 0.5  # share of thick chains that exist
SPINES = 0.5  # share of thin neurites that become part of the dendrite they run into
DOMAIN = 5.0  # nodes over which wishes agree
STRAY = 0.3  # how much chance counts against agreement
LONGEST = 256  # steps to the root
ORIGIN = 64  # added to lattice indices: packed numbers must not be negative
AXIS_BITS = 20
CLEARANCE_NM = 30.0  # between a thin axis and a dendrite's surface

END, SPINE, ABSENT = 3, 4, 5  # wishes other than an axis


class Forest(NamedTuple):
    """The keys of one volume and what has been remembered of its nodes."""

    keys: NDArray[np.uint64]  # per level: place, wish, priority, object; see `forest`
    folds: bool
    loops: Loops  # their kinds are -1 if there are none
    memo_node: NDArray[np.int64]
    memo_wish: NDArray[np.int8]


def forest(seed: int, folds: bool, nodes: int, loop_kinds: int = NO_LOOPS) -> Forest:
    """Start an empty memory for a volume."""
    keys = np.array([[subkey(U64(seed), 16 * level + use) for use in range(4)] for level in (THIN, THICK)], np.uint64)
    size = 1 << max(14, (8 * nodes).bit_length())
    bent = loops(seed, loop_kinds, warp_of(seed, calm=loop_kinds != NO_LOOPS))
    return Forest(keys, folds, bent, np.zeros(size, np.int64), np.zeros(size, np.int8))


@vectorised
def pack(level: Kernel, z: Kernel, y: Kernel, x: Kernel) -> Kernel:
    """A node's name: positive, below 2**62, never shared."""
    packed = ((np.int64(level) << AXIS_BITS) + z + ORIGIN) << AXIS_BITS
    return 1 + (((packed + y + ORIGIN) << AXIS_BITS) + x + ORIGIN)


@vectorised
def unpack(name: Kernel) -> Kernel:
    """The level and the node of a name."""
    bits, mask = np.int64(name) - 1, (1 << AXIS_BITS) - 1
    z, y, x = (bits >> (2 * AXIS_BITS)) & mask, (bits >> AXIS_BITS) & mask, bits & mask
    return bits >> (3 * AXIS_BITS), (z - ORIGIN, y - ORIGIN, x - ORIGIN)


@vectorised
def place(keys: Kernel, level: Kernel, node: Kernel) -> Kernel:
    """Where a node lies, in warped nm."""
    z, y, x = node
    bits = hash3(keys[level, 0], z, y, x)
    loose, spacing = JITTER[level], SPACING_NM[level]
    return (
        (z + 0.5 + loose * (share(bits, 0) - 0.5)) * spacing,
        (y + 0.5 + loose * (share(bits, 1) - 0.5)) * spacing,
        (x + 0.5 + loose * (share(bits, 2) - 0.5)) * spacing,
    )


@vectorised
def step(node: Kernel, axis: Kernel, by: Kernel) -> Kernel:
    """The neighbour along an axis."""
    return (node[0] + by * (axis == 0), node[1] + by * (axis == 1), node[2] + by * (axis == 2))


@vectorised
def free_wish(keys: Kernel, level: Kernel, node: Kernel) -> Kernel:
    """The axis a node would follow if nothing were in its way, or END."""
    z, y, x = node
    bits = hash3(keys[level, 1], z, y, x)
    if share(bits, 3) < ENDS[level] or (z + y + x) % LONGEST == 0:
        return END
    a, b, c = noise3(keys[level, 1] + U64(1), z / DOMAIN, y / DOMAIN, x / DOMAIN)
    a, b, c = a + STRAY * share(bits, 0), b + STRAY * share(bits, 1), c + STRAY * share(bits, 2)
    if a >= b and a >= c:
        return 0
    return 1 if b >= c else 2


@vectorised
def chosen(keys: Kernel, level: Kernel, target: Kernel, wishes: Kernel, axis: Kernel) -> Kernel:
    """Whether a node accepts the one that comes along an axis; `wishes` are those of its three lower neighbours."""
    best, best_bits, own_bits = -1, U64(0), U64(0)
    for rival in range(3):
        if wishes[rival] == rival:
            z, y, x = step(target, rival, -1)
            bits = hash3(keys[level, 2], z, y, x)
            if rival == axis:
                own_bits = bits
            if best < 0 or bits < best_bits:
                best, best_bits = rival, bits
    return best == axis or share(mix(own_bits), 0) < BRANCHES


@vectorised
def remembered(forest: Kernel, name: Kernel) -> Kernel:
    """The slot of a node in the memory, and what it holds there (-1: nothing)."""
    mask = forest.memo_node.size - 1
    slot = np.int64(mix(U64(name)) & U64(mask))
    for _ in range(8):
        if forest.memo_node[slot] == name:
            return slot, np.int64(forest.memo_wish[slot])
        if forest.memo_node[slot] == 0:
            break
        slot = (slot + 1) & mask
    return slot, np.int64(-1)


@vectorised
def remember(forest: Kernel, slot: Kernel, name: Kernel, what: Kernel) -> None:
    """Keep an answer, unless the memory is too crowded."""
    if forest.memo_node[slot] == 0:
        forest.memo_node[slot], forest.memo_wish[slot] = name, what


@vectorised
def thick_next(keys: Kernel, node: Kernel) -> Kernel:
    """The axis along which a thick chain goes on, or END."""
    axis = free_wish(keys, THICK, node)
    if axis == END:
        return axis
    target = step(node, axis, 1)
    wishes = (
        free_wish(keys, THICK, step(target, 0, -1)),
        free_wish(keys, THICK, step(target, 1, -1)),
        free_wish(keys, THICK, step(target, 2, -1)),
    )
    return axis if chosen(keys, THICK, target, wishes, axis) else END


@vectorised
def thick_root(keys: Kernel, node: Kernel) -> Kernel:
    """The node that names a thick chain."""
    axis = thick_next(keys, node)
    while axis != END:
        node = step(node, axis, 1)
        axis = thick_next(keys, node)
    return node


@vectorised
def thick_out(forest: Kernel, node: Kernel) -> Kernel:
    """The axis of the dendrite's piece that starts at a node, or END if there is none; remembered."""
    name = pack(THICK, node[0], node[1], node[2])
    slot, known = remembered(forest, name)
    if known >= 0:
        return known
    axis = np.int64(END) if forest.loops.kinds != NO_LOOPS else thick_next(forest.keys, node)
    if axis != END:
        z, y, x = thick_root(forest.keys, node)
        if share(hash3(forest.keys[THICK, 3], z, y, x), 0) >= THICK_SHARE:
            axis = END
    remember(forest, slot, name, axis)
    return axis


@vectorised
def thick_radius(keys: Kernel, node: Kernel) -> Kernel:
    """The radius of a dendrite at a node."""
    z, y, x = node
    return 190.0 + 250.0 * share(hash3(keys[THICK, 0], z, y, x), 3)


@vectorised
def thick_near(forest: Kernel, point: Kernel) -> Kernel:
    """Distance from the surface of the nearest dendrite, the foot of the perpendicular, and the piece's node."""
    spacing = SPACING_NM[THICK]
    k, j, i = math.floor(point[0] / spacing), math.floor(point[1] / spacing), math.floor(point[2] / spacing)
    near, foot, piece = np.inf, point, (k, j, i)
    for z in range(k - 2, k + 2):
        for y in range(j - 2, j + 2):
            for x in range(i - 2, i + 2):
                axis = thick_out(forest, (z, y, x))
                if axis == END:
                    continue
                other = step((z, y, x), axis, 1)
                a, b = place(forest.keys, THICK, (z, y, x)), place(forest.keys, THICK, other)
                t, gap, on_axis = drop(point, a, b)
                low, high = thick_radius(forest.keys, (z, y, x)), thick_radius(forest.keys, other)
                gap -= low + t * (high - low)
                if gap < near:
                    near, foot, piece = gap, on_axis, (z, y, x)
    return near, foot, piece


@vectorised
def drop(point: Kernel, a: Kernel, b: Kernel) -> Kernel:
    """The perpendicular from a point to a segment: where along it (0 to 1), how far, and its foot."""
    ez, ey, ex = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    dz, dy, dx = point[0] - a[0], point[1] - a[1], point[2] - a[2]
    t = (dz * ez + dy * ey + dx * ex) / (ez * ez + ey * ey + ex * ex)
    t = min(max(t, 0.0), 1.0)
    dz, dy, dx = dz - t * ez, dy - t * ey, dx - t * ex
    return t, math.sqrt(dz * dz + dy * dy + dx * dx), (a[0] + t * ez, a[1] + t * ey, a[2] + t * ex)


@vectorised
def clearance(forest: Kernel, point: Kernel) -> Kernel:
    """Distance from the surface of what is thick: dendrites, or loops."""
    if forest.loops.kinds != NO_LOOPS:
        return wall_gap(forest.loops, point)
    return thick_near(forest, point)[0]


@vectorised
def thin_wish(forest: Kernel, node: Kernel) -> Kernel:
    """The axis a thin node follows, or END, SPINE, ABSENT; remembered."""
    name = pack(THIN, node[0], node[1], node[2])
    slot, known = remembered(forest, name)
    if known >= 0:
        return known
    found = np.int64(free_wish(forest.keys, THIN, node))
    a = place(forest.keys, THIN, node)
    if clearance(forest, a) < CLEARANCE_NM:
        found = np.int64(ABSENT)
    elif found < END:
        b = place(forest.keys, THIN, step(node, found, 1))
        for quarter in range(1, 5):
            t = quarter * 0.25
            between = (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2]))
            if clearance(forest, between) < CLEARANCE_NM:
                spine = share(hash3(forest.keys[THIN, 2] + U64(1), node[0], node[1], node[2]), 0) < SPINES
                found = np.int64(SPINE if spine and forest.loops.kinds == NO_LOOPS else END)
                break
    slot, known = remembered(forest, name)  # the slot may have been taken meanwhile
    remember(forest, slot, name, found)
    return found


@vectorised
def thin_next(forest: Kernel, node: Kernel) -> Kernel:
    """The axis along which a thin neurite goes on, or why it does not."""
    axis = thin_wish(forest, node)
    if axis >= END:
        return axis
    target = step(node, axis, 1)
    wishes = (
        thin_wish(forest, step(target, 0, -1)),
        thin_wish(forest, step(target, 1, -1)),
        thin_wish(forest, step(target, 2, -1)),
    )
    return axis if chosen(forest.keys, THIN, target, wishes, axis) else np.int64(END)


@vectorised
def thin_root(forest: Kernel, node: Kernel) -> Kernel:
    """The node at which a thin neurite ends, and whether it ends in a dendrite."""
    axis = thin_next(forest, node)
    while axis < END:
        node = step(node, axis, 1)
        axis = thin_next(forest, node)
    return node, axis == SPINE


@vectorised
def fold(forest: Kernel, root: Kernel) -> Kernel:
    """The neighbour that a root turns to, and that neighbour's own root; the root itself twice if it does not turn."""
    bits = hash3(forest.keys[THIN, 2] + U64(2), root[0], root[1], root[2])
    if not forest.folds or bits & U64(1):
        return root, root
    side = step(root, np.int64((bits >> U64(8)) % U64(3)), 1 if bits & U64(2) else -1)
    if thin_wish(forest, side) == ABSENT:
        return root, root
    other, spine = thin_root(forest, side)
    turns_too = not hash3(forest.keys[THIN, 2] + U64(2), other[0], other[1], other[2]) & U64(1)
    if spine or turns_too or other == root:
        return root, root
    return side, other
