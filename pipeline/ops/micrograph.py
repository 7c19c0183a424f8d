"""The grey values of a generated volume: what a voxel looks like, given where it lies in its neurite.

1. Cytoplasm: a brightness per object, two octaves of grain within the section.
2. Membrane: dark, of constant physical width; where it is cut obliquely, the section's thickness smears it.
3. Organelles: mitochondria along the axis with a dark rim and cristae, thin dark tubes of endoplasmic reticulum,
   vesicles in the boutons; dark synaptic densities on some contacts.
4. The section: gain and offset that jump from one to the next, a slow shade across it, grain of the camera; about one
   in a hundred is missing and shows an even grey.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.ops.compiled import vectorised
from pipeline.ops.position_hash import U64, Kernel, bell, hash3, mix, noise2, noise3, share, subkey

F = np.float32

MEMBRANE_NM = 9.0  # thickness of a membrane
MEMBRANE_DARK = 92.0
VESICLE_NM = 56.0  # spacing
MISSING = 0.01
SLIP = 0.03

(
    GRAIN_FINE,
    GRAIN_COARSE,
    OBJECT,
    PIECE,
    VESICLE,
    SYNAPSE,
    SECTION,
    SHADE,
    CAMERA,
) = range(9)


class Section(NamedTuple):
    """How one section was cut and photographed."""

    shift_y: Kernel
    shift_x: Kernel
    gain: Kernel
    offset: Kernel
    missing: Kernel


def appearance(seed: int) -> tuple[np.uint64, ...]:
    """A key for every ingredient."""
    return tuple(U64(subkey(U64(seed), U64(1000 + use))) for use in range(9))


@vectorised
def section(keys: Kernel, z: Kernel) -> Kernel:
    """The accidents of one section."""
    where, light = hash3(keys[SECTION], z, 0, 0), hash3(keys[SECTION], z, 1, 0)
    rare, more = hash3(keys[SECTION], z, 2, 0), hash3(keys[SECTION], z, 3, 0)
    dy, dx = np.int64(share(where, 0) * 5.0) - 2, np.int64(share(where, 1) * 5.0) - 2
    if share(rare, 0) < SLIP:
        dy, dx = dy + np.int64(share(where, 2) * 17.0) - 8, dx + np.int64(share(where, 3) * 17.0) - 8
    gain = 0.9 + 0.2 * share(light, 0)
    offset = 8.0 * bell(more)
    if share(rare, 1) < 0.08:
        offset += 60.0 * share(light, 1) - 15.0
    return Section(dy, dx, gain, offset, share(rare, 2) < MISSING)


@vectorised
def membrane(cleft_nm: Kernel, depth_nm: Kernel, across_nm: Kernel) -> Kernel:
    """Darkness of two membranes and their cleft; `across_nm` is how far the section carries them sideways."""
    wide = math.sqrt(F(MEMBRANE_NM * MEMBRANE_NM) + across_nm * across_nm)
    u = abs(depth_nm - cleft_nm * (F(MEMBRANE_NM) / wide)) / (wide * F(1.5))
    if u >= F(1.0):
        return F(0.0)
    u = F(1.0) - u * u
    return F(MEMBRANE_DARK) * u * u * (F(MEMBRANE_NM) / wide)


@vectorised
def cleft(keys: Kernel, labels: Kernel) -> Kernel:
    """Half the distance between the membranes of two objects."""
    bits = mix(keys[SYNAPSE] + mix(min(labels[0], labels[1])) + max(labels[0], labels[1]))
    return F(1.0) + F(7.0) * share(bits, 1)


@vectorised
def grain(keys: Kernel, z: Kernel, y_nm: Kernel, x_nm: Kernel) -> Kernel:
    """Texture of cytoplasm within a section."""
    fine = noise2(keys[GRAIN_FINE] + U64(z), y_nm * (1.0 / 19.0), x_nm * (1.0 / 19.0))
    coarse = noise2(keys[GRAIN_COARSE] + U64(z), y_nm * (1.0 / 50.0), x_nm * (1.0 / 50.0))
    return F(15.0) * F(fine) + F(20.0) * F(coarse)


@vectorised
def cytoplasm(keys: Kernel, label: Kernel) -> Kernel:
    """Brightness of an object's inside."""
    bits = mix(keys[OBJECT] + label)
    dark = F(24.0) if share(bits, 1) < F(0.12) else F(0.0)
    return F(150.0) + F(28.0) * share(bits, 0) - dark


