"""The capsules that can matter in a cell of a generated volume, with bounds of their ratio in it.

1. A cell is a ball. A capsule's ratio of distance to radius in it has a lower and an upper bound.
2. Nodes within reach of the cell's centre are looked at, and loops whose middle is: by position alone.
3. The bound that matters is the second least upper bound of two different labels: what stays above it everywhere in the
   cell decides no voxel.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.ops.compiled import vectorised
from pipeline.ops.forest import SPACING_NM, drop
from pipeline.ops.neurites import LOOP_REACH_NM, REACH
from pipeline.ops.position_hash import U64, Kernel


@vectorised
def consider(skeleton: Kernel, at: Kernel, ball: Kernel, found: Kernel, best: Kernel) -> Kernel:
    """Note a capsule and its bounds; returns how many there are, and the least upper bounds with the first's owner."""
    count, first, second, leader = best
    centre, far = ball
    if count == found.shape[1]:
        return best
    c = skeleton.capsule[at]
    _, gap, _ = drop(centre, (c[0], c[1], c[2]), (c[4], c[5], c[6]))
    upper = (gap + far) / min(c[3], c[7])
    found[0, count], found[2, count] = at, upper
    found[1, count] = max(gap - far, 0.0) / max(c[3], c[7])
    label = skeleton.label[at]
    if label == leader:
        first = min(first, upper)
    elif upper < first:
        first, second, leader = upper, first, label
    else:
        second = min(second, upper)
    return count + 1, first, second, leader


@vectorised
def survey_loops(skeleton: Kernel, ball: Kernel, found: Kernel, best: Kernel) -> Kernel:
    """The same for the capsules of the loops around a cell."""
    centre, _ = ball
    for loop in range(skeleton.loop_middle.shape[0]):
        middle = skeleton.loop_middle[loop]
        dz, dy, dx = middle[0] - centre[0], middle[1] - centre[1], middle[2] - centre[2]
        if dz * dz + dy * dy + dx * dx < LOOP_REACH_NM * LOOP_REACH_NM:
            for at in range(skeleton.loop_first[loop], skeleton.loop_first[loop + 1]):
                best = consider(skeleton, at, ball, found, best)
    return best


@vectorised
def survey(skeleton: Kernel, centre: Kernel, far: Kernel, found: Kernel) -> Kernel:
    """Collect capsules around a cell with bounds of their ratio in it; returns their number and a bound that matters.

    `found` is (3, n): capsule, lower bound, upper bound.
    """
    best = (np.int64(0), np.inf, np.inf, U64(0))
    for level in range(2):
        of_node = skeleton.of_node[0] if level == 0 else skeleton.of_node[1]
        low = np.empty(3, np.int64)
        for axis in range(3):
            low[axis] = np.int64(math.floor(centre[axis] / SPACING_NM[level])) - skeleton.begin[level, axis]
        for k in range(low[0] - REACH[0], low[0] + REACH[1] + 1):
            for j in range(low[1] - REACH[0], low[1] + REACH[1] + 1):
                for i in range(low[2] - REACH[0], low[2] + REACH[1] + 1):
                    at = of_node[k, j, i]
                    if at >= 0:
                        best = consider(skeleton, at, (centre, far), found, best)
    best = survey_loops(skeleton, (centre, far), found, best)
    return best[0], best[2]
