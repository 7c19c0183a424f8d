"""Generated electron microscopy: an endless volume of neurites of which any box can be made on its own.

1. Space is warped (`warped_cells`): straight neurites become tortuous ones, and nothing tears.
2. In warped space a voxel belongs to the part with the least ratio of distance to radius (`neurites` makes the parts).
   No axis is ever swallowed by a thicker neighbour, so a neurite holds together along its axis.
3. The distance to the boundary in physical nm is the difference of the two least ratios over the length of its
   gradient. Voxels nearer than `GAP_NM` to it are truth 0: membrane and extracellular space.
4. `micrograph` turns that distance, and where along the neurite the voxel lies, into a grey value.
5. Sections are displaced by a few pixels, image and truth together, as if cut and photographed one by one. About one
   in a hundred is missing: its image is an even grey, its truth is kept.
6. On request there are loops (`loops`), processes that touch themselves at known places: a boundary between the arms of
   one looks like any other, or is wider, and a furrow nearly cuts it at its bend. Sections are aligned then.

All of it is evaluated in small cells anchored at the volume's origin, with the capsules that can matter inside. A box
is a set of cells, so every voxel is a function of the seed and its position alone. Arithmetic is restricted to integers
and + - * / sqrt floor, which every machine rounds alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WrongShape, WrongVoxelSize
from pipeline.geometry import Box, Index
from pipeline.ops import micrograph
from pipeline.ops.candidates import survey
from pipeline.ops.compiled import vectorised
from pipeline.ops.forest import unpack
from pipeline.ops.loops import KINDS, NO_LOOPS, Loops, furrow, loop_at, loops
from pipeline.ops.micrograph import appearance
from pipeline.ops.neurites import ARM, CAPSULE, Skeleton, skeleton
from pipeline.ops.position_hash import U64, Kernel, bell, hash3, mix, share
from pipeline.ops.warped_cells import Lattice, advance, cells, enclose, warp_of

F = np.float32

GAP_NM = 11.0  # truth is 0 this near to a boundary
SHIFT_VX = 10  # a section is displaced by at most this
MOST = 192  # capsules that can matter in a cell
NOBODY = np.iinfo(np.int64).max
SLOT = 0xFFFFFFFF
FARTHEST_NM = 250e6  # node indices must fit their bits


class Scene(NamedTuple):
    """Everything that decides a box's voxels."""

    lattice: Lattice
    skeleton: Skeleton
    keys: tuple[np.uint64, ...]
    box: NDArray[np.int64]  # begin and end
    folds: bool
    loops: Loops


class Cell(NamedTuple):
    """One cell: its candidates in its own coordinates, sorted by part."""

    shape: NDArray[np.float32]  # (MOST, CAPSULE + 1): start, radius, edge vector, growth of the radius, 1 / length ** 2
    source: NDArray[np.int64]  # number of the capsule in the skeleton
    part: NDArray[np.uint64]
    label: NDArray[np.uint64]
    joint: NDArray[np.bool_]
    piece: NDArray[np.uint64]  # random bits
    frame: NDArray[np.float32]  # (3, 3): warped nm by physical nm
    origin: NDArray[np.float64]  # warped nm of the first corner


class Row(NamedTuple):
    """A run of voxels along x inside a cell.

    A rank is the bits of a squared ratio (not negative, so they sort as integers) above the number of a candidate:
    the least of two ranks is the nearer candidate, and the one that comes first where two are as near.
    """

    point: NDArray[np.float32]  # (3, n) warped, from the cell's first corner
    ratio: NDArray[np.float32]  # (n,)
    bits: NDArray[np.int32]  # the same memory as ratio
    rank: NDArray[np.int64]  # (3, n): of the part at hand, the least, the least of another part
    grey: NDArray[np.float32]  # (n,)


@vectorised
def admit(scene: Kernel, found: Kernel, count: Kernel, limit: Kernel, cell: Kernel) -> Kernel:
    """Keep the capsules that can matter, sorted by part; returns how many."""
    part = scene.skeleton.part
    kept = 0
    for n in range(count):
        if found[1, n] > limit or kept == MOST:
            continue
        at = np.int64(found[0, n])
        slot = kept
        while slot > 0 and part[cell.source[slot - 1]] > part[at]:
            cell.source[slot] = cell.source[slot - 1]
            slot -= 1
        cell.source[slot] = at
        kept += 1
    for slot in range(kept):
        c = scene.skeleton.capsule[cell.source[slot]]
        length = 0.0
        for axis in range(3):
            cell.shape[slot, axis] = F(c[axis] - cell.origin[axis])
            edge = c[4 + axis] - c[axis]
            cell.shape[slot, 4 + axis] = F(edge)
            length += edge * edge
        cell.shape[slot, 3], cell.shape[slot, 7] = F(c[3]), F(c[7] - c[3])
        cell.part[slot], cell.label[slot] = part[cell.source[slot]], scene.skeleton.label[cell.source[slot]]
        cell.joint[slot] = scene.skeleton.joint[cell.source[slot]]
        key = scene.keys[micrograph.PIECE]
        cell.piece[slot] = hash3(key, np.int64(c[0]), np.int64(c[1]), np.int64(c[2]))
        cell.shape[slot, 8] = F(1.0 / length)
    return kept


