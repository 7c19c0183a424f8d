"""How a finished run is told: counts, failures with the command that reproduces each, JSON, exit code."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from pipeline.commands.exit_codes import EXIT_DONE, EXIT_FAILED_BLOCKS
from pipeline.outcome import Outcome
from pipeline.report import scores

SHOWN_FAILURES = 10


def exit_code(outcome: Outcome) -> int:
    """0 if every block is done or masked, 3 otherwise."""
    return EXIT_DONE if outcome.complete else EXIT_FAILED_BLOCKS


def totals(outcome: Outcome) -> dict[str, int]:
    """Counts over all tasks."""
    sums = dict.fromkeys(("total", "done", "masked", "failed", "waiting", "pending", "executed"), 0)
    for counts in outcome.blocks.values():
        for name, count in counts.items():
            sums[name] += count
    return sums


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The end of a run for programs."""
    status = outcome.status
    return {
        "run": str(outcome.folder.root),
        "state": status.state if status else "done",
        "complete": outcome.complete,
        "seconds": status.seconds if status else 0.0,
        "blocks": outcome.blocks,
        "tasks": outcome.tasks,
        "totals": totals(outcome),
        "failures": [asdict(f) for f in status.failures] if status else [],
        "scores": dict(scores(outcome)) or None,
        "segmentation": str(outcome.labels) if outcome.complete else None,
        "report": str(outcome.folder.report),
    }


def tell(outcome: Outcome) -> None:
    """The end of a run for people, on stderr."""
    counts = totals(outcome)
    told = [f"{counts['done']:,} of {counts['total']:,} blocks done ({counts['executed']:,} in this run)"]
    told += [f"{counts[name]:,} {name}" for name in ("masked", "failed", "waiting", "pending") if counts[name]]
    lines = [", ".join(told)]
    failures = outcome.status.failures if outcome.status else []
    for failure in failures[:SHOWN_FAILURES]:
        lines.append(f"failed: {failure.task} {failure.block}: {failure.error}: {failure.what}")
        lines.append(f"  reproduce: {failure.command}")
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"... and {len(failures) - SHOWN_FAILURES} more: status.json lists them all")
    if failures:
        lines.append(f"then: neurotile retry {outcome.folder.root}")
    sys.stderr.write("\n".join(lines) + "\n")
