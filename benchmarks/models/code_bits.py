"""What uint8 codes cost: VI of the segmentation from codes less VI of that from float32 affinities. Aim: at most 0.005.

The same network and the same blend, once through the engine (levels, integer sums, codes), once in float32 without any
rounding (benchmarks/models/plain.py). The same recipe with the same parameters follows. At one threshold a single merge
can decide; so for recipes with a threshold the differences over all of them are told as well, at each threshold both.
VI is that against the truth; the last column compares the two segmentations with each other.
"""

from __future__ import annotations

import numpy as np

from benchmarks.models import applied, held_out
from benchmarks.models.applied import Weights
from benchmarks.models.held_out import CALLED, Volume
from pipeline.config import RunConfig
from pipeline.geometry import Index
from pipeline.training.apply import Held, labels, scored, scores
from pipeline.training.tune import THRESHOLDS

AIM = 0.005
HEAD = (
    "| weights | recipe | volume | VOI, codes | VOI, float32 | difference | over thresholds: mean, largest "
    "| VOI between the two | largest affinity error | |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    options = applied.options_of(__doc__)
    volumes = held_out.volumes_of(options)
    print(HEAD)
    for case in applied.cases(applied.weights_of(options), volumes, options):
        print(row(*case), flush=True)


def row(weights: Weights, way: tuple[str, RunConfig], volume: Volume, factor: Index) -> str:
    """One line of the table."""
    name, config = way
    image_ZYX, truth_ZYX = volume.coarse_image(factor), volume.coarse_truth(factor)
    codes, floats = weights.codes(image_ZYX).said, weights.floats(image_ZYX).said
    one, other = labels(codes, config), labels(floats, config)
    found, exact = scored(truth_ZYX, one).voi or 0.0, scored(truth_ZYX, other).voi or 0.0
    between = scored(other, one).voi
    pairs = zip(codes.values_CZYX, floats.values_CZYX, strict=True)
    error = max(float(np.abs(codes.shares(code) - value).max()) for code, value in pairs)
    over = ""
    if config.agglomerate.score != "none":
        both = [scores(Held(volume.name, said, truth_ZYX), config, THRESHOLDS) for said in (codes, floats)]
        every = [(a.voi or 0.0) - (b.voi or 0.0) for a, b in zip(*both, strict=True)]
        over = f"{np.mean(every):+.4f}, {max(every, key=abs):+.4f}"
    verdict = "PASS" if found - exact <= AIM else "short"
    told = [weights.called, name, CALLED[volume.name], f"{found:.4f}", f"{exact:.4f}", f"{found - exact:+.4f}", over]
    return f"| {' | '.join([*told, f'{between:.4f}', f'{error:.4f}', verdict])} |"


if __name__ == "__main__":
    main()
