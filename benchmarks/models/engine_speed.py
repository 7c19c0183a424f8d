"""How fast the predict stage is, beside the bare network, an infinite volume, a plain loop, and the device itself.

All on one device in one run, on a generated volume of --shape voxels of the weights' size (or --image):

a. predict: the real stage through the real block loop, from the resampled image on the disk to durable shards and
   receipts: once as the serial executor runs it (read, compute, write, one after the other), once with reading ahead,
   as a worker does that has blocks enough. Bare: the network's forward alone on as many batches of the same size, with
   the batches on the device already, under the engine's deterministic settings; and with PyTorch free to choose its
   kernels. Share (a) = bare forward / predict. Aim: 0.85.
b. An infinite volume needs every lattice patch exactly once, so a patch's forward yields as many useful voxels as a
   lattice step holds (the product of the stride): the overlap of patches is part of the method, not of the cost here.
   Share (b) = (voxels of the region / predict) / (stride voxels / bare forward of one patch). What it loses:
   patches that straddle blocks are evaluated by each (redundancy), the region ends within patches (rim), batches that
   are filled up, and share (a); a region that is hardly larger than a patch needs fewer patches than it has lattice
   steps, and may reach more than 1. In a region that is much larger than a block there is no rim: there
   share (b) = share (a) x filling / redundancy of an endless grid of these blocks. Aim: 0.75.
c. Plain loop: eager, float32, one patch at a time, blended by numpy (benchmarks/models/plain.py), on a corner of the
   volume. Compared by time per patch that the region needs, so that the corner's rim does not count. Aim: 3 on a GPU.
d. Matrix multiply: torch.mm of large matrices in the precision of the trunk. The network's operations are counted by
   torch.utils.flop_counter; share (d) = operations of all evaluated patches / predict / that rate.
e. On a CPU everything is repeated for every number of --threads; the best one is named.

Wall time, unless --clock cpu: then CPU time of this process, for machines that others use too (one thread only).
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models.plain import plain_affinities
from models.checkpoint import load_network
from models.engine import deterministic
from models.lattice import SMALLEST_CPU_BATCH, Lattice
from models.levels import HERE, Manner
from models.spec import Index, WeightsSpec
from pipeline.config import RunConfig, parse
from pipeline.facts import resolve
from pipeline.geometry import Box
from pipeline.ops.synthesize import generate
from pipeline.plan import Task, build
from pipeline.rundir import RunFolder
from pipeline.sources import open_source
from pipeline.stages.predict import BLOCKS, Predict
from pipeline.stages.resample import Resample
from pipeline.work import TaskWork
from workers.block import BlockRef
from workers.journal import SUFFIX, Journal
from workers.loop import BlockLoop
from workers.receipts import Receipts

BARE_S = 2.0  # least time of a measurement of the bare network
MATRIX = {"cpu": 2048, "cuda": 8192}
AIMS = {"bare": 0.85, "useful": 0.75, "plain": 3.0}


@dataclass(frozen=True)
class Setting:
    """What is measured, and by which clock."""

    name: str
    image_ZYX: NDArray[np.uint8]
    device: str
    batch: int
    threads: int
    precision: str
    block: Index | None
    far: bool
    plain_shape: Index
    clock: Callable[[], float]

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"


@dataclass
class Predicted:
    """What the stage did."""

    seconds: float
    parts: dict[str, float]  # of read, compute and write
    patches: int
    batches: int
    block: Index
    blocks: int


class TimedWork(TaskWork):
    """The task as the loop sees it, with a watch on its steps."""

    def __init__(self, task: Task, receipts: Receipts, folder: RunFolder, clock: Callable[[], float]) -> None:
        super().__init__(task, receipts, folder)
        self.spent: dict[str, float] = dict.fromkeys(("read", "compute", "write"), 0.0)
        self._clock = clock

    def read(self, index: Index) -> Any:
        return self._timed("read", lambda: super(TimedWork, self).read(index))

    def compute(self, inputs: Any) -> Any:
        return self._timed("compute", lambda: super(TimedWork, self).compute(inputs))

    def write(self, index: Index, outputs: Any) -> Any:
        return self._timed("write", lambda: super(TimedWork, self).write(index, outputs))

    def _timed(self, step: str, do: Callable[[], Any]) -> Any:
        began = self._clock()
        try:
            return do()
        finally:
            self.spent[step] += self._clock() - began


@dataclass
class _Claim:
    index: Index

    def settle(self, *, done: bool) -> None:
        if not done:
            raise SystemExit(f"block {self.index} failed")


# ---- the stage -----------------------------------------------------------------------------------------------------
def config_of(setting: Setting, spec: WeightsSpec, image: Path) -> RunConfig:
    """A run of this volume, up to its affinities."""
    predict: dict[str, Any] = {"weights": setting.name, "device": setting.device, "batch": setting.batch}
    predict |= {"threads": setting.threads, "precision": setting.precision, "block": setting.block}
    predict["offsets"] = "all" if setting.far else "nearest"
    given = {"image": str(image), "voxel_size_nm": list(spec.voxel_size_nm)}
    return parse({"input": given, "predict": predict}, where="the benchmark")


def predict_stage(setting: Setting, spec: WeightsSpec, *, read_ahead: bool) -> Predicted:
    """Run the stage over all blocks of the volume."""
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.journals.mkdir(parents=True)
        np.save(Path(place) / "image.npy", setting.image_ZYX)
        config = config_of(setting, spec, Path(place) / "image.npy")
        plan = build(config, resolve(config), folder.data)
        receipts = Receipts(folder.journals)
        with Journal(folder.journals / f"000001-benchmark{SUFFIX}") as journal:
            (resample,) = (task for task in plan.tasks if isinstance(task.stage, Resample))
            (predict,) = (task for task in plan.tasks if isinstance(task.stage, Predict))
            run_task(resample, TimedWork(resample, receipts, folder, setting.clock), journal, read_ahead=False)
            predict.stage.prepare()
            predict.stage.compute(predict.stage.read(BLOCKS, (0, 0, 0)))  # loads the network, warms the device up
            work = TimedWork(predict, receipts, folder, setting.clock)
            began = setting.clock()
            run_task(predict, work, journal, read_ahead=read_ahead)
            seconds = setting.clock() - began
        receipts.refresh()
        return _predicted(predict, receipts, (seconds, work.spent), setting)


def run_task(task: Task, work: TimedWork, journal: Journal, *, read_ahead: bool) -> None:
    """All blocks of a task through the block loop."""
    task.stage.prepare()
    claims: Iterator[_Claim] = (_Claim(index) for index in task.sweep.grid)
    BlockLoop(work, journal, epoch=1, retries=0).run(lambda: next(claims, None), read_ahead=read_ahead)


def _predicted(task: Task, receipts: Receipts, spent: tuple[float, dict[str, float]], setting: Setting) -> Predicted:
    per_block = [int(receipts.summary(BlockRef(task.name, index))["patches"]) for index in task.sweep.grid]
    batch = batch_of(setting)
    batches = sum(-(-n // batch) for n in per_block)
    return Predicted(*spent, sum(per_block), batches, task.sweep.grid.block, len(per_block))


def batch_of(setting: Setting) -> int:
    """The engine's own: a CPU's holds at least two patches."""
    return setting.batch if setting.gpu else max(setting.batch, SMALLEST_CPU_BATCH)


# ---- what it is compared with --------------------------------------------------------------------------------------
def bare_forward(setting: Setting, network: nn.Module, spec: WeightsSpec, *, free: bool = False) -> float:
    """Seconds of the network's forward per batch; `free`: PyTorch may choose its kernels."""
    images = batches_of(setting, spec)
    how: AbstractContextManager[Any] = nullcontext() if free else deterministic()
    torch.backends.cudnn.benchmark = free
    with torch.inference_mode(), how, autocast(setting):
        for batch in images[:2]:
            network(batch)
        synchronise(setting)
        count, began = 0, setting.clock()
        while True:
            for batch in images:
                network(batch)
            synchronise(setting)
            count += len(images)
            if setting.clock() - began >= BARE_S:
                break
        seconds = (setting.clock() - began) / count
    torch.backends.cudnn.benchmark = False
    return seconds


