"""Which sections are changed, and whether whole or in quadrants about a random point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Labels = NDArray[Any]
Index = tuple[int, int, int]
Part = tuple[slice, slice]


def some(sections: int, share: float, rng: np.random.Generator) -> list[int]:
    """One to K different sections, where K is a share of all, but at least one."""
    most = min(sections, max(1, int(share * sections)))
    return [int(z) for z in rng.choice(sections, int(rng.integers(1, most + 1)), replace=False)]


def quadrants(shape: tuple[int, int], rng: np.random.Generator) -> list[Part]:
    """The four parts of a section about a random point."""
    y, x = (int(rng.integers(1, max(2, length))) for length in shape)
    return [(rows, columns) for rows in (slice(0, y), slice(y, None)) for columns in (slice(0, x), slice(x, None))]


def whole_or_quadrants(shape: tuple[int, int], rng: np.random.Generator) -> list[Part]:
    """The whole section in one case of two, otherwise one to four of its quadrants."""
    if rng.random() < 0.5:
        return [(slice(None), slice(None))]
    chosen = int(rng.integers(1, 16))
    return [part for number, part in enumerate(quadrants(shape, rng)) if chosen >> number & 1]
