"""CPU seconds of a training step: as it is, with PyTorch's nn.Conv3d, and compiled in bfloat16.

One network, three times, with equal weights: as it is, with every Conv3d made a plain nn.Conv3d, and with its trunk
compiled and in bfloat16. All take the same steps of `models.train.Trainer` on the same crops of a generated volume, in
turn, one step each. The median of CPU time of a step, all threads added up, and wall time beside it. Patch, batch, loss
and widths are those of a training config; crops are drawn before the clock starts. Losses must stay alike.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.convolution import Conv3d
from models.crops import Batch, Sample, draw
from models.networks import build
from models.train import Machine, Trainer
from pipeline.geometry import Index
from pipeline.training.settings import TrainConfig, Volumes, load
from pipeline.training.volumes import InMemory, make_volume

CONFIG = Path(__file__).parents[2] / "configs" / "train_ac4_affinity.toml"
ALIKE = 0.05  # of the losses


def as_plain(network: nn.Module) -> nn.Module:
    """A copy in which every Conv3d is PyTorch's own."""
    plain = copy.deepcopy(network)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv3d):
                own = nn.Conv3d(
                    child.in_channels, child.out_channels, child.kernel_size, padding=child.padding, bias=False
                )
                own.load_state_dict(child.state_dict())
                setattr(parent, name, own)
    return plain


def batches(config: TrainConfig, count: int) -> list[Batch]:
    """Crops of a generated volume."""
    drawing = config.recipe().drawing
    z, y, x = drawing.reach
    size = config.network.voxel_size_nm
    extent: Index = (z + 8, y + 64, x + 64)
    image, labels = make_volume(Volumes(first_seed=5, count=1, size=extent, voxel_size_nm=size), 5, size)
    sample = Sample(InMemory(image), InMemory(labels))
    return [draw([sample], drawing, number) for number in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--patch", type=int, nargs=3, help="instead of the config's")
    parser.add_argument("--batch", type=int, help="instead of the config's")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = load(options.config)
    changes = {name: value for name in ("patch", "batch") if (value := getattr(options, name)) is not None}
    if "patch" in changes:
        changes["patch"] = tuple(changes["patch"])
    config = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    own = build(config.network.spec().architecture).train()
    recipe = config.recipe()
    trainers = {
        "models.convolution.Conv3d": Trainer(copy.deepcopy(own), recipe, Machine()),
        "nn.Conv3d": Trainer(as_plain(own), recipe, Machine()),
        "bfloat16, compiled": Trainer(copy.deepcopy(own), recipe, Machine(compile=True, narrow=True)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    for number, batch in enumerate(batches(config, options.steps + 1)):
        losses = []
        for name, trainer in trainers.items():
            began = time.process_time(), time.perf_counter()
            losses.append(trainer.advance(batch)["loss"])
            spent = (time.process_time() - began[0], time.perf_counter() - began[1])
            times[name] += [spent] if number else []  # the first step warms up
        if not np.allclose(losses, losses[0], rtol=ALIKE):
            raise SystemExit(f"the losses of step {number} differ: {losses}")
    t = config.training
    print(f"{config.name}: {t.batch} patches of {'x'.join(map(str, t.patch))}, {options.threads} threads\n")
    print("| network | CPU s a step | wall s a step | CPU of nn.Conv3d |\n|---|---|---|---|")
    medians = {
        name: [statistics.median(column) for column in zip(*spent, strict=True)] for name, spent in times.items()
    }
    for name, (cpu, wall) in medians.items():
        print(f"| {name} | {cpu:.3f} | {wall:.3f} | {cpu / medians['nn.Conv3d'][0]:.2f} |")


if __name__ == "__main__":
    main()