@vectorised
def vesicles(keys: Kernel, where: Kernel) -> Kernel:
    """Darkness of small rings on a loose lattice; `where` in warped nm."""
    scale = 1.0 / VESICLE_NM
    w, v, u = where[0] * scale, where[1] * scale, where[2] * scale
    k, j, i = math.floor(w), math.floor(v), math.floor(u)
    bits = hash3(keys[VESICLE], np.int64(k), np.int64(j), np.int64(i))
    if share(bits, 3) < F(0.3):
        return F(0.0)
    dz = F(w - k) - F(0.37) - F(0.26) * share(bits, 0)
    dy = F(v - j) - F(0.37) - F(0.26) * share(bits, 1)
    dx = F(u - i) - F(0.37) - F(0.26) * share(bits, 2)
    off = abs(math.sqrt(dz * dz * F(0.6) + dy * dy + dx * dx) - F(0.27)) * F(6.0)
    return F(12.0) + F(48.0) * (F(1.0) - off) if off < F(1.0) else F(6.0)


@vectorised
def tube(bits: Kernel, away: Kernel, t: Kernel) -> Kernel:
    """Darkness of a thin tube that runs beside an axis; `away` from the axis in nm."""
    if share(bits, 3) < F(0.35):
        return F(0.0)
    wobble = abs(t * F(3.0) % F(2.0) - F(1.0)) * F(40.0)
    dz = away[0] - (share(bits, 0) - F(0.5)) * F(130.0) - wobble
    dy = away[1] - (share(bits, 1) - F(0.5)) * F(130.0) + wobble
    dx = away[2] - (share(bits, 2) - F(0.5)) * F(130.0)
    wide = F(13.0) + F(14.0) * share(bits, 3)
    gap = (dz * dz + dy * dy + dx * dx) / (wide * wide)
    return F(125.0) * (F(1.0) - gap) if gap < F(1.0) else F(0.0)


@vectorised
def mitochondrion(bits: Kernel, away: Kernel, t: Kernel, radius: Kernel) -> Kernel:
    """Darkness of a mitochondrion on a piece of an axis; negative: a bright seam around it."""
    if share(bits, 3) > F(0.16):
        return F(0.0)
    thick = radius > F(180.0)
    size = (F(105.0) if thick else min(F(0.7) * radius + F(35.0), F(115.0))) + F(40.0) * share(bits, 2)
    loose = F(300.0) if thick else F(40.0)
    dz = away[0] - (share(bits, 0) - F(0.5)) * loose
    dy = away[1] - (share(bits, 1) - F(0.5)) * loose
    dx = away[2] - (share(bits, 2) - F(0.5)) * loose
    long = (t - F(0.5)) * (F(3.2) if thick else F(2.1))
    s = math.sqrt((dz * dz + dy * dy + dx * dx) / (size * size) + long * long)
    if s >= F(1.1):
        return F(0.0)
    if s >= F(1.0):
        return F(-10.0)
    if s >= F(0.86):
        return F(92.0)
    if s >= F(0.78):
        return F(42.0)
    lean = share(bits, 0) - F(0.5)
    bow = (dy * dy + dx * dx) * F(0.0012)
    phase = (dy * (F(0.6) + lean) + dx * (F(0.6) - lean) + dz * F(0.3) + bow * dy * F(0.2)) * F(1.0 / 30.0) + long
    ripple = abs((phase - math.floor(phase)) * F(2.0) - F(1.0))
    return F(46.0) + F(34.0) * ripple


@vectorised
def density(keys: Kernel, labels: Kernel, depth_nm: Kernel, place_nm: Kernel) -> Kernel:
    """Darkness of a synaptic density on a contact of two objects."""
    if depth_nm > F(48.0):
        return F(0.0)
    pair = mix(keys[SYNAPSE] + mix(min(labels[0], labels[1])) + max(labels[0], labels[1]))
    if share(pair, 0) > F(0.3):
        return F(0.0)
    scale = 1.0 / 280.0
    strength, _, _ = noise3(pair, place_nm[0] * scale, place_nm[1] * scale, place_nm[2] * scale)
    if strength < 0.64:
        return F(0.0)
    reach = F(46.0) if labels[0] < labels[1] else F(22.0)
    return F(70.0) * max(F(0.0), F(1.0) - depth_nm / reach) * F(min(1.0, (strength - 0.64) * 9.0))
