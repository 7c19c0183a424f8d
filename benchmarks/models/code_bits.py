"""What uint8 codes cost: VI of the segmentation from codes less VI of that from float32 affinities. Aim: at most 0.005.

The same network and the same blend, once through the engine (levels, integer sums, codes), once in float32 without any
rounding (benchmarks/models/plain.py). The same recipe with the same parameters follows. At one threshold a single merge
can decide; so for recipes with a threshold the differences over all of them are told as well, at each threshold both.
VI is that against the truth; the last column compares the two segmentations with each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import applied, held_out
from benchmarks.models.applied import Said, Weights
from benchmarks.models.held_out import CALLED, Volume
from benchmarks.models.recipes import Choice, Recipe, every_score, measure, segment
from benchmarks.models.scores import TUNED, fitting_volumes, tuned
from pipeline.geometry import Index
from pipeline.ops.scores import Score

AIM = 0.005
HEAD = (
    "| weights | recipe | volume | VOI, codes | VOI, float32 | difference | over thresholds: mean, largest "
    "| VOI between the two | largest affinity error | |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    applied.add_arguments(parser)
    held_out.add_arguments(parser)
    parser.add_argument("--recipes", nargs="+", help="by name; default: that of the kind of weights, see scores.USUAL")
    options = parser.parse_args()
    volumes = held_out.volumes_of(options)
    print(HEAD)
    for weights in applied.weights_of(options):
        for asked in options.recipes or [None]:
            recipe, choice = tuned(options.cache / TUNED, weights, asked)
            for volume, factor in fitting_volumes(weights, volumes):
                print(row(weights, recipe, choice, volume, factor), flush=True)


def row(weights: Weights, recipe: str, choice: Choice, volume: Volume, factor: Index) -> str:
    """One line of the table."""
    image_ZYX, truth_ZYX = volume.coarse_image(factor), volume.coarse_truth(factor)
    size_nm = weights.spec.voxel_size_nm
    codes, floats = weights.codes(image_ZYX), weights.floats(image_ZYX)
    one, other = segment(codes, choice, size_nm), segment(floats, choice, size_nm)
    found, exact = measure(truth_ZYX, one).voi or 0.0, measure(truth_ZYX, other).voi or 0.0
    between = measure(other, one).voi
    error = max(
        float(np.abs(codes.shares(c) - f).max()) for c, f in zip(codes.values_CZYX, floats.values_CZYX, strict=True)
    )
    over = ""
    if choice.threshold is not None:
        every = list(differences(codes, floats, truth_ZYX, choice, size_nm))
        over = f"{np.mean(every):+.4f}, {max(every, key=abs):+.4f}"
    verdict = "PASS" if found - exact <= AIM else "short"
    told = [weights.called, recipe, CALLED[volume.name], f"{found:.4f}", f"{exact:.4f}", f"{found - exact:+.4f}", over]
    return f"| {' | '.join([*told, f'{between:.4f}', f'{error:.4f}', verdict])} |"


def differences(
    codes: Said, floats: Said, truth_ZYX: NDArray[np.uint64], choice: Choice, size_nm: tuple[float, ...]
) -> Iterator[float]:
    """At every threshold."""
    score = Score(choice.score or "mean", choice.quantile or 50)
    wanted = [Recipe("this", (choice.fragments,), (score,))]
    z, y, x = size_nm
    ways = [[point.voi or 0.0 for *_, point in every_score(s, truth_ZYX, wanted, (z, y, x))] for s in (codes, floats)]
    return (one - other for one, other in zip(*ways, strict=True))


if __name__ == "__main__":
    main()
