"""The report: whole for a finished run, and written for any other; only what is stored and current is shown."""

from __future__ import annotations

import base64
import html
import json
import re
import tomllib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.spec import smooth_code_table
from pipeline.config import parse
from pipeline.outcome import Outcome
from pipeline.plan import Plan, build
from pipeline.progress import FailureStatus, Status, TaskStatus
from pipeline.report import write_report
from pipeline.rundir import RunFolder
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel
from pipeline.stages.resample import Resample
from pipeline.stages.sweep import Sweep
from pipeline.stages.synthesize import Synthesize
from pipeline.tables import write_tables
from pipeline.work import Survey
from workers.block import BlockRef
from workers.receipts import Failure

SHAPE = (8, 32, 16)  # of the layer, in blocks of 8 x 16 x 16
SCORES = {
    "voi_split": 0.25,
    "voi_merge": 0.5,
    "voi": 0.75,
    "voi_split_nats": 0.1733,
    "voi_merge_nats": 0.3466,
    "voi_nats": 0.5199,
    "arand": 0.0625,
    "precision": 0.97,
    "recall": 0.91,
    "truth_objects": 12,
    "segments": 34,
    "voxels": 4096,
}
OBJECTS_COLUMNS = ("name", "voxels", "score", "tie", "voxels_a", "voxels_b")
SPEC = {
    "architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
    "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "voxel_size_nm": [30.0, 12.0, 12.0],
    "patch": [4, 16, 16],
    "stride": [3, 12, 12],
    "code_table": list(smooth_code_table()),
    "normalisation": "u8/255",
    "training": {"steps": 400, "note": "<b>bold</b>"},
    "sha256": "5f" * 32,
    "format": 1,
}


def facts(*, truth: bool = True) -> dict[str, Any]:
    image = {
        "fingerprint": "synthetic",
        "shape": [8, 64, 32],
        "voxel_size_pm": [30_000, 6_000, 6_000],
        "dtype": "uint8",
    }
    weights = {"sha256": "5f" * 32, "spec": SPEC, "patch": SPEC["patch"]}
    found = {"image": image, "truth": {**image, "dtype": "uint64"} if truth else None}
    return {**found, "masks": [], "weights": weights, "override_weights": []}


CONFIG: dict[str, Any] = {
    "input": {"synthetic": {"seed": 7, "size": [8, 64, 32], "voxel_size_nm": [30.0, 6.0, 6.0]}},
    "predict": {"block": [8, 16, 16]},
    "blocks": {"shape": [8, 16, 16], "chunk": [8, 16, 16]},
}


