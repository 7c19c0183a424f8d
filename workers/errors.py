"""Errors of execution. Whether trying again can help is part of the type.

WorkError
├── Retryable     the same attempt may succeed later: full disk, stale mount, memory
├── Poison        the same attempt will fail again: bad data, a bug; quarantined until `retry`
├── RunLocked     another run holds the directory
├── Fenced        a newer run took the directory over; this worker must stop
└── JournalDamaged   a record in the middle of a journal does not match its checksum

Every error says what happened, where, and the way out: three lines for a person.
"""

from __future__ import annotations


class WorkError(Exception):
    """Base of every error neurotile raises on purpose: what, where, way out."""

    def __init__(self, what: str, *, where: str = "", way_out: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.way_out = way_out

    def __str__(self) -> str:
        """Three lines: what, where, the way out; lines without content are left out."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.way_out:
            lines.append(f"  way out: {self.way_out}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.way_out))


def _rebuild(kind: type[WorkError], what: str, where: str, way_out: str) -> WorkError:
    return kind(what, where=where, way_out=way_out)


class Retryable(WorkError):
    """The same attempt may succeed later."""


class Poison(WorkError):
    """The same attempt will fail again."""


class RunLocked(WorkError):
    """Another run holds the directory."""


class Fenced(WorkError):
    """A newer run took the directory over; this worker must stop without writing."""


class JournalDamaged(WorkError):
    """A record that is not the torn tail of a journal fails its checksum."""
