"""What every section of a config is made of: frozen models that refuse unknown keys, and the types of their fields.

Beside them the sections that no other refers to: self_touch, and those about execution.
"""

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


class SelfTouch(Section):
    """Merging segments that are one object which touches itself, by mean embeddings at their contacts.

    Which merges are refused, [guards] says; where networks compute, [predict].
    """

    enabled: bool = False
    weights: str | None = Field(None, json_schema_extra=NOTHING)  # of an embedding net; default: predict.weights
    theta_self_contact: Share = 0.25  # mean affinity above which a pair's best contact is looked at, to three decimals
    theta_d: float = Field(1.5, ge=0.0)  # distance of means below which a pair is merged; lower it for fewer merges
    min_contact_edges: int = Field(4, ge=1)  # smaller contacts do not count; raise it where voxels are small
    window: Extent = (5, 32, 32)  # what means are taken over, in voxels of the weights; at most their output
    min_voxels: int = Field(16, ge=1)  # of either segment in the window; with fewer, no decision is made
    rounds: int = Field(1, ge=1, le=9)  # merged segments may make new candidates
    batch: int = Field(2, ge=1, json_schema_extra=NOTHING)  # lower it when memory runs out

    @model_validator(mode="after")
    def _in_thousandths(self) -> Self:
        if round(self.theta_self_contact, 3) != self.theta_self_contact:
            raise ValueError(f"theta_self_contact {self.theta_self_contact} has more than three decimals")
        return self


class Pool(Section):
    """One pool of workers."""

    count: int = Field(2, ge=1, le=4096, json_schema_extra=NOTHING)
    memory_gb: float = Field(4.0, gt=0, json_schema_extra=NOTHING)  # limit per worker, enforced
    timeout_s: int = Field(3600, ge=1, json_schema_extra=NOTHING)  # a block that takes longer is taken away
    retries: int = Field(2, ge=0, le=100, json_schema_extra=NOTHING)


class Workers(Section):
    """The pools."""

    executor: Literal["serial", "daisy"] = Field("daisy", json_schema_extra=NOTHING)
    cpu: Pool = Pool()
    gpu: Pool = Pool(count=1)


class Limits(Section):
    """What a run may use; the plan refuses beyond."""

    disk_gb: float | None = Field(None, json_schema_extra=NOTHING)  # default: the free space
    inodes: int = Field(1_000_000, ge=1, json_schema_extra=NOTHING)
