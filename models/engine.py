"""The engine: an image with context in, affinity codes out.

1. Every lattice patch that touches the box is cut out of the image (mirrored outside the layer) and goes through the
   network, in batches of one fixed size: the last one is filled up with zeros.
2. What the network says becomes integers (`models.levels`): affinities, and background if the network knows it. They
   are blended and become codes (`models.blend`).
3. A patch that shares only unwanted voxels with the box is skipped. If the manner says so, a patch of one grey value is
   not evaluated either: it has no edges, and is background.
4. An embedding's vectors, if the manner asks for them, are not blended (`models.vectors`).

A voxel's code depends on the layer, the weights and the voxel's position alone: not on the box, and not on what else
is in a batch, since instance norm looks at one patch at a time. That floating-point sums inside a patch come out the
same needs the same kernels: fixed batch and patch, deterministic algorithms, one class of device. PyTorch's CPU
convolution switches to another, slower kernel for a single small patch, so a CPU batch holds at least two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.blend import Blend
from models.lattice import Index, Lattice
from models.levels import HERE, Levels, Manner
from models.spec import TOP, WeightsSpec
from models.vectors import Vectors

Bool = NDArray[np.bool_]
Waiting = list[tuple[Index, NDArray[np.uint8] | None]]  # patches in the lattice's order; none for empty ones


@dataclass(frozen=True)
class Answer:
    """What the network says about a box, and how many patches that took."""

    codes_CZYX: NDArray[np.uint8]
    background_ZYX: NDArray[np.uint8] | None  # codes of its probability, if the network knows it
    patches: int  # evaluated
    skipped: int  # without a wanted voxel
    empty: int  # of one grey value, and not evaluated for that
    vectors_CZYX: NDArray[np.float16] | None = None  # if the manner asks for them; every voxel's of one patch


class Engine:
    """A network, ready to be applied anywhere in any layer."""

    def __init__(
        self,
        network: nn.Module,
        spec: WeightsSpec,
        *,
        device: str = "cpu",
        batch: int = 1,
        threads: int = 1,
        manner: Manner | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self.spec = spec
        self.device = device
        self.manner = manner or Manner()
        self._levels = Levels(network, spec, self.manner, device=device, batch=batch)
        self.batch = self._levels.batch
        self.offsets = tuple(offset for offset in self._levels.channels if offset != HERE)

    def predict(
        self, image_ZYX: NDArray[np.uint8], *, origin: Index, begin: Index, end: Index, layer: Index
    ) -> NDArray[np.uint8]:
        """Codes CZYX alone; see `answer`."""
        return self.answer(image_ZYX, origin=origin, begin=begin, end=end, layer=layer).codes_CZYX

    def answer(
        self,
        image_ZYX: NDArray[np.uint8],
        *,
        origin: Index,
        begin: Index,
        end: Index,
        layer: Index,
        wanted_ZYX: Bool | None = None,
    ) -> Answer:
        """The box [begin, end) of a layer of shape `layer`; the image's first voxel is `origin`.

        The image must hold `Lattice.context(begin, end)`. What is returned in voxels of the box that are not wanted
        means nothing.
        """
        lattice = Lattice.of(self.spec, layer)
        blend = Blend(lattice, self._levels.channels, self.spec.code_table, self.device)
        blend.open(begin, end)
        touching = list(lattice.touching(begin, end))
        kept = self._kept(lattice, begin, end)
        needed = [index for index in touching if _holds(lattice, index, begin, wanted_ZYX)]
        empty = 0
        with torch.inference_mode(), deterministic():
            for batch in self._batches((index, lattice.cut(image_ZYX, origin, index)) for index in needed):
                empty += self._add(blend, kept, batch)
            codes_CZYX = blend.close()
        count = len(self.offsets)
        background_ZYX = codes_CZYX[count] if self.spec.has_background else None
        vectors_CZYX = None if kept is None else kept.stored_CZYX
        patches = (len(needed) - empty, len(touching) - len(needed), empty)
        return Answer(codes_CZYX[:count], background_ZYX, *patches, vectors_CZYX)

    def _kept(self, lattice: Lattice, begin: Index, end: Index) -> Vectors | None:
        """Where the vectors of a box go, if they are wanted."""
        if not self.manner.vectors:
            return None
        return Vectors(lattice, begin, end, self.spec.network.heads["embedding"])

    def _batches(self, patches: Iterable[tuple[Index, NDArray[np.uint8]]]) -> Iterator[Waiting]:
        """Groups in the lattice's order with at most a batch of patches to evaluate."""
        waiting: Waiting = []
        count = 0
        for index, patch_ZYX in patches:
            if self.manner.skip_empty and patch_ZYX.min() == patch_ZYX.max():
                waiting.append((index, None))
                continue
            waiting.append((index, patch_ZYX))
            count += 1
            if count == self.batch:
                yield waiting
                waiting, count = [], 0
        if waiting:
            yield waiting

    def _add(self, blend: Blend, kept: Vectors | None, batch: Waiting) -> int:
        """Evaluate and blend; returns how many patches are empty. On a GPU this only gets things going."""
        alive = [patch_ZYX for _, patch_ZYX in batch if patch_ZYX is not None]
        levels, vectors = self._levels.with_vectors(alive) if alive else (None, None)
        place = 0
        for index, patch_ZYX in batch:
            if patch_ZYX is None or levels is None:
                blend.add(index, self._nothing)
                continue
            blend.add(index, levels[place])
            if kept is not None and vectors is not None:
                kept.add(index, vectors[place])
            place += 1
        return len(batch) - len(alive)

    @cached_property
    def _nothing(self) -> Tensor:
        """What is said about an empty patch."""
        channels = self._levels.channels
        levels_CZYX = torch.zeros((len(channels), *self.spec.output), dtype=torch.int32, device=self.device)
        levels_CZYX[[offset == HERE for offset in channels]] = TOP
        return levels_CZYX


def predict_volume(
    network: nn.Module,
    spec: WeightsSpec,
    image_ZYX: NDArray[np.uint8],
    *,
    device: str = "cpu",
    batch: int = 1,
    threads: int = 1,
    manner: Manner | None = None,
) -> Answer:
    """What a network says about a whole volume in memory, at the voxel size of its weights."""
    engine = Engine(network, spec, device=device, batch=batch, threads=threads, manner=manner)
    z, y, x = image_ZYX.shape
    return engine.answer(image_ZYX, origin=(0, 0, 0), begin=(0, 0, 0), end=(z, y, x), layer=(z, y, x))


def _holds(lattice: Lattice, index: Index, begin: Index, wanted_ZYX: Bool | None) -> bool:
    """Whether a patch shares a wanted voxel with the box that begins at `begin`."""
    if wanted_ZYX is None:
        return True
    corner = lattice.begin(index)
    low = (max(c - b, 0) for c, b in zip(corner, begin, strict=True))
    high = (c + p - b for c, p, b in zip(corner, lattice.patch, begin, strict=True))
    return bool(wanted_ZYX[tuple(slice(*span) for span in zip(low, high, strict=True))].any())


@contextmanager
def deterministic() -> Iterator[None]:
    """PyTorch's settings for equal bits on equal devices; the caller's own come back afterwards."""
    cudnn: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def device_class(device: str) -> str:
    """What equal bits are promised on: a CPU's instruction set as PyTorch uses it, or a GPU's model; and PyTorch."""
    if device == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
