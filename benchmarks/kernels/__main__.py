"""`make bench-kernels`: every kernel beside its peers on a generated volume and on a real crop, in one run.

The last table holds what is aimed at: a peer's CPU time over ours, and our peak memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from benchmarks.kernels.data import NEAREST, OFFSETS, Volume, generated, real
from benchmarks.kernels.measure import Contender, Measured, measure

KERNELS = ("mutex_watershed", "watershed", "region_graph", "agglomerate", "evaluate", "relabel")
SMALL = (32, 256, 256)  # what mwatershed's memory allows
FULL = (64, 512, 512)
CROP = (32, 512, 512)


class Verdict(NamedTuple):
    """One aim, and what was found."""

    kernel: str
    volume: str
    aim: str
    found: str
    reached: bool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NEUROTILE_DATA", "../shared/data")))
    parser.add_argument("--only", nargs="*", choices=KERNELS, default=KERNELS, help="some kernels only")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=FULL, help="of the generated volume and, at most, the crop"
    )
    parser.add_argument("--no-generated", action="store_true", help="the real crop only")
    options = parser.parse_args()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        print("| kernel | volume | contender | CPU s | M/s | ratio to ours | B per unit | result |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name, volume, kernels in volumes(Path(folder), options):
            for kernel in kernels:
                verdicts += compare(kernel, name, volume)
    print("\n| kernel | volume | aim | found | |\n|---|---|---|---|---|")
    for verdict in verdicts:
        print(f"| {' | '.join(verdict[:4])} | {'PASS' if verdict.reached else 'short'} |")


def volumes(folder: Path, options: argparse.Namespace) -> list[tuple[str, Volume, list[str]]]:
    """Names, volumes, and the kernels that are measured on them."""
    shape = tuple(options.shape)
    crop = tuple(map(min, shape, CROP))
    channels = len(OFFSETS if "mutex_watershed" in options.only else NEAREST)
    found = []
    if shape == FULL and "mutex_watershed" in options.only and not options.no_generated:
        found.append((f"generated {told(SMALL)}", generated(folder / "small", SMALL, channels), ["mutex_watershed"]))
    if not options.no_generated:
        found.append((f"generated {told(shape)}", generated(folder / "generated", shape, channels), options.only))
    path = options.data / "ac4.h5"
    if path.exists():
        found.append((f"AC4 {told(crop)}", real(folder / "ac4", path, crop, channels), options.only))
    else:
        print(f"The real crop is left out: there is no {path} (--data, or NEUROTILE_DATA).")
    return found


def told(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def compare(kernel: str, name: str, volume: Volume) -> list[Verdict]:
    """Measure all contenders of a kernel, print their rows, and judge."""
    module = import_module(f"benchmarks.kernels.{kernel}")
    units = module.units(volume) if hasattr(module, "units") else volume.voxels()
    own: dict[str, Measured] = {}
    verdicts = []
    for contender in module.CONTENDERS:
        if volume.voxels() > contender.most_voxels:
            print(f"| {kernel} | {name} | {contender.name} | | | | | not run: too much memory |", flush=True)
            continue
        measured = measure(kernel, contender, volume)
        if not contender.beside:
            own[contender.name] = measured
        beside = own.get(contender.beside)
        print_row((kernel, name, contender.name), measured, beside, module, units)
        verdicts += judge((kernel, name), contender, measured, beside, units, module.UNIT)
    return verdicts


def print_row(
    names: tuple[str, str, str], measured: Measured, beside: Measured | None, module: ModuleType, units: int
) -> None:
    if measured.failure:
        print(f"| {' | '.join(names)} | | | | | {measured.failure} |", flush=True)
        return
    ratio, result = "", ""
    if beside and not beside.failure:
        ratio, result = f"{measured.seconds / beside.seconds:.2f}", module.agree(beside.arrays, measured.arrays)
    speed, peak = f"{units / max(measured.seconds, 1e-6) / 1e6:.3g}", f"{measured.peak_bytes / units:.1f}"
    print(f"| {' | '.join(names)} | {measured.seconds:.3f} | {speed} | {ratio} | {peak} | {result} |", flush=True)


def judge(
    names: tuple[str, str], contender: Contender, measured: Measured, beside: Measured | None, units: int, unit: str
) -> list[Verdict]:
    """What the contender's targets say."""
    verdicts = []
    if contender.target and beside:
        failed = measured.failure or beside.failure
        ratio = 0.0 if failed else measured.seconds / beside.seconds
        aim = f"{contender.target:g}x {contender.name}"
        verdicts.append(Verdict(*names, aim, failed or f"{ratio:.2f}x", ratio >= contender.target))
    if contender.most_bytes:
        peak = measured.peak_bytes / units
        aim = f"{contender.name}: at most {contender.most_bytes:g} B/{unit}"
        found = measured.failure or f"{peak:.1f} B/{unit}"
        verdicts.append(Verdict(*names, aim, found, not measured.failure and peak <= contender.most_bytes))
    return verdicts


if __name__ == "__main__":
    main()
