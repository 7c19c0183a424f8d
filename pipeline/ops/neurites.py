"""The skeletons of a generated volume: the capsules (axis segments with two radii) of the forest in a region.

1. Every node whose neurite goes on gives a capsule to the next node; where it runs into a dendrite as a spine, one to
   the dendrite's axis; where it folds back, one to the neighbour that it joins.
2. Radii are weights: a hash of the object makes it thin or thick, one of the node makes it swell.
3. On request every loop (`loops`) that comes near adds its capsules: either arm is a part, both have one label, and
   the pieces at the bend join them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ops.compiled import vectorised
from pipeline.ops.forest import (
    ABSENT,
    END,
    SPACING_NM,
    SPINE,
    THICK,
    THIN,
    fold,
    forest,
    pack,
    place,
    step,
    thick_near,
    thick_out,
    thick_radius,
    thick_root,
    thin_next,
    thin_root,
)
from pipeline.ops.loops import CAPSULES, NO_LOOPS, Loops, laid, lay_loop, loop_at, sites_around
from pipeline.ops.position_hash import Kernel, hash3, share

REACH = (3, 2)  # nodes before and after a point whose capsules can matter to it
CAPSULE = 8  # z, y, x, radius at either end
LOOP_REACH_NM = 1800.0  # a loop's middle is no further from a cell that it can matter to; warped
LOOP_MARGIN_NM = 3000.0  # the same with room for the warp
ARM = 2  # level of the names of loops' first arms; second arms come after it


class Skeleton(NamedTuple):
    """All capsules (axis segments with two radii) that start at a node of a region, thin ones first."""

    capsule: NDArray[np.float64]  # (n, CAPSULE), warped nm
    part: NDArray[np.uint64]  # what a membrane surrounds
    label: NDArray[np.uint64]  # the object's id; several parts of one label only where neurites fold back
    joint: NDArray[np.bool_]  # a capsule that joins two parts of one label
    of_node: tuple[NDArray[np.int32], NDArray[np.int32]]  # per level (nz, ny, nx): a node's capsule, or -1
    begin: NDArray[np.int64]  # (2, 3): lattice index of the first node of each level's region
    loop_middle: NDArray[np.float64]  # (n, 3) warped nm
    loop_first: NDArray[np.int64]  # (n + 1,): a loop's first capsule


@vectorised
def thin_radius(forest: Kernel, root: Kernel, node: Kernel) -> Kernel:
    """The weight of a thin neurite at a node: thin and thick ones, each with swellings."""
    whole = share(hash3(forest.keys[THIN, 3], root[0], root[1], root[2]), 0)
    local = share(hash3(forest.keys[THIN, 0], node[0], node[1], node[2]), 3)
    return (45.0 + 150.0 * whole * whole * whole) * (0.65 + 0.8 * local)


@vectorised
def lay(capsule: Kernel, a: Kernel, b: Kernel, radii: Kernel) -> None:
    """Fill in one capsule."""
    for axis in range(3):
        capsule[axis], capsule[4 + axis] = a[axis], b[axis]
    capsule[3], capsule[7] = radii


@vectorised
def lay_thick(forest: Kernel, node: Kernel, skeleton: Kernel, at: Kernel) -> Kernel:
    """Add the dendrite piece that starts at a node; says whether there is one."""
    axis = thick_out(forest, node)
    if axis == END:
        return False
    other = step(node, axis, 1)
    a, b = place(forest.keys, THICK, node), place(forest.keys, THICK, other)
    lay(skeleton.capsule[at], a, b, (thick_radius(forest.keys, node), thick_radius(forest.keys, other)))
    z, y, x = thick_root(forest.keys, node)
    skeleton.part[at] = skeleton.label[at] = pack(THICK, z, y, x)
    return True


@vectorised
def lay_thin(forest: Kernel, node: Kernel, skeleton: Kernel, at: Kernel) -> Kernel:
    """Add the thin piece that starts at a node, if any: to the next node, into a dendrite, or to a fold."""
    axis = thin_next(forest, node)
    if axis == ABSENT:
        return False
    root, spine = thin_root(forest, node)
    side, other = (root, root) if spine else fold(forest, root)
    if axis == END and side == root:
        return False
    a = place(forest.keys, THIN, node)
    radius = thin_radius(forest, root, node)
    if axis == SPINE:
        _, b, _ = thick_near(forest, place(forest.keys, THIN, node))
        lay(skeleton.capsule[at], a, b, (radius, 60.0))
    else:
        target = side if axis == END else step(node, axis, 1)
        lay(skeleton.capsule[at], a, place(forest.keys, THIN, target), (radius, thin_radius(forest, root, target)))
    skeleton.part[at] = pack(THIN, root[0], root[1], root[2])
    skeleton.label[at] = pack(THIN, other[0], other[1], other[2])
    if spine:
        _, _, piece = thick_near(forest, place(forest.keys, THIN, root))
        z, y, x = thick_root(forest.keys, piece)
        skeleton.part[at] = skeleton.label[at] = pack(THICK, z, y, x)
    skeleton.joint[at] = axis == END
    return True


@vectorised
def fill(forest: Kernel, level: Kernel, skeleton: Kernel, at: Kernel) -> Kernel:
    """Lay the pieces of one level; returns how many capsules there are now."""
    nz, ny, nx = skeleton.of_node[level].shape
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                begin = skeleton.begin[level]
                node = (begin[0] + k, begin[1] + j, begin[2] + i)
                laid = lay_thin(forest, node, skeleton, at) if level == THIN else lay_thick(forest, node, skeleton, at)
                if laid:
                    skeleton.of_node[level][k, j, i] = at
                    at += 1
    return at


@vectorised
def fill_loops(loops: Kernel, sites: Kernel, skeleton: Kernel, at: Kernel) -> Kernel:
    """Lay the loops of sites; returns how many capsules there are now."""
    arm, joint = np.empty(CAPSULES, np.int64), np.empty(CAPSULES, np.bool_)
    for n in range(sites.shape[0]):
        z, y, x = sites[n, 0], sites[n, 1], sites[n, 2]
        middle = laid(loops, loop_at(loops, (z, y, x)), (0.0, 0.0, 0.0))
        for axis in range(3):
            skeleton.loop_middle[n, axis] = middle[axis]
        skeleton.loop_first[n] = at
        for piece in range(lay_loop(loops, (z, y, x), skeleton.capsule[at:], arm, joint)):
            skeleton.part[at] = pack(ARM + arm[piece], z, y, x)
            skeleton.label[at] = pack(ARM, z, y, x)
            skeleton.joint[at] = joint[piece]
            at += 1
    skeleton.loop_first[sites.shape[0]] = at
    return at


def loop_sites(loops: Loops, physical_nm: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """The sites whose loops can matter between two physical corners."""
    if loops.kinds == NO_LOOPS or physical_nm is None:
        return np.zeros((0, 3), np.int64)
    low_nm, high_nm = physical_nm
    return np.array(sites_around(low_nm - LOOP_MARGIN_NM, high_nm + LOOP_MARGIN_NM), np.int64).reshape(-1, 3)


def skeleton(
    seed: int,
    folds: bool,
    low_nm: NDArray[np.float64],
    high_nm: NDArray[np.float64],
    loops: tuple[int, NDArray[np.float64] | None] = (NO_LOOPS, None),
) -> Skeleton:
    """Everything that can matter to points between two corners of warped space.

    Loops: their kinds, and the corners in physical space.
    """
    begins, shapes = [], []
    for level, (before, after) in ((THIN, REACH), (THICK, REACH)):
        first = np.floor(low_nm / SPACING_NM[level]).astype(np.int64) - before
        last = np.floor(high_nm / SPACING_NM[level]).astype(np.int64) + after
        begins.append(first)
        shapes.append(tuple(int(n) for n in last - first + 1))
    count = sum(int(np.prod(shape)) for shape in shapes)
    trees = forest(seed, folds, count, loops[0])
    sites = loop_sites(trees.loops, loops[1])
    count += CAPSULES * len(sites)
    whole = Skeleton(
        capsule=np.zeros((count, CAPSULE), np.float64),
        part=np.zeros(count, np.uint64),
        label=np.zeros(count, np.uint64),
        joint=np.zeros(count, np.bool_),
        of_node=(np.full(shapes[0], -1, np.int32), np.full(shapes[1], -1, np.int32)),
        begin=np.array(begins, np.int64),
        loop_middle=np.zeros((len(sites), 3), np.float64),
        loop_first=np.zeros(len(sites) + 1, np.int64),
    )
    filled = fill(trees, THIN, whole, 0)
    filled = fill(trees, THICK, whole, filled)
    filled = fill_loops(trees.loops, sites, whole, filled)
    return whole._replace(
        capsule=whole.capsule[:filled], part=whole.part[:filled], label=whole.label[:filled], joint=whole.joint[:filled]
    )
