"""Weights as safetensors, in float16 beside their spec (`NAME.safetensors`, `NAME.json`), used in float32.

Nothing is ever unpickled. What a training goes on from is kept apart (models.resume).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
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
    content = save({name: _halved(tensor) for name, tensor in network.state_dict().items()})
    stated = replace(spec, sha256=hashlib.sha256(content).hexdigest())
    write_file(path, content)
    write_file(path.with_suffix(".json"), encoded(stated))
    return stated


def _halved(tensor: Tensor) -> Tensor:
    """In float16; a count (batch norm's) stays whole, float16 ends at 65,504."""
    kept = tensor.detach().to("cpu")
    return (kept.to(torch.float16) if kept.is_floating_point() else kept).contiguous()


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


def take_over(network: nn.Module, name_or_path: str) -> str:
    """Begin with the tensors of other weights that have the same name and shape; returns the weights' hash."""
    path = find(name_or_path)
    spec = load_spec(name_or_path, verify=False)
    given = read_tensors(read_verified(path, spec), path)
    own = network.state_dict()
    shared = {name: t.to(torch.float32) for name, t in given.items() if name in own and own[name].shape == t.shape}
    if not shared:
        raise WeightsInvalid("this network shares no tensor with the weights it should start from", where=str(path))
    network.load_state_dict(shared, strict=False)
    return spec.sha256


def _fill(network: nn.Module, tensors: dict[str, Any], path: Path) -> None:
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsInvalid(
            f"the weights do not fit the architecture in their spec: {reason}", where=str(path)
        ) from None
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