@vectorised
def measure(capsule: Kernel, row: Kernel, n: Kernel) -> None:
    """Squared ratio of distance to radius for one capsule, along a row."""
    az, ay, ax, ra, ez, ey, ex, rb, inverse = capsule
    pz, py, px, ratio = row.point[0], row.point[1], row.point[2], row.ratio
    for i in range(n):
        dz, dy, dx = pz[i] - az, py[i] - ay, px[i] - ax
        t = min(max((dz * ez + dy * ey + dx * ex) * inverse, F(0.0)), F(1.0))
        dz, dy, dx, r = dz - t * ez, dy - t * ey, dx - t * ex, ra + t * rb
        ratio[i] = (dz * dz + dy * dy + dx * dx) / (r * r)


@vectorised
def gather(row: Kernel, slot: Kernel, n: Kernel) -> None:
    """Keep the nearest candidate of the part at hand."""
    bits, own = row.bits, row.rank[0]
    for i in range(n):
        own[i] = min(own[i], (np.int64(bits[i]) << 32) | slot)


@vectorised
def place_part(row: Kernel, n: Kernel) -> None:
    """Let the part at hand compete for first and second place."""
    own, first, second = row.rank[0], row.rank[1], row.rank[2]
    for i in range(n):
        second[i] = min(second[i], max(first[i], own[i]))
        first[i] = min(first[i], own[i])


@vectorised
def place_folded(label: Kernel, joint: Kernel, row: Kernel, n: Kernel) -> None:
    """The same where neurites fold back: at a joint, two parts of a label are one."""
    for i in range(n):
        own, first = row.rank[0, i], row.rank[1, i]
        by, old = own & SLOT, first & SLOT
        if first != NOBODY and label[old] == label[by] and (joint[old] or joint[by]):
            row.rank[1, i] = min(first, own)
        else:
            row.rank[2, i] = min(row.rank[2, i], max(first, own))
            row.rank[1, i] = min(first, own)


@vectorised
def compete(scene: Kernel, cell: Kernel, kept: Kernel, row: Kernel, n: Kernel) -> None:
    """Find for every voxel of a row the two parts that are nearest by ratio."""
    row.rank[:, :n] = NOBODY
    for slot in range(kept):
        s = cell.shape[slot]
        measure((s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]), row, n)
        gather(row, slot, n)
        if slot + 1 == kept or cell.part[slot + 1] != cell.part[slot]:
            if scene.folds or scene.loops.kinds != NO_LOOPS:
                place_folded(cell.label, cell.joint, row, n)
            else:
                place_part(row, n)
            row.rank[0, :n] = NOBODY


@vectorised
def foot(shape: Kernel, slot: Kernel, point: Kernel) -> Kernel:
    """Where along a capsule a point lies, the vector away from its axis, and the radius there."""
    az, ay, ax, ra = shape[slot, 0], shape[slot, 1], shape[slot, 2], shape[slot, 3]
    ez, ey, ex, rb = shape[slot, 4], shape[slot, 5], shape[slot, 6], shape[slot, 7]
    dz, dy, dx = point[0] - az, point[1] - ay, point[2] - ax
    t = min(max((dz * ez + dy * ey + dx * ex) * shape[slot, 8], F(0.0)), F(1.0))
    return t, (dz - t * ez, dy - t * ey, dx - t * ex), ra + t * rb


@vectorised
def depth(frame: Kernel, first: Kernel, second: Kernel) -> Kernel:
    """Distance to the boundary in physical nm and the share of its normal along z."""
    (_, v, r), (_, w, s) = first, second
    d = max(math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), F(1.0))
    e = max(math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2]), F(1.0))
    a, b = F(1.0) / (d * r), F(1.0) / (e * s)
    gz, gy, gx = w[0] * b - v[0] * a, w[1] * b - v[1] * a, w[2] * b - v[2] * a
    z = frame[0, 0] * gz + frame[1, 0] * gy + frame[2, 0] * gx
    y = frame[0, 1] * gz + frame[1, 1] * gy + frame[2, 1] * gx
    x = frame[0, 2] * gz + frame[1, 2] * gy + frame[2, 2] * gx
    steep = max(math.sqrt(z * z + y * y + x * x), F(1e-5))
    return (e / s - d / r) / steep, abs(z) / steep


