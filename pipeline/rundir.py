"""The run directory: where everything of a run stands.

RUN/run.json          resolved config, facts about inputs and weights, versions
RUN/device            class of device that the network runs on
RUN/fence/            who runs, and the epoch
RUN/journals/         receipts, one file per process that writes them
RUN/events.jsonl      what happened, one line each
RUN/status.json       how it stands, rewritten whole; status.html is the same for people
RUN/report.html       the result
RUN/data/             outputs of the stages, under their content and layout hash
RUN/failed/           a bundle for every failed block
RUN/logs/             output of the workers
RUN/origin.json       of a derived run: what it was made from
RUN/*.zarr            the products, as links to their data
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from workers.files import write_atomically

FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    root: Path

    @property
    def fence(self) -> Path:
        """Locks and epoch."""
        return self.root / "fence"

    @property
    def journals(self) -> Path:
        """Receipts."""
        return self.root / "journals"

    @property
    def data(self) -> Path:
        """Outputs of the stages."""
        return self.root / "data"

    @property
    def failed(self) -> Path:
        """Bundles of failed blocks."""
        return self.root / "failed"

    @property
    def logs(self) -> Path:
        """Output of the workers."""
        return self.root / "logs"

    @property
    def record(self) -> Path:
        """The run's own description."""
        return self.root / "run.json"

    @property
    def events(self) -> Path:
        """What happened."""
        return self.root / "events.jsonl"

    @property
    def status(self) -> Path:
        """How it stands."""
        return self.root / "status.json"

    @property
    def report(self) -> Path:
        """The result, as a page."""
        return self.root / "report.html"

    def save(self, record: dict[str, Any]) -> None:
        """Write run.json, whole or not at all."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.record, json.dumps({"format": FORMAT, **record}, indent=1).encode())

    @property
    def device(self) -> Path:
        """The class of device of the first worker that ran the network."""
        return self.root / "device"

    def settle_device(self, device_class: str) -> str:
        """The class of device that this run's network runs on: the first to ask decides."""
        fresh = self.device.with_name(f"device.partial-{os.getpid()}-{os.urandom(4).hex()}")
        write_atomically(fresh, device_class.encode())
        with suppress(FileExistsError):
            os.link(fresh, self.device)
        fresh.unlink()
        return self.device.read_text()

    def refuse_foreign(self) -> None:
        """A run starts in a folder of its own: what is there and is no run's must never be touched."""
        if self.exists() or not self.root.exists():
            return
        if not self.root.is_dir():
            raise ConfigError("this is not a folder", where=str(self.root), way_out="choose another --out")
        others = sorted({p.name for p in self.root.iterdir()} - {"fence", "device"})
        if others:
            raise ConfigError(
                f"this folder is not empty and holds no run; it has {', '.join(others[:5])}",
                where=str(self.root),
                way_out="choose another --out, or empty the folder",
            )

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self.record.exists()

    def load(self) -> dict[str, Any]:
        """Read run.json."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_bytes())
        except FileNotFoundError:
            raise ConfigError(
                "there is no run in this folder", where=str(self.root), way_out="give the folder that `run` wrote"
            ) from None
        except ValueError as error:
            raise ConfigError(f"run.json cannot be read: {error}", where=str(self.record)) from None
        if record.get("format") != FORMAT:
            raise ConfigError(
                f"this run has format {record.get('format')}, this version of neurotile reads {FORMAT}",
                where=str(self.record),
                way_out="use the version that made it; run.json names it",
            )
        return record
