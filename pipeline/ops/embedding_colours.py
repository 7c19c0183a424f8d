"""Embedding vectors as colours: the first three principal components of each patch's part as red, green and blue.

1. Vectors of different patches cannot be compared, so every part is coloured by itself, from its foreground voxels.
   A colour means something beside other colours of its part only: across a seam between parts it may jump.
2. Components are the eigenvectors of the covariance of a part's vectors, of the three largest eigenvalues, the largest
   first. An eigenvector's sign is chosen: its entry of largest magnitude (the first of several) is positive.
3. Every component is scaled by itself: its 2nd percentile becomes DARKEST, its 98th 255, and what lies beyond is cut
   off. A component without spread is half-way everywhere; so are those that are missing.
4. Voxels that are no foreground are black, and no others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 3
PERCENTILES = (2.0, 98.0)
DARKEST = 40
FLAT = 1e-12  # eigenvalues below this share of the largest are rounding errors


def embedding_colours(
    vectors_CYX: NDArray[np.floating[Any]], foreground_YX: NDArray[np.bool_], parts_YX: NDArray[np.integer[Any]]
) -> NDArray[np.uint8]:
    """Red, green and blue (3YX) of a section; `parts_YX` numbers the part that every voxel belongs to."""
    colours_CN = np.zeros((COMPONENTS, foreground_YX.size), np.uint8)
    vectors_CN, parts_N = vectors_CYX.reshape(len(vectors_CYX), -1), parts_YX.reshape(-1)
    shown = np.flatnonzero(foreground_YX)
    shown = shown[np.argsort(parts_N[shown], kind="stable")]
    for own in np.split(shown, np.flatnonzero(np.diff(parts_N[shown])) + 1):
        if own.size:
            colours_CN[:, own] = scaled(principal_components(vectors_CN[:, own].T)).T
    return colours_CN.reshape(COMPONENTS, *foreground_YX.shape)


def principal_components(vectors_ND: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The first three principal components of every vector (NC); 0 where there are fewer, or no spread along them."""
    centred_ND = vectors_ND.astype(np.float64)
    centred_ND -= centred_ND.mean(axis=0)
    values, axes_DK = np.linalg.eigh(centred_ND.T @ centred_ND)
    first = np.argsort(-values, kind="stable")[:COMPONENTS]
    first = first[values[first] > FLAT * max(values.max(), 0.0)]
    chosen_DK = axes_DK[:, first]
    largest = np.abs(chosen_DK).argmax(axis=0)
    chosen_DK = chosen_DK * np.sign(chosen_DK[largest, np.arange(first.size)])
    components_NC = np.zeros((len(centred_ND), COMPONENTS))
    components_NC[:, : first.size] = centred_ND @ chosen_DK
    return components_NC


def scaled(components_NC: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Every component from its low percentile to its high one, as DARKEST to 255."""
    low, high = np.percentile(components_NC, PERCENTILES, axis=0)
    spread = high > low
    shares = np.where(spread, (components_NC - low) / np.where(spread, high - low, 1.0), 0.5)
    values: NDArray[np.float64] = np.rint(DARKEST + (255 - DARKEST) * np.clip(shares, 0.0, 1.0))
    return values.astype(np.uint8)
