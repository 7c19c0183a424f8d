"""The warp of a generated volume, and the cells in which it is evaluated.

1. The warp is a chain of shears, large ones first: z += n(y, x), y += n(z, x), x += n(z, y) with smooth noise n. Every
   shear can be undone, so the warp folds nothing: what is connected before is connected after.
2. Space is cut into small cells, anchored at the volume's origin. The warp is evaluated at their corners; inside it is
   linear between them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.ops.compiled import vectorised
from pipeline.ops.position_hash import U64, Kernel, noise2, subkey

F = np.float32

CELL_NM = (60.0, 60.0, 96.0)  # about; whole voxels
SHEARS_NM = ((6000.0, 1900.0), (1500.0, 330.0), (430.0, 74.0))  # period and amplitude
CALM_NM = ((6000.0, 900.0), (1500.0, 130.0), (430.0, 24.0))  # where surfaces shall stay upright


class Warp(NamedTuple):
    """The shears of one volume."""

    keys: NDArray[np.uint64]
    shears_nm: NDArray[np.float64]  # (3, 2)


class Lattice(NamedTuple):
    """The cells that cover a box, and the warp at their corners."""

    begin: NDArray[np.int64]  # index of the first cell
    pitch: NDArray[np.int64]  # voxels per cell
    voxel_nm: NDArray[np.float64]
    corner: NDArray[np.float64]  # (nz + 1, ny + 1, nx + 1, 3) warped nm


def warp_of(seed: int, *, calm: bool = False) -> Warp:
    """The shears of a seed."""
    keys = np.array([subkey(U64(seed), U64(2000 + shear)) for shear in range(9)], np.uint64)
    return Warp(keys, np.array(CALM_NM if calm else SHEARS_NM, np.float64))


@vectorised
def warp(bent: Kernel, z: Kernel, y: Kernel, x: Kernel) -> Kernel:
    """Physical nm to warped nm."""
    keys = bent.keys
    for octave in range(3):
        period, reach = bent.shears_nm[octave, 0], bent.shears_nm[octave, 1]
        scale = 1.0 / period
        z += reach * noise2(keys[3 * octave], y * scale, x * scale)
        y += reach * noise2(keys[3 * octave + 1], z * scale, x * scale)
        x += reach * noise2(keys[3 * octave + 2], z * scale, y * scale)
    return z, y, x


@vectorised
def unwarp(bent: Kernel, z: Kernel, y: Kernel, x: Kernel) -> Kernel:
    """Warped nm to physical nm: the shears undone, last one first."""
    keys = bent.keys
    for back in range(3):
        octave = 2 - back
        period, reach = bent.shears_nm[octave, 0], bent.shears_nm[octave, 1]
        scale = 1.0 / period
        x -= reach * noise2(keys[3 * octave + 2], z * scale, y * scale)
        y -= reach * noise2(keys[3 * octave + 1], z * scale, x * scale)
        z -= reach * noise2(keys[3 * octave], y * scale, x * scale)
    return z, y, x


@vectorised
def bend(bent: Kernel, lattice: Kernel) -> None:
    """Evaluate the warp at every corner."""
    nz, ny, nx, _ = lattice.corner.shape
    step_z, step_y, step_x = lattice.pitch * lattice.voxel_nm
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                at = (lattice.begin[0] + k) * step_z, (lattice.begin[1] + j) * step_y, (lattice.begin[2] + i) * step_x
                z, y, x = warp(bent, at[0], at[1], at[2])
                lattice.corner[k, j, i, 0], lattice.corner[k, j, i, 1], lattice.corner[k, j, i, 2] = z, y, x


@vectorised
def enclose(lattice: Kernel, where: Kernel, origin: Kernel, frame: Kernel) -> Kernel:
    """Set a cell's origin (first corner) and frame (warped by physical nm); returns a sphere around it, warped nm."""
    k, j, i = where
    corners = lattice.corner[k : k + 2, j : j + 2, i : i + 2]
    centre = np.zeros(3)
    for axis in range(3):
        origin[axis] = corners[0, 0, 0, axis]
        face = corners[:, :, :, axis]
        along_z = (face[1, 0, 0] + face[1, 0, 1] + face[1, 1, 0] + face[1, 1, 1]) * 0.25
        along_y = (face[0, 1, 0] + face[0, 1, 1] + face[1, 1, 0] + face[1, 1, 1]) * 0.25
        along_x = (face[0, 0, 1] + face[0, 1, 1] + face[1, 0, 1] + face[1, 1, 1]) * 0.25
        whole = (face[0, 0, 0] + face[0, 0, 1] + face[0, 1, 0] + face[0, 1, 1]) * 0.125 + along_z * 0.5
        centre[axis] = whole
        slopes = (2.0 * (along_z - whole), 2.0 * (along_y - whole), 2.0 * (along_x - whole))
        for way in range(3):
            frame[axis, way] = F(slopes[way] / (lattice.pitch[way] * lattice.voxel_nm[way]))
    far = 0.0
    for corner in range(8):
        at = corners[corner >> 2, (corner >> 1) & 1, corner & 1]
        gap = (at[0] - centre[0]) ** 2 + (at[1] - centre[1]) ** 2 + (at[2] - centre[2]) ** 2
        far = max(far, gap)
    return (centre[0], centre[1], centre[2]), math.sqrt(far)


@vectorised
def advance(lattice: Kernel, where: Kernel, origin: Kernel, run: Kernel, point: Kernel) -> None:
    """Positions of a run of voxels along x in a cell, from the cell's origin: linear between its corners."""
    k, j, i = where
    z, y, x, n = run
    pitch = lattice.pitch
    c = (z + 0.5) / pitch[0] - (lattice.begin[0] + k)
    b = (y + 0.5) / pitch[1] - (lattice.begin[1] + j)
    for axis in range(3):
        corner = lattice.corner[k : k + 2, j : j + 2, i : i + 2, axis]
        left = (corner[0, 0, 0] * (1 - b) + corner[0, 1, 0] * b) * (1 - c)
        left += (corner[1, 0, 0] * (1 - b) + corner[1, 1, 0] * b) * c - origin[axis]
        right = (corner[0, 0, 1] * (1 - b) + corner[0, 1, 1] * b) * (1 - c)
        right += (corner[1, 0, 1] * (1 - b) + corner[1, 1, 1] * b) * c - origin[axis]
        base, slope = F(left), F(right - left)
        for n_x in range(n):
            a = F(x + n_x - (lattice.begin[2] + i) * pitch[2]) + F(0.5)
            point[axis, n_x] = base + slope * (a / F(pitch[2]))


def cells(box: Box, voxel_size_nm: tuple[float, float, float], seed: int, *, calm: bool = False) -> Lattice:
    """The cells that cover a box, bent."""
    voxel_nm = np.array(voxel_size_nm, np.float64)
    pitch = np.maximum(1, np.floor(np.array(CELL_NM) / voxel_nm + 0.5).astype(np.int64))
    begin = np.array(box.begin, np.int64) // pitch
    end = -(-np.array(box.end, np.int64) // pitch)
    corners = tuple(int(n) + 1 for n in end - begin)
    lattice = Lattice(begin, pitch, voxel_nm, np.empty((*corners, 3), np.float64))
    bend(warp_of(seed, calm=calm), lattice)
    return lattice
