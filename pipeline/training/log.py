"""What a training told along the way: a line of JSON for every report, `log.jsonl`.

A training that goes on from step s drops what was told after s: those steps come again. Of two lines about one step
(an evaluation that had to be repeated) the later one counts, where it says anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import durable

Entry = Mapping[str, Any]


class Log:
    """The lines, in memory and in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def begin(self, step: int) -> None:
        """Go on from a step."""
        found: dict[int, dict[str, Any]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                entry = dict(json.loads(line))
                told = int(entry["step"])
            except (ValueError, TypeError, KeyError):
                continue  # torn by a kill
            if told <= step:
                found[told] = {**found.get(told, {}), **entry}
        self.entries = [found[number] for number in sorted(found)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace_file(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries).encode())

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """One more line."""
        entry = {"step": step, **metrics, "time": round(time.time(), 1)}
        if self.entries and self.entries[-1]["step"] == step:
            self.entries[-1] = {**self.entries[-1], **entry}
        else:
            self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    @property
    def seconds(self) -> float:
        """What all steps took, without evaluations."""
        ends = [0, *(entry["step"] for entry in self.entries)]
        paces = [entry.get("seconds_per_step") or 0.0 for entry in self.entries]
        return float(sum((end - begin) * pace for begin, end, pace in zip(ends, ends[1:], paces, strict=False)))

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Steps and values of a metric."""
        return [(entry["step"], float(entry[name])) for entry in self.entries if entry.get(name) is not None]
