"""What the correction of self-touches costs: its share of a run's time by task, and the memory of the workers.

A generated volume with loops is segmented in worker processes: edges of the embedding net, mutex watershed on tiles,
self-touches by the same net. Seconds are those of workers, from the receipts. Making the volume and comparing it with
its truth is left out of the shares. Decisions cost the same for every candidate: the last lines say what that comes to
where candidates are as rare as published (19 in 26 megavoxels).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.scale_run import Cost, cost
from benchmarks.self_touch.healed import Config, Healed, print_head, print_row, segment, triple, usual, weights_at
from pipeline.rundir import RunFolder
from workers.receipts import Receipts

LEFT_OUT = ("synthesize", "evaluate", "sweep", "merge_effect")
HEALS = ("contacts", "cut", "self_touch")  # made only for this
DECIDE, PREDICT = "self_touch/decide", "predict/blocks"
PUBLISHED = 19 / 26.2  # candidates in a megavoxel


def main() -> None:
    options = options_of()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        run = segment(folder / "cost", config(options))
        report(run, costs(run, folder / "cost"))


def config(options: Any) -> Config:
    """The run that is measured."""
    volume = {"seed": options.seed, "size": options.size, "voxel_size_nm": (30.0, 12.0, 12.0), "loops": "both"}
    own = {
        "predict": {"weights": options.weights},
        "fragments": {"method": "mutex_watershed"},
        "agglomerate": {"score": "none"},
        "contacts": {"expand_xy": options.expand},
        "self_touch": {"enabled": True},
    }
    pool = {"count": options.workers, "memory_gb": 20}  # bounds lie far above what is used: the table has both
    workers = {"executor": "daisy", "cpu": pool, "gpu": pool}
    blocks = {"shape": (32, 128, 128), "chunk": (32, 64, 64)}
    return {**usual(input={"synthetic": volume}, **own), "workers": workers, "blocks": blocks}


def costs(run: Healed, folder: Path) -> dict[str, Cost]:
    """Seconds and peak memory of every task that counts."""
    receipts = Receipts(RunFolder(folder).journals)
    tasks = (task.name for task in run.plan.tasks if task.stage.name not in LEFT_OUT)
    return {name: cost(receipts, name) for name in tasks}


def report(run: Healed, found: dict[str, Cost]) -> None:
    """The table, and what it means."""
    total = sum(one.seconds for one in found.values())
    print_head(["task", "worker s", "share", "peak MB of a worker", "planned MB"])
    for name, one in found.items():
        planned = run.plan.task(name).memory_bytes / 1e6
        print_row([name, f"{one.seconds:.1f}", f"{one.seconds / total:.1%}", f"{one.peak_mb:,}", f"{planned:,.0f}"])
    healing = sum(one.seconds for name, one in found.items() if name.partition("/")[0] in HEALS)
    print(f"\nthe correction: {healing:.0f} of {total:.0f} s, {healing / total:.1%}")
    candidates, voxels = run.decisions.candidates, run.plan.layer.roi.voxels / 1e6
    if not candidates:
        print("there were no candidates")
        return
    each = found[DECIDE].seconds / candidates
    print(f"{candidates:,} candidates, {candidates / voxels:.2f} in a megavoxel; {each:.2f} s each")
    rare, rest = each * PUBLISHED * voxels, total - found[DECIDE].seconds
    print(f"with {PUBLISHED:.2f} in a megavoxel: decisions {rare / (rest + rare):.2%} of the run's seconds, ", end="")
    print(f"{rare / found[PREDICT].seconds:.2%} of those of predict")


def options_of() -> Any:
    """Which volume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny_embedding", help="of an embedding net at 30 x 12 x 12 nm")
    parser.add_argument("--size", type=triple, default=(64, 512, 512), metavar="Z,Y,X")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--expand", type=int, default=0, help="contacts.expand_xy")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the run is kept; default: nowhere")
    options = parser.parse_args()
    options.weights = weights_at(options.weights)
    return options


if __name__ == "__main__":
    main()