@vectorised
def organelles(keys: Kernel, piece: Kernel, first: Kernel, inside: Kernel, where: Kernel) -> Kernel:
    """Darkness of what floats in the cytoplasm."""
    t, away, radius = first
    body = micrograph.mitochondrion(piece, away, t, radius)
    if body == F(0.0):
        body = micrograph.tube(mix(piece), away, t)
        if share(mix(piece + U64(1)), 0) < F(0.22):
            body = max(body, micrograph.vesicles(keys, where))
    return body * min(F(1.0), (inside - F(20.0)) * F(0.2))


@vectorised
def own_edges(scene: Kernel, label: Kernel, place_nm: Kernel) -> Kernel:
    """Of a loop: half the width of the boundary between its arms, and the distance from its furrow."""
    if scene.loops.kinds == NO_LOOPS:
        return F(0.0), F(1e9)
    level, site = unpack(label)
    if level < ARM:
        return F(0.0), F(1e9)
    loop = loop_at(scene.loops, site)
    return F(loop.apart), F(furrow(loop, place_nm))


@vectorised
def shade(scene: Kernel, cell: Kernel, row: Kernel, run: Kernel, truth: Kernel) -> None:
    """Truth, and grey before the section's own accidents (into the row), of a run of voxels."""
    keys, shape, voxel, origin = scene.keys, cell.shape, scene.lattice.voxel_nm, cell.origin
    z, y, x, n = run
    frame, half = cell.frame, F(voxel[0] * 0.5)
    place_z, place_y = (z + 0.5) * voxel[0], (y + 0.5) * voxel[1]
    for i in range(n):
        point = (row.point[0, i], row.point[1, i], row.point[2, i])
        one, two = row.rank[1, i] & SLOT, row.rank[2, i] & SLOT
        label = cell.label[one]
        first = foot(shape, one, point)
        place_x = (x + i + 0.5) * voxel[2]
        grey = micrograph.cytoplasm(keys, label) + micrograph.grain(keys, z, place_y, place_x)
        inside, across, other = F(1e9), F(0.0), label
        if row.rank[2, i] != NOBODY:
            inside, across = depth(frame, first, foot(shape, two, point))
            other = cell.label[two]
        apart, cut = own_edges(scene, label, (place_z, place_y, place_x))
        loose = apart > F(0.0) and other == label  # between the arms of a loop
        told = other != label or loose or share(mix(label), 1) < F(0.5)
        gap = (inside < (apart if loose else F(GAP_NM)) and told) or cut < F(GAP_NM)
        if cut < inside:
            inside, across, other, loose = cut, F(0.0), label, False
        cleft = apart - F(7.0) if loose else micrograph.cleft(keys, (label, other))
        grey -= micrograph.membrane(cleft, inside, across * half)
        if inside > F(20.0):
            where = (origin[0] + point[0], origin[1] + point[1], origin[2] + point[2])
            grey -= organelles(keys, cell.piece[one], first, inside, where)
        if other != label and inside < F(48.0):
            grey -= micrograph.density(keys, (label, other), inside, (place_z, place_y, place_x))
        truth[i] = U64(0) if gap else label
        row.grey[i] = grey


@vectorised
def expose(keys: Kernel, section: Kernel, grey: Kernel, at: Kernel, image: Kernel) -> None:
    """What the camera records of a run of grey values."""
    z, y, x = at
    fine, coarse = keys[micrograph.CAMERA], keys[micrograph.CAMERA] + U64(1)
    blank = F(90.0) + F(100.0) * share(hash3(keys[micrograph.SECTION], z, 9, 9), 0)
    gain, offset = F(section.gain), F(128.0) - F(128.0) * F(section.gain) + F(section.offset)
    for i in range(image.size):
        noise = F(7.0) * bell(hash3(fine, z, y, x + i)) + F(5.5) * bell(hash3(coarse, z, y >> 1, (x + i) >> 1))
        value = blank + F(0.3) * noise if section.missing else grey[i] * gain + offset + noise
        image[i] = np.uint8(min(max(value + F(0.5), F(0.0)), F(255.0)))


@vectorised
def paint_section(scene: Kernel, task: Kernel, row: Kernel, z: Kernel, out: Kernel) -> None:
    """Fill in what one cell shows in one section."""
    cell, kept, where = task
    image, truth = out
    lattice, box = scene.lattice, scene.box
    section = micrograph.section(scene.keys, z)
    aligned = scene.loops.kinds != NO_LOOPS
    shift_y = np.int64(0) if aligned else np.int64(section.shift_y)
    shift_x = np.int64(0) if aligned else np.int64(section.shift_x)
    first = (lattice.begin[1] + where[1]) * lattice.pitch[1], (lattice.begin[2] + where[2]) * lattice.pitch[2]
    y_from, y_to = max(first[0], box[0, 1] + shift_y), min(first[0] + lattice.pitch[1], box[1, 1] + shift_y)
    x_from, x_to = max(first[1], box[0, 2] + shift_x), min(first[1] + lattice.pitch[2], box[1, 2] + shift_x)
    n = x_to - x_from
    if n <= 0:
        return
    for y in range(y_from, y_to):
        advance(lattice, where, cell.origin, (z, y, x_from, n), row.point)
        compete(scene, cell, kept, row, n)
        k, j, m = z - box[0, 0], y - shift_y - box[0, 1], x_from - shift_x - box[0, 2]
        shade(scene, cell, row, (z, y, x_from, n), truth[k, j, m : m + n])
        at = (z, y - shift_y, x_from - shift_x)
        expose(scene.keys, section, row.grey, at, image[k, j, m : m + n])