def batches_of(setting: Setting, spec: WeightsSpec) -> list[torch.Tensor]:
    """Batches of the volume's own patches, on the device: at most four, which are taken in turn."""
    lattice = Lattice.of(spec, shape_of(setting))
    size = batch_of(setting)
    patches = [
        np.array(lattice.cut(setting.image_ZYX, (0, 0, 0), index))
        for index in itertools.islice(lattice.touching((0, 0, 0), shape_of(setting)), 4 * size)
    ]
    patches = list(itertools.islice(itertools.cycle(patches), max(size, len(patches) // size * size)))
    stacked = torch.from_numpy(np.stack(patches)).to(setting.device)[:, None].float() / 255
    split = stacked.split(size)
    return [b.contiguous(memory_format=torch.channels_last_3d) for b in split] if setting.gpu else list(split)


def plain_loop(setting: Setting, network: nn.Module, spec: WeightsSpec) -> float:
    """Seconds per patch of the plain loop."""
    corner = setting.image_ZYX[tuple(slice(n) for n in setting.plain_shape)]
    z, y, x = corner.shape
    offsets = Manner("all" if setting.far else "nearest").edges(spec)
    channels = (*offsets, HERE) if spec.has_background else offsets
    patches = len(list(Lattice.of(spec, (z, y, x)).touching((0, 0, 0), (z, y, x))))
    began = setting.clock()
    plain_affinities(network, spec, np.ascontiguousarray(corner), channels, setting.device)
    return (setting.clock() - began) / patches


def multiply_rate(setting: Setting) -> float:
    """Operations per second of a matrix multiplication."""
    size = MATRIX["cuda" if setting.gpu else "cpu"]
    kind = torch.bfloat16 if setting.precision == "bfloat16" else torch.float32
    one, other = (torch.randn(size, size, device=setting.device).to(kind) for _ in range(2))
    torch.mm(one, other)
    best = math.inf
    for _ in range(5):
        synchronise(setting)
        began = setting.clock()
        torch.mm(one, other)
        synchronise(setting)
        best = min(best, setting.clock() - began)
    return 2 * size**3 / best


def operations(setting: Setting, network: nn.Module, spec: WeightsSpec) -> float:
    """Operations of the forward of one patch: two for a multiplication and an addition."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), autocast(setting):
        network(torch.zeros((1, 1, *spec.patch), device=setting.device))
    return float(counter.get_total_flops())


def autocast(setting: Setting) -> AbstractContextManager[Any]:
    narrow = setting.precision == "bfloat16"
    return torch.autocast(torch.device(setting.device).type, dtype=torch.bfloat16, enabled=narrow)


def synchronise(setting: Setting) -> None:
    if setting.gpu:
        torch.cuda.synchronize(setting.device)


def shape_of(setting: Setting) -> Index:
    z, y, x = setting.image_ZYX.shape
    return (z, y, x)


def endless_redundancy(spec: WeightsSpec, block: Index) -> float:
    """Evaluations per patch in an endless grid of blocks: along an axis the mean number of patches that touch a block,
    over a whole period of block and stride, for each lattice step of the block."""
    before, factor = 1 if spec.has_background else 0, 1.0
    for length, patch, stride in zip(block, spec.output, spec.stride, strict=True):
        period = math.lcm(length, stride)
        begins = range(4 * period, 5 * period, length)
        touching = [(b + length - 1) // stride - -(-(b - before - patch + 1) // stride) + 1 for b in begins]
        factor *= sum(touching) / (period / stride)
    return factor


# ---- the table -----------------------------------------------------------------------------------------------------
def measure(setting: Setting) -> tuple[list[str], float]:
    """The lines of one number of threads, and the useful rate."""
    torch.set_num_threads(setting.threads)
    network, spec = load_network(setting.name)
    serial, ahead = (predict_stage(setting, spec, read_ahead=ahead) for ahead in (False, True))
    network = network.to(setting.device).eval()
    plain_s = plain_loop(setting, network, spec)
    if setting.gpu:
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    forward_s, free_s = (bare_forward(setting, network, spec, free=free) for free in (False, True))
    best, voxels = min(serial, ahead, key=lambda p: p.seconds), setting.image_ZYX.size
    needed = len(list(Lattice.of(spec, shape_of(setting)).touching((0, 0, 0), shape_of(setting))))
    bare_s, patch_s = forward_s * best.batches, forward_s / batch_of(setting)
    share = bare_s / best.seconds
    useful, ideal = voxels / best.seconds, math.prod(spec.stride) / patch_s
    redundancy, endless = best.patches / needed, endless_redundancy(spec, best.block)
    rate, flops = multiply_rate(setting), operations(setting, network, spec)
    filling = best.patches / (best.batches * batch_of(setting))
    rows = [
        ("predict, one step after the other", _seconds(serial.seconds, voxels), _steps(serial)),
        ("predict, reading ahead", _seconds(ahead.seconds, voxels), _steps(ahead)),
        ("blocks", f"{best.blocks} of {_by(best.block)}", f"{best.patches} patches in {best.batches} batches"),
        ("bare forward, same batches", _seconds(bare_s, voxels), f"free kernels: {free_s / forward_s:.2f} of it"),
        ("(a) bare / predict", f"{share:.3f}", _verdict(share, "bare")),
        ("redundancy of blocks", f"{redundancy:.3f}", f"endless grid: {endless:.3f}"),
        ("(b) useful, this region", f"{useful / ideal:.3f}", f"{ideal / 1000:,.0f} k voxels/s in an infinite volume"),
        ("(b) useful, endless grid", f"{share * filling / endless:.3f}", _verdict(share * filling / endless, "useful")),
        ("plain loop", f"{plain_s * 1000:.1f} ms a patch", ""),
        ("(c) plain loop / predict", f"{plain_s * needed / best.seconds:.2f}", _plain_verdict(setting, plain_s, best)),
        ("matrix multiply", f"{rate / 1e12:.3f} TFLOP/s", f"{flops / 1e9:.1f} GFLOP a patch"),
        ("(d) share of it, predict", f"{flops * best.patches / best.seconds / rate:.3f}", ""),
        ("(d) share of it, bare forward", f"{flops / patch_s / rate:.3f}", ""),
    ]
    return [f"| {setting.threads} | {' | '.join(row)} |" for row in rows], useful


def _plain_verdict(setting: Setting, plain_s: float, best: Predicted) -> str:
    told = f"per evaluated patch: {plain_s * best.patches / best.seconds:.2f}"
    return f"{told}; {_verdict(plain_s * best.patches / best.seconds, 'plain')}" if setting.gpu else told


def _steps(predicted: Predicted) -> str:
    return ", ".join(f"{step} {seconds:.2f} s" for step, seconds in predicted.parts.items())


def _seconds(seconds: float, voxels: int) -> str:
    return f"{seconds:.2f} s, {voxels / seconds / 1000:,.0f} k voxels/s"


def _verdict(found: float, aim: str) -> str:
    return f"aim {AIMS[aim]:g}: {'PASS' if found >= AIMS[aim] else 'short'}"


def _by(extent: Index) -> str:
    return "x".join(map(str, extent))


def image_of(options: Any, spec: WeightsSpec) -> NDArray[np.uint8]:
    """A part of a file, or a generated volume, at the weights' voxel size."""
    z, y, x = options.shape
    if options.image is not None:
        return open_source(options.image).read(Box.of_shape((z, y, x)))
    return generate(Box.of_shape((z, y, x)), seed=3, shape=(z, y, x), voxel_size_nm=spec.voxel_size_nm)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a shipped name, or a path")
    parser.add_argument("--image", help="FILE or FILE.h5:dataset, taken as being of the weights' voxel size")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 512, 512), help="voxels at the weights' size")
    parser.add_argument("--block", type=int, nargs=3, help="default: what the plan chooses")
    parser.add_argument("--plain-shape", type=int, nargs=3, default=(20, 256, 256), help="corner for the plain loop")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--far", action="store_true", help="all edges that the weights know, as the mutex watershed")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch, on a CPU")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    _, spec = load_network(options.weights)
    image_ZYX = image_of(options, spec)
    threads = options.threads if options.device == "cpu" else [1]
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    device = torch.cuda.get_device_name(options.device) if options.device != "cpu" else "CPU"
    print(f"{options.weights}, {_by(options.shape)} voxels, batch {options.batch}, {options.precision}, {device}\n")
    print("| threads | what | measured | |\n|---|---|---|---|")
    rates = {}
    for count in threads:
        how = (options.device, options.batch, count, options.precision)
        block = tuple(options.block) if options.block else None
        setting = Setting(options.weights, image_ZYX, *how, block, options.far, tuple(options.plain_shape), clock)
        rows, rates[count] = measure(setting)
        print("\n".join(rows), flush=True)
    if len(rates) > 1:
        fastest = max(rates, key=lambda count: rates[count])
        print(f"\nFastest with {fastest} threads: {rates[fastest] / 1000:,.0f} k useful voxels a second.")


if __name__ == "__main__":
    main()
