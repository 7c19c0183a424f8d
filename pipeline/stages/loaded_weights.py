"""Weights on their way into a worker: the file that a run was begun with, and a device that runs out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.errors import WeightsInvalid
from models.spec import WeightsSpec
from pipeline.errors import BadWeights, OutOfMemory

if TYPE_CHECKING:
    from torch import nn


def load_as_begun(location: str, sha256: str) -> tuple[nn.Module, WeightsSpec]:
    """A network and its spec; refused if the file is not the one that the run was begun with."""
    from models.checkpoint import load_network

    try:
        network, spec = load_network(location)
    except WeightsInvalid as error:
        raise BadWeights(error.what, where=error.where or location) from None
    if spec.sha256 != sha256:
        raise BadWeights(
            f"the weights have SHA-256 {spec.sha256[:16]}…, the run was begun with {sha256[:16]}…",
            where=location,
            way_out="put the old file back, or start a run with the new one",
        )
    return network, spec


@contextmanager
def naming_batches(setting: str, *, batch: int, device: str) -> Iterator[None]:
    """If the device runs out of memory, say with batches of what size, and which setting makes them smaller."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own; torch is not imported here
            raise
        raise OutOfMemory(
            f"the device ran out of memory with batches of {batch}",
            where=f"{setting} on {device}",
            way_out=f"set a smaller {setting}",
        ) from None
