"""A network applied the plain way: eager, float32, one patch at a time, blended by numpy.

The same lattice, weights of the bump and metric graph as the engine's (models/lattice.py, models/metric_graph.py), but
no integers: affinities are never rounded to levels and never become codes. It is what the engine's codes and its speed
are measured beside.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.lattice import Lattice
from models.levels import HERE
from models.metric_graph import metric_affinities
from models.spec import Index, WeightsSpec

F32 = NDArray[np.float32]


def plain_affinities(
    network: nn.Module,
    spec: WeightsSpec,
    image_ZYX: NDArray[np.uint8],
    channels: tuple[Index, ...],
    device: str = "cpu",
) -> F32:
    """Affinities CZYX of a volume in memory; the channel (0, 0, 0) is background."""
    depth, height, width = image_ZYX.shape
    shape: Index = (depth, height, width)
    lattice = Lattice.of(spec, shape)
    sums = np.zeros((len(channels), *shape), np.float32)
    for index in lattice.touching((0, 0, 0), shape):
        patch = torch.from_numpy(np.array(lattice.cut(image_ZYX, (0, 0, 0), index)))
        with torch.inference_mode():
            said = probabilities(network(patch.to(device)[None, None].float() / 255), spec, channels)[0].cpu().numpy()
        corner = lattice.begin(index)
        room = tuple(slice(c, min(c + p, n)) for c, p, n in zip(corner, lattice.patch, shape, strict=True))
        inside = tuple(slice(s.stop - s.start) for s in room)
        for channel, offset in enumerate(channels):
            weight = weights(lattice, index, offset)[inside]
            sums[(channel, *room)] += weight * said[(channel, *inside)]
    for channel, offset in enumerate(channels):
        total = totals(lattice, shape, offset)
        sums[channel] = np.divide(sums[channel], total, out=np.zeros_like(total), where=total > 0)
    return sums


def probabilities(outputs: dict[str, Tensor], spec: WeightsSpec, channels: tuple[Index, ...]) -> Tensor:
    """What the network says about every channel, BCZYX."""
    offsets = [offset for offset in channels if offset != HERE]
    if "embedding" in outputs:
        edges = metric_affinities(outputs["embedding"], offsets, float(spec.delta or 0))[0]
    else:
        edges = torch.sigmoid(outputs["affinity"][:, : len(offsets)])
    return torch.cat([edges, torch.sigmoid(outputs["background"])], 1) if HERE in channels else edges


def weights(lattice: Lattice, index: Index, offset: Index) -> F32:
    """What a patch counts in its voxels for the edge to an offset: the product of the axes'."""
    along = (axis.weights(k, o) for axis, k, o in zip(lattice.axes, index, offset, strict=True))
    return _product(*along)


def totals(lattice: Lattice, shape: Index, offset: Index) -> F32:
    """The sum of all patches' weights."""
    along = (axis.normaliser(0, n, o) for axis, n, o in zip(lattice.axes, shape, offset, strict=True))
    return _product(*along)


def _product(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> F32:
    one, two, three = (np.float32(2.0**-12) * values.astype(np.float32) for values in (z, y, x))
    return one[:, None, None] * two[None, :, None] * three[None, None, :]
