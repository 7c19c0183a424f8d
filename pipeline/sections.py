"""What every section of a config is made of: frozen models that refuse unknown keys, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Affects = Literal["answer", "layout", "nothing"]

LAYOUT: dict[str, Any] = {"affects": "layout"}
NOTHING: dict[str, Any] = {"affects": "nothing"}

Triple = tuple[int, int, int]
Count = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(gt=0)]
Extent = tuple[Count, Count, Count]
Lengths = tuple[Length, Length, Length]
Margin = Annotated[int, Field(ge=0)]
Halo = tuple[Margin, Margin, Margin]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
LoopKinds = Literal["touching", "gapped", "both"]  # of a generated volume
ClassNumber = Annotated[int, Field(ge=1, le=255)]


def absent(value: object) -> bool:
    """For `exclude_if`: a later option is written only where it is used, so that older records stay as they were."""
    return value is None


class Section(BaseModel):
    """A part of the config: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Region(Section):
    """A half-open box in voxels of the segmented layer."""

    begin: Triple = (0, 0, 0)
    end: Triple

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if any(b < 0 or e <= b for b, e in zip(self.begin, self.end, strict=True)):
            raise ValueError(f"the region {self.begin} to {self.end} holds no voxel")
        return self
