"""What a fault of a section does: VOI after it, relative to the volume as it is.

The fault is made in the stored image, at the middle section (z = depth // 2); labels stay where the tissue is:

missing     the section is black
shift       all sections from it on are displaced by 10 stored pixels along x, image and labels; the pixels that
            move in are mirrored, and their labels are 0: left out
contrast    the section, or all from it on, has 30 % more contrast: its mean + 1.3 (value - mean), cut off at 0 and 255

Recipes are those of the weights, tuned on clean volumes; by default the best one. Where one section is at fault, its
own voxels count as all others do; the column beside leaves them out, for what the fault does to the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import applied, held_out
from benchmarks.models.applied import Weights
from benchmarks.models.held_out import CALLED, Volume, fitting
from benchmarks.models.scores import measures
from pipeline.config import RunConfig
from pipeline.geometry import Index
from pipeline.training.apply import labels, scored

SHIFT_PX = 10
CONTRAST = 1.3
HEAD = (
    "| weights | recipe | volume | fault | VOI split | VOI merge | VOI | ARAND | VOI less clean | ratio "
    "| less clean, without the section |\n|---|---|---|---|---|---|---|---|---|---|---|"
)
Image = NDArray[np.uint8]


def main() -> None:
    options = applied.options_of(__doc__)
    volumes = held_out.volumes_of(options)
    print(HEAD)
    for weights in applied.weights_of(options):
        for way in applied.ways(weights, options)[: None if options.recipes else 1]:
            for volume, factor in fitting(weights.spec, volumes):
                report(weights, way, volume, factor)


def report(weights: Weights, way: tuple[str, RunConfig], volume: Volume, factor: Index) -> None:
    """Print the lines of a volume."""
    middle = volume.image_ZYX.shape[0] // 2
    clean: tuple[float, float] | None = None
    for name, make in FAULTS.items():
        changed = make(volume, middle)
        truth_ZYX = changed.coarse_truth(factor)
        labels_ZYX = labels(weights.codes(changed.coarse_image(factor)).said, way[1])
        found = scored(truth_ZYX, labels_ZYX)
        truth_ZYX[middle // factor[0]] = 0
        now = (found.voi or 0.0, scored(truth_ZYX, labels_ZYX).voi or 0.0)
        clean = clean or now
        told = [weights.called, way[0], CALLED[volume.name], name, *measures(found)]
        if name == "none":
            told += [""] * 3
        else:
            elsewhere = f"{now[1] - clean[1]:+.3f}" if name in ONE_SECTION else ""
            told += [f"{now[0] - clean[0]:+.3f}", f"{now[0] / clean[0]:.2f}" if clean[0] else "", elsewhere]
        print(f"| {' | '.join(told)} |", flush=True)


# ---- faults --------------------------------------------------------------------------------------------------------
def missing(volume: Volume, section: int) -> Volume:
    """A black section."""
    image_ZYX = volume.image_ZYX.copy()
    image_ZYX[section] = 0
    return replace(volume, image_ZYX=image_ZYX)


def shifted(volume: Volume, section: int) -> Volume:
    """Everything from a section on displaced along x."""
    image_ZYX, truth_ZYX = volume.image_ZYX.copy(), volume.truth_ZYX.copy()
    later = volume.image_ZYX[section:]
    image_ZYX[section:] = np.pad(later, ((0, 0), (0, 0), (SHIFT_PX, 0)), mode="reflect")[..., : later.shape[2]]
    truth_ZYX[section:, :, SHIFT_PX:] = volume.truth_ZYX[section:, :, :-SHIFT_PX]
    truth_ZYX[section:, :, :SHIFT_PX] = 0
    return replace(volume, image_ZYX=image_ZYX, truth_ZYX=truth_ZYX)


def with_contrast(volume: Volume, first: int, end: int | None) -> Volume:
    """Sections with more contrast, each about its own mean."""
    image_ZYX = volume.image_ZYX.copy()
    chosen = image_ZYX[first:end].astype(np.float32)
    mean = chosen.mean(axis=(1, 2), keepdims=True)
    image_ZYX[first:end] = np.clip(np.rint(mean + CONTRAST * (chosen - mean)), 0, 255).astype(np.uint8)
    return replace(volume, image_ZYX=image_ZYX)


FAULTS: dict[str, Callable[[Volume, int], Volume]] = {
    "none": lambda volume, section: volume,
    "missing section": missing,
    "shift of all later sections": shifted,
    "contrast of one section": lambda volume, section: with_contrast(volume, section, section + 1),
    "contrast of all later sections": lambda volume, section: with_contrast(volume, section, None),
}
ONE_SECTION = ("missing section", "contrast of one section")


if __name__ == "__main__":
    main()
