"""The sixteen ways to turn a patch that leave sections sections: flips of z, y, x, and y and x exchanged.

1. A symmetry exchanges y and x, if it does, then flips axes; undoing it goes back the other way round.
2. What a network says about a turned patch is turned back voxel by voxel. An edge's channel is another one then: the
   offset o, turned back, is o'. If o' is the offset of a channel, the value stays where it is. If -o' is, the edge is
   the same but stored at its other end: the value moves by one edge.
3. A channel whose edges no channel of the turned patch describes has nothing from that symmetry.

Edges that leave the patch have no value; here they are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from models.offsets import ends
from models.spec import Index

Sources = tuple[tuple[int, bool] | None, ...]  # per channel: where it comes from, and whether it moves


@dataclass(frozen=True)
class Symmetry:
    """One way to turn a patch."""

    flips: tuple[bool, bool, bool] = (False, False, False)
    exchange: bool = False

    def turn(self, patch: Tensor) -> Tensor:
        """Turn the last three axes."""
        turned = patch.transpose(-1, -2) if self.exchange else patch
        return torch.flip(turned, self._flipped).contiguous()

    def undo(self, patch: Tensor) -> Tensor:
        """Turn the last three axes back."""
        flipped = torch.flip(patch, self._flipped)
        return (flipped.transpose(-1, -2) if self.exchange else flipped).contiguous()

    def undo_offset(self, offset: Index) -> Index:
        """Where an edge of the turned patch leads when it is turned back."""
        z, y, x = (-o if flip else o for o, flip in zip(offset, self.flips, strict=True))
        return (z, x, y) if self.exchange else (z, y, x)

    def sources(self, offsets: Sequence[Index]) -> Sources:
        """For every channel the one of the turned patch that describes its edges, and whether at their other end."""
        back = [self.undo_offset(offset) for offset in offsets]
        return tuple(_source(offset, back) for offset in offsets)

    @property
    def _flipped(self) -> list[int]:
        return [axis - 3 for axis in range(3) if self.flips[axis]]


NONE = (Symmetry(),)
FLIPS16 = tuple(Symmetry((z, y, x), e) for e, z, y, x in product((False, True), repeat=4))


def channels_back(turned_BCZYX: Tensor, offsets: Sequence[Index], sources: Sources) -> Tensor:
    """The channels in place of those that were turned back voxel by voxel; 0 where there is nothing."""
    if all(source == (channel, False) for channel, source in enumerate(sources)):
        return turned_BCZYX
    back = torch.zeros_like(turned_BCZYX)
    for channel, (offset, source) in enumerate(zip(offsets, sources, strict=True)):
        if source is None:
            continue
        here, there = ends(turned_BCZYX.shape[2:], offset)
        (z, y, x), (at_z, at_y, at_x) = here, there if source[1] else here
        back[:, channel, z, y, x] = turned_BCZYX[:, source[0], at_z, at_y, at_x]
    return back


def _source(offset: Index, back: Sequence[Index]) -> tuple[int, bool] | None:
    z, y, x = offset
    if offset in back:
        return back.index(offset), False
    other = (-z, -y, -x)
    return (back.index(other), True) if other in back else None
