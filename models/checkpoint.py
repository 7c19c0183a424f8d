"""Weights and resume state as safetensors. Nothing is ever unpickled.

Weights are kept in float16 beside their spec (`NAME.safetensors`, `NAME.json`) and used in float32. The resume state
is one safetensors file of float32 tensors: the network, the optimiser's moments and the step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
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
    content = save({name: t.detach().to("cpu", torch.float16).contiguous() for name, t in network.state_dict().items()})
    stated = replace(spec, sha256=hashlib.sha256(content).hexdigest())
    _write(path, content)
    _write(path.with_suffix(".json"), encoded(stated))
    return stated


def load_network(name_or_path: str) -> tuple[nn.Module, WeightsSpec]:
    """The network behind a shipped name or a path, in float32, with its spec; hashes and shapes are checked."""
    path = find(name_or_path)
    spec = load_spec(name_or_path, verify=False)
    tensors = _tensors(read_verified(path, spec), path)
    network = build(spec.architecture)
    _fill(network, {name: t.to(torch.float32) for name, t in tensors.items()}, path)
    return network, spec


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors to one file, whole or not at all."""
    _write(path, save({name: t.detach().to("cpu").contiguous() for name, t in state.items()}))


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `save_state` wrote."""
    return _tensors(path.read_bytes(), path)


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise WeightsInvalid(f"this is not a safetensors file: {error}", where=str(path)) from None
    return tensors


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


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
