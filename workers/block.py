"""A block of work, as far as the workers need to know it: a task's name and an index in its grid."""

from __future__ import annotations

from dataclasses import dataclass

Index = tuple[int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class BlockRef:
    """One block of one task. A task is written `stage/pass`."""

    task: str
    index: Index

    @property
    def label(self) -> str:
        """The index as people type it: `1.0.2`."""
        return ".".join(str(i) for i in self.index)

    def __str__(self) -> str:
        return f"{self.task}:{self.label}"


def parse_index(label: str) -> Index:
    """The index behind a label such as `1.0.2`."""
    z, y, x = (int(part) for part in label.split("."))
    return (z, y, x)
