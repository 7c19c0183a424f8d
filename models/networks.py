"""The networks by the name of their architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from models import rsunet, rsunet_p
from models.architecture import read

BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "rsunet": rsunet.build,
    "rsunet_p": rsunet_p.build,
}


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The network that a weights' spec states, with fresh weights."""
    return BUILDERS[read(architecture).name](architecture)
