"""How well affinity codes tell the edges inside objects from all others, against labels.

1. An edge of channel c counts if both its voxels lie in the crop. It is true if they carry the same label and it is
   not 0.
2. AUC: the chance that a random true edge has a larger code than a random false one, ties counting one half. Exact,
   from the 256-bin histograms of the two classes.
3. Loss: binary cross-entropy of the decoded codes, both classes weighing the same, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Index

CODES = 256
NEAREST_TO_CERTAIN = 0.5 / 65535  # a code that decodes to 0 is no proof of 0


def score(
    codes_CZYX: NDArray[np.uint8], labels_ZYX: NDArray[Any], offsets: Sequence[Index], code_table: Sequence[int]
) -> dict[str, float]:
    """`auc` and `loss`, the mean over the channels, and `auc_z`, `auc_y`, `auc_x`."""
    probability = np.clip(np.asarray(code_table) / 65535, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
    aucs, losses = [], []
    for codes, offset in zip(codes_CZYX, offsets, strict=True):
        true, false = _histograms(codes, labels_ZYX, offset)
        aucs.append(_auc(true, false))
        ones, zeros = max(1, int(true.sum())), max(1, int(false.sum()))
        share = ones * zeros / (ones + zeros) ** 2  # what rebalancing leaves of either class
        losses.append(share * float(-(true @ np.log(probability) / ones + false @ np.log(1 - probability) / zeros)))
    z, y, x = aucs
    return {"auc": (z + y + x) / 3, "loss": sum(losses) / 3, "auc_z": z, "auc_y": y, "auc_x": x}


def _histograms(codes_ZYX: NDArray[np.uint8], labels_ZYX: NDArray[Any], offset: Index) -> tuple[NDArray[np.int64], ...]:
    here = tuple(slice(max(0, -o), min(n, n - o)) for o, n in zip(offset, labels_ZYX.shape, strict=True))
    there = tuple(slice(max(0, o), min(n, n + o)) for o, n in zip(offset, labels_ZYX.shape, strict=True))
    mine, partner = labels_ZYX[here], labels_ZYX[there]
    joined = (mine == partner) & (mine > 0)
    codes = codes_ZYX[here]
    return np.bincount(codes[joined], minlength=CODES), np.bincount(codes[~joined], minlength=CODES)


def _auc(true: NDArray[np.int64], false: NDArray[np.int64]) -> float:
    below = np.cumsum(false) - false
    pairs = int(true.sum()) * int(false.sum())
    return float((2 * below + false) @ true) / (2 * pairs) if pairs else 0.5
