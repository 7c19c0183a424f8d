"""The audit: confirms a sound run, and finds stored bytes, methods and faces that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.audit import audit, compare_faces, whole_blocks
from pipeline.geometry import Box, Grid
from pipeline.plan import Plan
from pipeline.rundir import RunFolder
from pipeline.stages.code_source import CodeSource
from pipeline.stages.region_graph import RegionGraph
from pipeline.work import load_plan
from workers.receipts import Receipts

Command = Callable[..., Any]
Demo = tuple[Path, dict[str, Any]]


def plan_of(run: Path) -> Plan:
    folder = RunFolder(run)
    return load_plan(folder, Receipts(folder.journals))


def test_a_sound_run_is_confirmed(small_demo: Demo, neurotile: Command, tmp_path: Path) -> None:
    found = neurotile("audit", small_demo[0], "--json", "--scratch", tmp_path)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["passed"]
    assert told["blocks"] == 8
    assert told["codes"]["differing"] == 0 < told["codes"]["edges"]
    assert 0 < told["segments"] < told["fragments"]
    assert not list(tmp_path.iterdir())  # it cleans up


def test_stored_affinities_that_are_not_the_network_s_are_found(fresh_demo: Demo, neurotile: Command) -> None:
    run, _ = fresh_demo
    source = plan_of(run).stage(CodeSource)
    box = source.code_grid.block_box((0, 0, 0))
    codes = source.affinities.read(box)
    codes[1, 3, 4, 5] ^= 7
    source.affinities.write(box, codes)
    found = neurotile("audit", run)
    assert found.returncode == 3
    assert "1 DIFFER" in found.stderr
    assert "NOT confirmed" in found.stderr


def test_a_method_cut_at_blocks_is_found_at_their_faces(
    small_demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RegionGraph, "before", lambda self, index: iter(()))  # edges across faces are lost
    plan = plan_of(small_demo[0])
    region = whole_blocks(plan, Box((7, 47, 47), (9, 49, 49)))
    assert region == plan.layer.roi
    found = audit(plan, region, tmp_path, recompute=False)
    assert not found.passed
    assert found.differing_segments_vx > 0
    assert {(face.axis, face.position) for face in found.faces} == {(0, 8), (1, 48), (2, 48)}
    assert found.faces[0].differing >= found.faces[-1].differing
    assert found.faces[0].differing > 0


def test_faces_are_measured_by_what_is_joined_across_them() -> None:
    one = np.ones((4, 4, 4), np.uint64)
    other = one.copy()
    other[:, :, 2:] = 5
    other[:2, :, 2:] = 6
    grid = Grid(Box((0, 0, 0), (4, 4, 4)), (4, 4, 2))
    assert [(f.axis, f.position, f.pairs, f.differing) for f in compare_faces(one, other, grid)] == [(2, 2, 16, 16)]
    assert [f.differing for f in compare_faces(one, one * 7, grid)] == [0]


def test_refusals(small_demo: Demo, neurotile: Command) -> None:
    assert "write it as" in neurotile("audit", small_demo[0], "--roi", "1,2,3").stderr
    assert "outside" in neurotile("audit", small_demo[0], "--roi", "900:910,0:1,0:1").stderr
