"""The architecture inside a weights' spec: read, checked, torch-free. `models.spec` documents its JSON form.

`models.networks` builds the network that it states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import WeightsInvalid

Index = tuple[int, int, int]

# What normalises inside every known architecture. Both are functions of one patch alone: "instance" takes the patch's
# own statistics, "running" those that training left behind (batch norm in eval mode).
NORMS: Mapping[str, str] = {"rsunet": "instance", "rsunet_p": "running"}
HEADS = ("affinity", "embedding", "background")
KEYS = ("name", "widths", "heads", "crop", "norm")


@dataclass(frozen=True)
class Architecture:
    """A known network with its widths, heads, and the voxels that it cuts off every side of its output."""

    name: str
    widths: tuple[int, ...]
    heads: Mapping[str, int]  # name -> channels, in the order of the JSON
    crop: Index = (0, 0, 0)

    @property
    def norm(self) -> str:
        """Whose statistics normalise."""
        return NORMS[self.name]

    @property
    def divisor(self) -> int:
        """What y and x of a patch must divide by: every scale but the first halves them."""
        return 1 << (len(self.widths) - 1)

    def output(self, patch: Index) -> Index:
        """The extent of the heads' output for a patch."""
        z, y, x = (extent - 2 * cut for extent, cut in zip(patch, self.crop, strict=True))
        return (z, y, x)


def read(architecture: Mapping[str, Any]) -> Architecture:
    """An architecture from its JSON; WeightsInvalid says what cannot work."""
    unknown = sorted(set(architecture) - set(KEYS))
    require(not unknown, f"the architecture has unknown keys {unknown}; known: {', '.join(KEYS)}")
    name = architecture.get("name")
    require(name in NORMS, f"the architecture is {name!r}; known: {', '.join(map(repr, NORMS))}")
    norm = architecture.get("norm", "instance")
    require(norm == NORMS[str(name)], f"norm {norm!r}: {name!r} has {NORMS[str(name)]!r}, and must say so")
    return Architecture(
        str(name),
        _widths(architecture.get("widths")),
        _heads(architecture.get("heads")),
        _crop(architecture.get("crop", [0, 0, 0])),
    )


def require(condition: bool, what: str) -> None:
    """Refuse a spec for a reason."""
    if not condition:
        raise WeightsInvalid(what)


def _widths(widths: Any) -> tuple[int, ...]:
    require(
        isinstance(widths, Sequence) and len(widths) > 0 and all(isinstance(w, int) and w > 0 for w in widths),
        f"widths {widths!r} are not a list of positive whole numbers",
    )
    return tuple(widths)


def _heads(heads: Any) -> Mapping[str, int]:
    require(
        isinstance(heads, Mapping)
        and set(heads) <= set(HEADS)
        and all(isinstance(count, int) and count > 0 for count in heads.values()),
        f"heads {heads!r} do not give {', '.join(HEADS)} their numbers of channels",
    )
    require(("affinity" in heads) != ("embedding" in heads), "the heads need either 'affinity' or 'embedding'")
    require(heads.get("background", 1) == 1, f"the head 'background' has {heads.get('background')} channels, not 1")
    require("embedding" not in heads or "background" in heads, "an embedding needs the head 'background' beside it")
    return dict(heads)


def _crop(crop: Any) -> Index:
    require(
        isinstance(crop, Sequence) and len(crop) == 3 and all(isinstance(cut, int) and cut >= 0 for cut in crop),
        f"crop {crop!r} is not three whole numbers (z, y, x) of voxels to cut off either side",
    )
    z, y, x = crop
    return (z, y, x)
