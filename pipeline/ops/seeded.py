"""The classical route to fragments: a seeded watershed on the boundary map, with seeds from the distance transform.

1. Boundary: 1 minus the mean affinity of the edges stored at a voxel: the two in the section (flat), or all three.
2. Distance of every voxel with boundary < threshold to the nearest one without; flat: in each section by itself,
   otherwise in nm.
3. Seeds are the regional maxima of the distance (plateaus count once).
4. The boundary map is flooded from the seeds. Voxels whose boundary is 1 (no affinity at all) stay background.

The flooding is scikit-image's; its answer depends on the extent that it sees (ops/tiles.py says what follows).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.measure import label
from skimage.morphology import local_maxima
from skimage.segmentation import watershed


def seeded_watershed(
    affinities_CZYX: NDArray[np.float32], *, threshold: float, flat: bool, voxel_size_nm: tuple[float, float, float]
) -> NDArray[np.int32]:
    """Labels of a volume, numbered from 1; 0 is background."""
    used = affinities_CZYX[1:3] if flat else affinities_CZYX[:3]
    boundary_ZYX = 1 - used.mean(axis=0, dtype=np.float32)
    if not flat:
        return _flooded(boundary_ZYX, threshold, voxel_size_nm)
    labels_ZYX = np.zeros(boundary_ZYX.shape, np.int32)
    for z, boundary_YX in enumerate(boundary_ZYX):
        found_YX = _flooded(boundary_YX, threshold, voxel_size_nm[1:])
        labels_ZYX[z] = np.where(found_YX, found_YX + labels_ZYX[:z].max(initial=0), 0)
    return labels_ZYX


def _flooded(boundary: NDArray[np.float32], threshold: float, size_nm: tuple[float, ...]) -> NDArray[np.int32]:
    """Steps 2 to 4 for a volume or for a section."""
    inside = boundary < threshold
    distance = distance_transform_edt(inside, sampling=size_nm)
    seeds = label(local_maxima(distance, connectivity=boundary.ndim) & inside, connectivity=boundary.ndim)
    return np.asarray(watershed(boundary, seeds, mask=boundary < 1), np.int32)