@vectorised
def paint(scene: Kernel, cell: Kernel, row: Kernel, image: Kernel, truth: Kernel) -> None:
    """Fill a box, cell by cell."""
    lattice, box = scene.lattice, scene.box
    found = np.empty((3, 1024), np.float64)
    nz, ny, nx, _ = lattice.corner.shape
    for k in range(nz - 1):
        z_from = max((lattice.begin[0] + k) * lattice.pitch[0], box[0, 0])
        z_to = min((lattice.begin[0] + k + 1) * lattice.pitch[0], box[1, 0])
        for j in range(ny - 1):
            for i in range(nx - 1):
                where = (k, j, i)
                centre, far = enclose(lattice, where, cell.origin, cell.frame)
                count, limit = survey(scene.skeleton, centre, far, found)
                kept = admit(scene, found, count, limit, cell)
                for z in range(z_from, z_to):
                    paint_section(scene, (cell, kept, where), row, z, (image, truth))


def empty_cell() -> Cell:
    """Room for one cell's candidates."""
    keys = [np.zeros(MOST, np.uint64) for _ in range(3)]
    shape, index, joint = np.zeros((MOST, CAPSULE + 1), F), np.zeros(MOST, np.int64), np.zeros(MOST, np.bool_)
    return Cell(shape, index, keys[0], keys[1], joint, keys[2], np.zeros((3, 3), F), np.zeros(3))


def empty_row(longest: int) -> Row:
    """Room for a run of voxels."""
    ratio = np.zeros(longest, F)
    rank = np.zeros((3, longest), np.int64)
    return Row(np.zeros((3, longest), F), ratio, ratio.view(np.int32), rank, np.zeros(longest, F))


def generate(
    box: Box,
    *,
    seed: int,
    shape: Index,
    voxel_size_nm: tuple[float, float, float],
    self_touching: bool = False,
    loop_kinds: str | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Image and truth of a box; every voxel a function of the seed and its position alone."""
    if not Box.of_shape(shape).contains(box):
        raise WrongShape(
            f"the box {box} does not lie in the generated volume of shape {shape}",
            where="the synthetic volume",
            way_out="ask for a box inside it, or enlarge input.synthetic.size",
        )
    if min(voxel_size_nm) <= 0 or max(n * v for n, v in zip(shape, voxel_size_nm, strict=True)) > FARTHEST_NM:
        raise WrongVoxelSize(
            f"a generated volume of {shape} voxels of {voxel_size_nm} nm is not possible; the limit is 250 mm",
            where="the synthetic volume",
            way_out="use positive voxel sizes and fewer voxels",
        )
    image, truth = np.empty(box.shape, np.uint8), np.empty(box.shape, np.uint64)
    if box.voxels == 0:
        return image, truth
    kinds = NO_LOOPS if loop_kinds is None else KINDS.index(loop_kinds)
    scene = _scene(box, seed, voxel_size_nm, (self_touching, kinds))
    lattice = scene.lattice
    paint(scene, empty_cell(), empty_row(int(lattice.pitch[2])), image, truth)
    return image, truth


def _scene(box: Box, seed: int, voxel_size_nm: tuple[float, float, float], options: tuple[bool, int]) -> Scene:
    """Everything that decides a box's voxels."""
    folds, kinds = options
    calm = kinds != NO_LOOPS
    lattice = cells(box.grow((0, SHIFT_VX, SHIFT_VX)), voxel_size_nm, seed, calm=calm)  # sections are displaced
    flat = lattice.corner.reshape(-1, 3)
    first = lattice.begin * lattice.pitch
    last = first + (np.array(lattice.corner.shape[:3]) - 1) * lattice.pitch
    physical_nm = np.array([first, last]) * lattice.voxel_nm
    trees = skeleton(seed, folds, flat.min(axis=0), flat.max(axis=0), (kinds, physical_nm))
    bent = loops(seed, kinds, warp_of(seed, calm=calm))
    return Scene(lattice, trees, appearance(seed), np.array([box.begin, box.end], np.int64), folds, bent)
