"""CPU workers never import torch: where it cannot be imported, they still work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_cpu_workers_run_without_torch(
    fresh_demo: tuple[Path, dict[str, Any]], neurotile: Callable[..., Any], tmp_path: Path
) -> None:
    root, _ = fresh_demo
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text("raise ImportError('torch was imported')\n")
    without = {"PYTHONPATH": str(tmp_path / "site")}
    for task in ("resample/blocks", "fragments/up0", "region_graph/blocks", "agglomerate/up0", "relabel/blocks"):
        result = neurotile("worker", root, task, "--block", "0.1.0", **without)
        assert result.returncode == 0, result.stderr
    refused = neurotile("worker", root, "predict/blocks", "--block", "0.0.0", **without)
    assert refused.returncode != 0
    assert "torch was imported" in refused.stderr