@dataclass
class Fake:
    """A run that never ran: its plan is real, its arrays are written here, its surveys say what a test wants."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    truth: bool = True
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parsed = parse({**CONFIG, **self.config}, where="test")
        self.folder = RunFolder(self.root)
        known = facts(truth=self.truth)
        self.plan: Plan = build(self.parsed, known, self.folder.data, lambda ref: self.summaries[ref.task])
        self.outcome = Outcome(self.folder, self.plan)
        for task in self.plan.tasks:
            self.outcome.surveys[task.name] = Survey(task)
        versions = {"python": "3.11.2", "neurotile": "0.1.0"}
        record = {"config": self.parsed.model_dump(mode="json"), "facts": known, "versions": versions}
        self.folder.save(record)
        self.folder.settle_device("cpu-avx2")

    def finish(self) -> Fake:
        """Everything is done."""
        for name, survey in self.outcome.surveys.items():
            survey.current = {index: "digest" for index in survey.task.sweep.grid}
            self.summaries[name] = {"fragments": 0, "merged": 0, "voxels": 0}
        self.summaries["agglomerate/up0"] = {"fragments": 20}
        self.summaries["relabel/down1"] = {"merged": 7}
        self.summaries["relabel/blocks"] = {"merged": 0, "voxels": 1500}
        self.summaries["evaluate/total"] = SCORES
        tasks = [TaskStatus(t.name, "cpu", t.sweep.grid.shape, t.sweep.grid.count) for t in self.plan.tasks]
        for task in tasks:
            task.seconds = 12.0
            self.outcome.executed[task.task] = task.total
        self.outcome.status = Status(str(self.root), 4, "done", seconds=83.0, tasks=tasks)
        self._store()
        return self

    def _store_tree(self) -> None:
        """A sweep of two thresholds, and two objects, one of which has a bridge."""
        stage = self.plan.find(Sweep)
        measures = {name: np.array([0.5, 0.25]) for name in ("voi_split", "voi_merge", "voi", "arand")}
        table = {"threshold": np.array([0.1, 0.4]), **measures, "segments": np.array([12, 34])}
        if stage is not None:
            write_tables(stage.table_path("total", (0, 0, 0)), {"sweep": table})
        relabel = self.plan.stage(Relabel)
        bridged = ([7], [1024], [32767.5], [1 << 58 | 2 * 32 * 16 + 5 * 16 + 9], [1000], [24])
        single = ([9], [400], [0], [0], [400], [0])
        for sweep in relabel.passes():
            for index in sweep.grid:
                values = bridged if sweep.name == "down1" else single
                dtypes = (np.uint64, np.int64, np.float64, np.uint64, np.int64, np.int64)
                columns = zip(OBJECTS_COLUMNS, values, dtypes, strict=True)
                objects = {name: np.array(value, dtype) for name, value, dtype in columns}
                write_tables(relabel.table_path(sweep.name, index), {"objects": objects})

    def _store(self) -> None:
        """Values that pictures and tables can be checked by."""
        self._store_tree()
        for kind in (Synthesize, Resample, Predict, Relabel):
            stage: Any = self.plan.stage(kind)
            stage.prepare()
            for index in stage.sweep("blocks").grid:
                box = stage.sweep("blocks").grid.block_box(index)
                if kind is Synthesize:
                    stage.image.write(box, np.full(box.shape, 10, np.uint8))
                    stage.truth.write(box, np.full(box.shape, 3 + index[1], np.uint64))
                elif kind is Resample:
                    stage.image.write(box, np.full(box.shape, 100 + 50 * index[1], np.uint8))
                elif kind is Predict:
                    stage.affinities.write(box, np.full((3, *box.shape), 255, np.uint8))
                else:
                    stage.labels.write(box, np.full(box.shape, 77 + index[1], np.uint64))

    def fail(self, task: str, index: tuple[int, int, int]) -> None:
        survey = self.outcome.surveys[task]
        survey.current.pop(index)
        survey.failed[index] = Failure(4, "ValueError", "<i>bad</i>\n  where: here", False, "failed/x", "key")
        if self.outcome.status is not None:
            self.outcome.status.state = "failed"
            told = FailureStatus(
                task, BlockRef(task, index).label, "ValueError", "<i>bad</i>", False, "", "neurotile worker"
            )
            self.outcome.status.failures.append(told)

    def page(self) -> str:
        path = write_report(self.outcome)
        assert path == self.root / "report.html"
        page = path.read_text()
        assert "<script" not in page
        assert not re.search(r'(src|href)="(?!data:)', page)
        return page


def pictures(page: str) -> dict[str, np.ndarray]:
    found = re.findall(r'<img alt="(\w+), (\w\w) [^"]*"[^>]*src="data:image/png;base64,([^"]*)"', page)
    return {f"{name} {plane}": np.asarray(Image.open(BytesIO(base64.b64decode(data)))) for name, plane, data in found}


@pytest.fixture
def done(tmp_path) -> Fake:
    return Fake(tmp_path / "run").finish()


def test_a_finished_run_shows_everything(done):
    page = done.page()
    assert "not available" not in page
    for told in (
        "Done: every block is done or masked",
        "run number 4 in this folder took 1 min 23 s",
        "Labels do not depend on blocks, workers or executor",
        "on one device class (cpu-avx2).",
        "33 segments, made of 40 fragments; they hold 3,000 of 4,096 voxels",
        "<b>0.2500</b>VOI split, bits<br><small>0.1733 nats</small>",
        "<b>0.7500</b>VOI sum, bits",
        "<b>0.0625</b>ARAND<br><small>precision 0.9700, recall 0.9100</small>",
        "12 true objects and 34 segments",
        "mean-affinity agglomeration is exact",
        "<td>0.4</td><td>0.2500</td><td>0.2500</td><td>0.2500</td><td>0.2500</td><td>34</td><td>best</td>",
        "<td>0.25</td><td>0.2500</td><td>0.5000</td><td>0.7500</td>",
        "<td>7</td><td>1,024</td><td>25.00\u00a0%</td><td>0.5000</td><td>1,000 and 24</td><td>2, 5, 9</td>",
        "<td>60, 60, 108</td>",
        "<td>9</td><td>400</td><td>9.77\u00a0%</td><td>one fragment</td>",
        "<td>predict/blocks</td><td>2</td><td>2</td>",
        "8 \u00d7 64 \u00d7 32 voxels of 30 \u00d7 6 \u00d7 6 nm, uint8",
        "5f5f5f5f",
        "&lt;b&gt;bold&lt;/b&gt;",
        done.plan.stage(Relabel).identity[:32],
        f"neurotile verify {done.root}",
        f"neurotile run CONFIG --out {done.root} --update",
        "python 3.11.2",
    ):
        assert told in page


def test_the_pictures_show_what_is_stored(done):
    shown = pictures(done.page())
    names = ("Image", "Affinities", "Boundaries", "Segmentation", "Truth")
    assert set(shown) == {f"{name} {plane}" for name in names for plane in ("xy", "xz")}
    assert shown["Image xy"].shape == (512, 256)
    assert shown["Image xz"].shape == (480, 512)  # 6 x 30 nm by 16 x 12 nm
    assert (shown["Image xy"][:256] == 100).all()
    assert (shown["Image xy"][256:] == 150).all()
    assert (shown["Boundaries xy"] == 255).all()
    segmentation, truth = shown["Segmentation xy"], shown["Truth xy"]
    assert len(np.unique(segmentation[:250].reshape(-1, 3), axis=0)) == 1
    assert np.array_equal(segmentation, truth)  # the same objects: the same colours


def test_the_config_reads_back(done):
    found = re.search(r"Resolved, with all defaults</summary><pre><code>(.*?)</code></pre>", done.page(), re.DOTALL)
    assert found
    assert parse(tomllib.loads(html.unescape(found[1])), where="report") == done.parsed


def test_a_run_that_has_done_nothing(tmp_path):
    fake = Fake(tmp_path / "run")
    for survey in fake.outcome.surveys.values():
        survey.ready = list(survey.task.sweep.grid)
    page = fake.page()
    assert "Stopped before the end" in page
    assert "not done yet: the result is incomplete" in page
    assert "not available: not done" in page
    assert "not available: the evaluation has not been done" in page
    assert f"neurotile run --out {fake.root}" in page
    assert pictures(page) == {}


def test_a_failed_block_is_told_and_hatched(done):
    done.fail("predict/blocks", (0, 1, 0))
    page = done.page()
    assert "1 block failed: the result is incomplete." in page
    assert "&lt;i&gt;bad&lt;/i&gt;" in page
    assert f"neurotile retry {done.root}" in page
    assert "hatched: failed" in page
    boundaries = pictures(page)["Boundaries xy"]
    assert (boundaries[:256] == 255).all()
    assert not (boundaries[256:] == 255).any()


def test_failures_are_found_without_a_status(done):
    done.outcome.status = None
    done.fail("predict/blocks", (0, 1, 0))
    page = done.page()
    assert "Finished with failed blocks" in page
    assert f"neurotile worker {done.root} predict/blocks --block 0.1.0 --debug" in page


def test_accepted_holes_are_told(tmp_path):
    fake = Fake(tmp_path / "run", {"holes": [{"begin": [0, 8, 0], "end": [4, 16, 8]}]}).finish()
    fake.outcome.surveys["predict/blocks"].masked.add((0, 1, 0))
    page = fake.page()
    assert "This result has 1 accepted hole" in page
    assert "[0:4, 8:16, 0:8]" in page
    assert "hatched: masked" in page


def test_without_a_truth_nothing_is_scored(tmp_path):
    page = Fake(tmp_path / "run", truth=False).finish().page()
    assert "Not scored: the config names no truth." in page
    assert "Truth xy" not in pictures(page)
    assert "Segmentation xy" in pictures(page)


def test_scores_that_could_not_be_measured(done):
    done.summaries["evaluate/total"] = {**SCORES, "voi": None, "arand": None}
    assert "<b>undefined</b>VOI sum, bits" in done.page()


@pytest.mark.parametrize("damage", ["journal", "run.json", "data", "gone"])
def test_damage_is_told_and_never_stops_the_report(done, damage):
    if damage == "journal":
        done.summaries.clear()
    elif damage == "run.json":
        done.folder.record.write_text("{")
    elif damage == "gone":
        done.folder.record.unlink()
    else:
        for shard in filter(Path.is_file, done.folder.data.rglob("c/**/*")):
            shard.write_bytes(b"damaged")
    page = done.page()
    assert "not available" in page
    assert json.dumps("How to go on")[1:-1] in page
