"""How a run ended: exact counts, by task and by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.plan import Plan
from pipeline.progress import Status
from pipeline.rundir import RunFolder
from pipeline.stages.upsample import Upsample
from pipeline.work import Survey
from workers.block import BlockRef

LABELS, FINE_LABELS = "labels.zarr", "labels_upsampled.zarr"  # at the weights' voxel size, at the image's


@dataclass
class Outcome:
    """How a run ended: exact counts by task."""

    folder: RunFolder
    plan: Plan
    surveys: dict[str, Survey] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)
    status: Status | None = None

    @property
    def complete(self) -> bool:
        """Whether every block is done or masked."""
        return all(len(s.current) == s.total for s in self.surveys.values())

    @property
    def labels(self) -> Path:
        """The final label array: at the image's voxel size if that was asked for."""
        return self.folder.root / (LABELS if self.plan.find(Upsample) is None else FINE_LABELS)

    @property
    def tasks(self) -> dict[str, dict[str, int]]:
        """Counts by task and state."""
        return {
            name: {**survey.counts(), "executed": self.executed.get(name, 0)} for name, survey in self.surveys.items()
        }

    @property
    def blocks(self) -> dict[str, dict[str, int]]:
        """Counts by stage and state: the sum over the stage's passes."""
        sums: dict[str, dict[str, int]] = {}
        for name, counts in self.tasks.items():
            stage = sums.setdefault(name.partition("/")[0], dict.fromkeys(counts, 0))
            for state, count in counts.items():
                stage[state] += count
        return sums

    def noted(self, stage: str, sweep: str, key: str) -> Iterator[Any]:
        """One entry of the receipts of all blocks of a stage's passes that begin so."""
        for name, survey in self.surveys.items():
            if name.startswith(f"{stage}/{sweep}"):
                for index in survey.current.keys() - survey.masked:
                    summary = survey.task.stage.site.summary(BlockRef(name, index))
                    if key in summary:
                        yield summary[key]
