"""Relabelling basins: by a plain table (labels 0 to n), and by a sorted table of large ids.

Plain, into a new array: `look_up(labels, table)` beside numpy's `table[labels]`. Plain, over the labels themselves (as
a block is renamed): beside the same `table[labels]`, which cannot do that, and beside `np.take(..., out=)`, which can.
Sparse: `rename` beside `fastremap.remap` with the same names as a dictionary; both make a new array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import agreement
from benchmarks.kernels.data import Volume
from benchmarks.kernels.measure import Arrays, Contender
from pipeline.ops.relabel import look_up, rename

UNIT = "voxel"
SPREAD = np.uint64(1000003)  # makes large ids of small ones, in the same order


def plain(volume: Volume, kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The labels, and a table that is its own inverse: renaming in place can be repeated."""
    labels_ZYX = volume.read("basins").astype(kind)
    return labels_ZYX, np.arange(int(labels_ZYX.max()) + 1).astype(kind)[::-1].copy()


def sparse(volume: Volume) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    labels_ZYX = volume.read("basins").astype(np.uint64) * SPREAD
    old = np.unique(labels_ZYX[labels_ZYX != 0])
    return labels_ZYX, old, old[::-1].copy()


def ours(volume: Volume, *, kind: str, inside: bool) -> Callable[[], Any]:
    labels_ZYX, table = plain(volume, kind)
    look_up(labels_ZYX[:1], table)
    return lambda: look_up(labels_ZYX, table, out=labels_ZYX if inside else None)


def indexing(volume: Volume, *, kind: str) -> Callable[[], Any]:
    labels_ZYX, table = plain(volume, kind)
    return lambda: table[labels_ZYX]


def take(volume: Volume, *, kind: str) -> Callable[[], Any]:
    labels_ZYX, table = plain(volume, kind)
    return lambda: np.take(table, labels_ZYX, out=labels_ZYX, mode="clip")


def our_sparse(volume: Volume) -> Callable[[], Any]:
    labels_ZYX, old, new = sparse(volume)
    rename(labels_ZYX[:1], old[:2], new[:2])
    return lambda: rename(labels_ZYX, old, new)


def fastremap(volume: Volume) -> Callable[[], Any]:
    from fastremap import remap

    labels_ZYX, old, new = sparse(volume)
    table = dict(zip(old.tolist(), new.tolist(), strict=True)) | {0: 0}
    return lambda: remap(labels_ZYX, table)


def labels(result: NDArray[np.generic]) -> Arrays:
    return {"labels": result}


def agree(mine: Arrays, theirs: Arrays) -> str:
    return agreement.numbers(mine["labels"], theirs["labels"], 0)


def _plain(kind: str) -> tuple[Contender, ...]:
    new, inside = f"neurotile look_up, {kind}", f"neurotile look_up in place, {kind}"
    return (
        Contender(new, partial(ours, kind=kind, inside=False), labels, repeats=5),
        Contender(f"numpy table[labels], {kind}", partial(indexing, kind=kind), labels, new, target=4, repeats=5),
        Contender(inside, partial(ours, kind=kind, inside=True), labels, repeats=5),
        Contender(f"numpy table[labels] again, {kind}", partial(indexing, kind=kind), labels, inside, 4, repeats=5),
        Contender(f"numpy take in place, {kind}", partial(take, kind=kind), labels, inside, repeats=5),
    )


CONTENDERS = (
    *_plain("uint32"),
    *_plain("uint64"),
    Contender("neurotile rename, sparse", our_sparse, labels),
    Contender("fastremap.remap, sparse", fastremap, labels, beside="neurotile rename, sparse"),
)
