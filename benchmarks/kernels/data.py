"""Volumes to measure on: labels, generated or from a real crop, and affinities made from them with noise.

1. Voxels without a label (membrane) count as those of the nearest object; only `truth` keeps them as 0. The logit of
   an affinity is 4 inside an object and -4 between two, slightly blurred, plus noise common to all channels of a voxel
   (smooth) and noise of its own (white).
2. Affinities are multiples of 2**-23, so float32 holds them and 1 - a exactly. For the nearest channels the last three
   bits are a colouring: the six edges of a voxel differ, so that no steepest edge is tied.
3. Basins are those of the watershed of the nearest channels, numbered 1, 2, ... by first voxel. Fragments are basins
   linked to at least SIZE_VX voxels. Segments are basins merged down to a mean affinity of 0.5.

Everything lies in one folder per volume as .npy files, because every measurement is a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.segmentation import expand_labels

from benchmarks.kernels import pipeline_calls
from pipeline.geometry import Box, Index
from pipeline.ops.relabel import look_up
from pipeline.ops.synthesize import generate

NEAREST: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FURTHER: tuple[Index, ...] = (
    (-2, 0, 0), (0, -3, 0), (0, 0, -3), (-1, -3, 0), (-1, 0, -3), (0, -3, -3), (0, -5, 0), (0, 0, -5), (-2, -5, -5),
)  # fmt: skip
OFFSETS = NEAREST + FURTHER
LOW, HIGH = 0.1, 0.995  # thresholds of the watershed
SIZE_VX = 200
STEPS = 1 << 23
ANISOTROPY = (30.0, 6.0, 6.0)  # of a voxel, in nm
REACH_NM = 3000.0

Affinities = NDArray[np.float32]


class Volume:
    """A folder of arrays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> NDArray[np.generic]:
        """One array, in memory."""
        array: NDArray[np.generic] = np.load(self.folder / f"{name}.npy")
        return array

    def shape(self) -> Index:
        """The extent in voxels."""
        z, y, x = np.load(self.folder / "truth.npy", mmap_mode="r").shape
        return z, y, x

    def voxels(self) -> int:
        """The number of voxels."""
        return int(np.prod(self.shape()))


def generated(folder: Path, shape: Index, channels: int) -> Volume:
    """Neurites of 30 x 6 x 6 nm voxels."""
    _, truth_ZYX = generate(Box.of_shape(shape), seed=7, shape=shape, voxel_size_nm=ANISOTROPY)
    return _store(folder, truth_ZYX, channels)


def real(folder: Path, path: Path, shape: Index, channels: int) -> Volume:
    """The first corner of AC4."""
    with h5py.File(path) as file:
        truth_ZYX = file["volumes/labels/neuron_ids"][tuple(slice(0, extent) for extent in shape)]
    return _store(folder, truth_ZYX.astype(np.uint64), channels)


def _store(folder: Path, truth_ZYX: NDArray[np.uint64], channels: int) -> Volume:
    folder.mkdir(parents=True)
    dense = np.unique(truth_ZYX, return_inverse=True)[1].reshape(truth_ZYX.shape)
    dense = dense + (truth_ZYX.min() > 0)  # 0 stays 0
    np.save(folder / "truth.npy", dense.astype(np.uint64))
    affinities_CZYX = affinities_of(expand_labels(dense.astype(np.int32), REACH_NM, ANISOTROPY), channels)
    nearest_CZYX = np.ascontiguousarray(affinities_CZYX[:3])
    np.save(folder / "affinities.npy", affinities_CZYX)
    np.save(folder / "nearest.npy", nearest_CZYX)
    del affinities_CZYX
    np.save(folder / "fragments.npy", numbered(pipeline_calls.watershed(nearest_CZYX, LOW, HIGH, SIZE_VX)))
    basins_ZYX = numbered(pipeline_calls.watershed(nearest_CZYX, LOW, HIGH))
    np.save(folder / "basins.npy", basins_ZYX)
    edges = pipeline_calls.region_graph(basins_ZYX, nearest_CZYX)
    part = pipeline_calls.part_of(np.arange(1, int(basins_ZYX.max()) + 1, dtype=np.uint64), edges)
    np.savez(folder / "graph.npz", name=part.name, **edges.columns())
    segment = pipeline_calls.clusters(part, 0.5 * 65535)
    np.save(folder / "segments.npy", numbered(look_up(basins_ZYX, np.append(np.uint64(0), segment))))
    return Volume(folder)


def numbered(labels_ZYX: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Labels as 1, 2, ... in ascending order; 0 stays."""
    names, number = np.unique(labels_ZYX, return_inverse=True)
    return (number.reshape(labels_ZYX.shape) + (names[0] != 0)).astype(np.uint64)


def affinities_of(labels_ZYX: NDArray[np.int32], channels: int = len(OFFSETS)) -> Affinities:
    """Affinities of the first offsets; an edge that leaves the volume has 0."""
    random = np.random.default_rng(1)
    shared_ZYX = gaussian_filter(random.standard_normal(labels_ZYX.shape, np.float32), (0.7, 2.5, 2.5))
    shared_ZYX *= np.float32(0.9) / shared_ZYX.std()
    found_CZYX = np.zeros((channels, *labels_ZYX.shape), np.float32)
    for channel, offset in enumerate(OFFSETS[:channels]):
        here, there = _ends(offset, labels_ZYX.shape)
        together = np.zeros(labels_ZYX.shape, np.bool_)
        together[here] = labels_ZYX[here] == labels_ZYX[there]
        logit = gaussian_filter(np.where(together, np.float32(4), np.float32(-4)), (0.3, 0.7, 0.7)) + shared_ZYX
        logit += np.float32(0.7) * random.standard_normal(labels_ZYX.shape, np.float32)
        found_CZYX[channel][here] = _coloured(1 / (1 + np.exp(-logit)), channel)[here]
    return found_CZYX


def _ends(offset: Index, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    here = tuple(slice(max(0, -o), min(n, n - o)) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(max(0, o), min(n, n + o)) for o, n in zip(offset, shape, strict=True))
    return here, there


def _coloured(affinity_ZYX: Affinities, channel: int) -> Affinities:
    """Multiples of 2**-23; two edges of a voxel along the nearest channels never have the same last three bits."""
    steps = (affinity_ZYX * (STEPS // 8 - 1)).astype(np.int32) * 8
    if channel < 3:
        place = np.arange(affinity_ZYX.shape[channel], dtype=np.int32) % 2
        steps += 1 + 2 * channel + place.reshape([-1 if axis == channel else 1 for axis in range(3)])
    found: Affinities = (steps / np.float32(STEPS)).astype(np.float32)
    return found
