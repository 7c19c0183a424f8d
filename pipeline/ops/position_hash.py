"""Random numbers that depend on a key and a position alone: the same on every machine and for every block.

Only integer arithmetic and + - * /: no library function whose last bit differs between machines.

Kernels here and those built on them divide as hardware does (x / 0 is inf, no exception), so that loops vectorise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.ops.compiled import vectorised

Kernel = Any  # numba's scalars are plain Python numbers to a type checker
U64 = np.uint64


_GOLDEN = U64(0x9E3779B97F4A7C15)
_MIX_1 = U64(0xBF58476D1CE4E5B9)
_MIX_2 = U64(0x94D049BB133111EB)
_PRIME_Z = U64(0xD6E8FEB86659FD93)
_PRIME_Y = U64(0xA0761D6478BD642F)
_PRIME_X = U64(0xE7037ED1A0B428DB)
_S30, _S27, _S31 = U64(30), U64(27), U64(31)
_LOW16 = U64(0xFFFF)
_S16 = U64(16)
_S32 = U64(32)
_S48 = U64(48)


@vectorised
def mix(value: Kernel) -> Kernel:
    """A 64-bit bijection that spreads every input bit."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@vectorised
def subkey(key: Kernel, salt: Kernel) -> Kernel:
    """A key of its own for every purpose."""
    return mix(U64(key) * _GOLDEN + mix(U64(salt) + _GOLDEN))


@vectorised
def hash3(key: Kernel, z: Kernel, y: Kernel, x: Kernel) -> Kernel:
    """64 random bits for a lattice point."""
    return mix(key + U64(z) * _PRIME_Z + U64(y) * _PRIME_Y + U64(x) * _PRIME_X)


@vectorised
def share(bits: Kernel, which: Kernel) -> Kernel:
    """One of four independent numbers in [0, 1) from 64 random bits."""
    return np.float32((bits >> (_S16 * U64(which))) & _LOW16) * np.float32(1.0 / 65536.0)


@vectorised
def bell(bits: Kernel) -> Kernel:
    """A bell-shaped number of mean 0 and deviation 1 from 64 random bits: the sum of four uniform ones."""
    total = (bits & _LOW16) + ((bits >> _S16) & _LOW16) + ((bits >> _S32) & _LOW16) + (bits >> _S48)
    return (np.float32(np.int64(total)) - np.float32(131070.0)) * np.float32(1.0 / 37837.0)


@vectorised
def noise2(key: Kernel, v: Kernel, u: Kernel) -> Kernel:
    """Smooth noise in [-1, 1) over the plane; one cell of the lattice is one unit."""
    j, i = np.int64(math.floor(v)), np.int64(math.floor(u))
    b, a = v - j, u - i
    b, a = b * b * (3.0 - 2.0 * b), a * a * (3.0 - 2.0 * a)
    low = share(hash3(key, 0, j, i), 0) * (1.0 - a) + share(hash3(key, 0, j, i + 1), 0) * a
    high = share(hash3(key, 0, j + 1, i), 0) * (1.0 - a) + share(hash3(key, 0, j + 1, i + 1), 0) * a
    return 2.0 * (low * (1.0 - b) + high * b) - 1.0


@vectorised
def noise3(key: Kernel, w: Kernel, v: Kernel, u: Kernel) -> Kernel:
    """Three smooth noises in [0, 1) over space; one cell of the lattice is one unit."""
    k, j, i = np.int64(math.floor(w)), np.int64(math.floor(v)), np.int64(math.floor(u))
    c, b, a = w - k, v - j, u - i
    c, b, a = c * c * (3.0 - 2.0 * c), b * b * (3.0 - 2.0 * b), a * a * (3.0 - 2.0 * a)
    first, second, third = 0.0, 0.0, 0.0
    for dk in range(2):
        for dj in range(2):
            for di in range(2):
                bits = hash3(key, k + dk, j + dj, i + di)
                weight = (c if dk else 1.0 - c) * (b if dj else 1.0 - b) * (a if di else 1.0 - a)
                first += weight * share(bits, 0)
                second += weight * share(bits, 1)
                third += weight * share(bits, 2)
    return first, second, third
