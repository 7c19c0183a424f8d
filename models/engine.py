"""The engine: an image with context in, affinity codes out.

1. Every lattice patch that touches the box is cut out of the image (mirrored outside the layer) and goes through the
   network, in batches of one fixed size: the last one is filled up with zeros.
2. Probabilities become levels: round(p * 65535). From here on there are only integers.
3. Levels are blended and become codes (`models.blend`).

A voxel's code depends on the layer, the weights and the voxel's position alone: not on the box, and not on what else
is in a batch, since instance norm looks at one patch at a time. That floating-point sums inside a patch come out the
same needs the same kernels: fixed batch and patch, deterministic algorithms, one class of device. PyTorch's CPU
convolution switches to another, slower kernel for a single small patch, so a CPU batch holds at least two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.blend import Blend
from models.lattice import SMALLEST_CPU_BATCH, Index, Lattice
from models.spec import NEAREST, TOP, WeightsSpec


class Engine:
    """A network, ready to be applied anywhere in any layer."""

    def __init__(
        self, network: nn.Module, spec: WeightsSpec, *, device: str = "cpu", batch: int = 1, threads: int = 1
    ) -> None:
        torch.set_num_threads(threads)
        self.spec = spec
        self.device = device
        self.batch = max(batch, SMALLEST_CPU_BATCH) if device == "cpu" else batch
        self._network = network.to(device).eval()

    def predict(
        self, image_ZYX: NDArray[np.uint8], *, origin: Index, begin: Index, end: Index, layer: Index
    ) -> NDArray[np.uint8]:
        """Codes CZYX of the box [begin, end) of a layer of shape `layer`; the image's first voxel is `origin`.

        The image must hold `Lattice.context(begin, end)`.
        """
        lattice = Lattice(layer, self.spec.patch, self.spec.stride)
        blend = Blend(lattice, NEAREST, self.spec.code_table, self.device)
        blend.open(begin, end)
        indices = lattice.touching(begin, end)
        with torch.inference_mode(), deterministic():
            while some := list(islice(indices, self.batch)):
                patches = np.stack([lattice.cut(image_ZYX, origin, index) for index in some])
                for index, levels in zip(some, self._levels(patches), strict=False):
                    blend.add(index, levels)
            return blend.close()

    def _levels(self, patches_BZYX: NDArray[np.uint8]) -> Tensor:
        """Levels 0..65535 (int32) of the nearest edges, for a batch filled up to its fixed size."""
        missing = self.batch - len(patches_BZYX)
        filled = np.pad(patches_BZYX, ((0, missing), (0, 0), (0, 0), (0, 0)))
        images = torch.from_numpy(filled).to(self.device)[:, None].to(torch.float32) / 255
        logits: Tensor = self._network(images)["affinity"][:, : len(NEAREST)]
        return torch.round(torch.sigmoid(logits) * TOP).to(torch.int32)


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
