"""Weights as safetensors, in float16 beside their spec (`NAME.safetensors`, `NAME.json`), used in float32.

Nothing is ever unpickled. What a training goes on from is kept apart (models.resume).
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.errors import WeightsInvalid
from models.networks import build
from models.spec import WeightsSpec, encoded, find, load_spec, read_verified


def save_weights(network: nn.Module, spec: WeightsSpec, path: Path) -> WeightsSpec:
    """Write `path` (ends in .safetensors) and the spec beside it; returns the spec with the hash filled in."""
    tensors = {name: _halved(tensor) for name, tensor in network.state_dict().items()}
    _require_finite(tensors, path)
    content = save(tensors)
    stated = replace(spec, sha256=hashlib.sha256(content).hexdigest())
    write_file(path, content)
    write_file(path.with_suffix(".json"), encoded(stated))
    return stated


def as_kept(network: nn.Module) -> nn.Module:
    """A copy with the numbers that `save_weights` keeps: what is measured is then what others will measure."""
    rounded = copy.deepcopy(network)
    kept = {name: _halved(tensor).to(tensor.dtype) for name, tensor in network.state_dict().items()}
    rounded.load_state_dict(kept)
    return rounded


def _halved(tensor: Tensor) -> Tensor:
    """In float16, which ends at 65,504: a tensor that goes beyond stays as it is, and so does a count."""
    kept = tensor.detach().to("cpu").contiguous()
    if not kept.is_floating_point():
        return kept
    halved = kept.to(torch.float16)
    return halved if bool(torch.isfinite(halved).all()) else kept


def load_network(name_or_path: str) -> tuple[nn.Module, WeightsSpec]:
    """The network behind a shipped name or a path, in float32, with its spec; hashes and shapes are checked."""
    path = find(name_or_path)
    spec = load_spec(name_or_path, verify=False)
    tensors = read_tensors(read_verified(path, spec), path)
    network = build(spec.architecture)
    _fill(network, {name: t.to(torch.float32) for name, t in tensors.items()}, path)
    return network, spec


def read_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes."""
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise WeightsInvalid(f"this is not a safetensors file: {error}", where=str(path)) from None
    return tensors


@dataclass(frozen=True)
class TakenOver:
    """The hash of weights that a network starts from, and how many of its own tensors it found in them."""

    sha256: str
    tensors: int
    of: int


def take_over(network: nn.Module, name_or_path: str) -> TakenOver:
    """Begin with the tensors of other weights that have the same name and shape; the others stay as they are."""
    path = find(name_or_path)
    spec = load_spec(name_or_path, verify=False)
    given = read_tensors(read_verified(path, spec), path)
    own = network.state_dict()
    shared = {name: t.to(torch.float32) for name, t in given.items() if name in own and own[name].shape == t.shape}
    if not shared:
        raise WeightsInvalid("this network shares no tensor with the weights it should start from", where=str(path))
    _require_finite(shared, path)
    network.load_state_dict(shared, strict=False)
    return TakenOver(spec.sha256, len(shared), len(own))


def _fill(network: nn.Module, tensors: dict[str, Any], path: Path) -> None:
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsInvalid(
            f"the weights do not fit the architecture in their spec: {reason}", where=str(path)
        ) from None
    _require_finite(tensors, path)


def _require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsInvalid(f"the tensor {name!r} holds NaN or infinity", where=str(path))


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
