"""Classes on files: one answer on every grid, needs that are the reads, and no trace of them where there is no mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse
from pipeline.errors import ConfigError, InputError, WrongShape, WrongVoxelSize
from pipeline.ops.classes import CONFLICT
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.classes import ClassVotes
from pipeline.stages.relabel import Relabel

GRIDS = [(24, 40, 40), (8, 16, 12), (6, 20, 10)]
HIDDEN = ((0, 1, 0), (1, 0, 1))
SHAPE = (26, 22, 23)  # of a mask at half the resolution along y and x; the layer has 26 x 44 x 45
PM = (30000, 12000, 12000)
LOW = {"floor": 0.0}, {"threshold": 0.02}  # nearly everything would merge

Build = Callable[..., Any]


@pytest.fixture
def classed(chain: Build, tmp_path: Path) -> Build:
    """`classed(block, classes_ZYX, share=0.5)`: the stages with a class mask."""

    def build(
        block: Any,
        classes_ZYX: np.ndarray | None = None,
        pm: tuple[int, int, int] = PM,
        share: float = 0.5,
        **sections: Any,
    ) -> Any:
        classes_ZYX = random_classes() if classes_ZYX is None else classes_ZYX
        path = tmp_path / "classes.npy"
        np.save(path, classes_ZYX)
        facts = {"masks": [{"fingerprint": "ab", "shape": list(classes_ZYX.shape), "voxel_size_pm": list(pm)}]}
        agglomerate, relabel = LOW
        low = {"agglomerate": agglomerate, "relabel": relabel, **sections}
        return chain(block, facts=facts, mask=[{"path": str(path), "role": "class", "share": share}], **low)

    return build


def random_classes() -> np.ndarray:
    """Patches of two classes, and a third of the volume without."""
    rng = np.random.default_rng(5)
    coarse = rng.choice([0, 0, 3, 250], (4, 3, 3))
    for axis in range(3):
        coarse = coarse.repeat(8, axis)
    return coarse[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.int32)


def slow_classes(done: Any, classes_ZYX: np.ndarray, percent: int) -> dict[int, int]:
    """The vote over the whole volume."""
    roi = done.predict.site.layer.roi
    fine = classes_ZYX.repeat(2, 1).repeat(2, 2)[roi.slices()]
    labels, found = done.fragments(), {}
    for name in np.unique(labels[labels > 0]).tolist():
        kinds, votes = np.unique(fine[labels == name], return_counts=True)
        best = max(zip(votes[kinds > 0].tolist(), (-kinds[kinds > 0]).tolist(), strict=True), default=(0, 0))
        if best[0] and 100 * best[0] >= percent * votes.sum():
            found[name] = -best[1]
    return found


def classes_of(done: Any) -> dict[int, int]:
    stage, found = done.stage(ClassVotes), {}
    for index in stage.grids[0]:
        own = stage.read_classes(index)
        found |= dict(zip(own.name.tolist(), own.kind.tolist(), strict=True))
    return found


def tree_of(done: Any) -> list[tuple[float, ...]]:
    stage, rows = done.stage(Agglomerate), []
    for sweep in stage.passes():
        for index in sweep.grid:
            if not stage.masked(sweep.name, index):
                merges = stage.tables(sweep.name, index, "merges")["merges"]
                rows += zip(*(merges[name].tolist() for name in ("score", "a", "b", "kind")), strict=True)
    return sorted(rows)


def summed(done: Any, task: str, key: str) -> int:
    return sum(s[key] for ref, s in done.summaries.items() if ref.task.startswith(task) and key in s)


@pytest.mark.parametrize(("hidden", "share"), [((), 0.5), (HIDDEN, 0.8)])
def test_every_grid_gives_the_same_classes_tree_and_labels(classed: Build, hidden: Any, share: float) -> None:
    answers = []
    for block in GRIDS:
        done = classed(block, share=share, hidden=hidden).run()
        apart, refused = (
            summed(done, task, key) for task, key in (("agglomerate", "apart"), ("relabel", "conflicting"))
        )
        answers.append((classes_of(done), tree_of(done), apart, refused, done.segmentation().tobytes()))
    assert answers[0] == answers[1] == answers[2]
    classes, tree, apart, refused, _ = answers[0]
    assert classes == slow_classes(done, random_classes(), round(100 * share))
    assert set(classes.values()) == {3, 250}
    assert apart > 0
    assert refused == sum(kind == CONFLICT and score > 0.02 * 65535 for score, _, _, kind in tree) > 0
    held: dict[int, set[int]] = {}
    for name, segment in set(zip(done.fragments().ravel().tolist(), done.segmentation().ravel().tolist(), strict=True)):
        held.setdefault(segment, set()).add(classes.get(name, 0))
    assert max(len(kinds - {0}) for kinds in held.values()) == 1
    objects = done.stage(Relabel).largest_objects()
    assert objects.kind.tolist() == [max(held[name]) for name in objects.name.tolist()]


def test_without_the_guard_classes_meet_through_fragments_that_have_none(classed: Build) -> None:
    done = classed((8, 16, 12), guards={"conflicting_classes": False}).run()
    assert summed(done, "relabel", "conflicting") == 0
    assert CONFLICT in done.stage(Relabel).largest_objects().kind.tolist()
    guarded = classed((8, 16, 12)).run()
    assert guarded.stage(Agglomerate).folder == done.stage(Agglomerate).folder, "the guard cuts, it does not build"
    assert guarded.stage(Relabel).identity != done.stage(Relabel).identity
    assert np.unique(guarded.segmentation()).size > np.unique(done.segmentation()).size


@pytest.mark.parametrize("block", [(6, 20, 10), (24, 40, 40)])
def test_needs_are_exactly_the_blocks_that_are_read(classed: Build, reads: Build, block: Any) -> None:
    made = classed(block, hidden=HIDDEN if block[0] == 6 else ())

    def checked(stage: Any, sweep: str, index: Any) -> Any:
        inputs, found = reads(made, stage, sweep, index)
        assert sorted(stage.needs(sweep, index)) == sorted(found), (stage.task(sweep), index)
        return inputs

    made.run(checked)


def test_without_a_class_mask_nothing_changes(chain: Build, classed: Build) -> None:
    plain = chain((8, 16, 12), agglomerate=LOW[0], relabel=LOW[1], guards={"conflicting_classes": True})
    assert not [stage for stage in plain.stages if isinstance(stage, ClassVotes)]
    same = chain((8, 16, 12), agglomerate=LOW[0], relabel=LOW[1], guards={"conflicting_classes": False})
    assert [stage.identity for stage in plain.stages] == [stage.identity for stage in same.stages]
    assert plain.stage(Agglomerate).upstream() == (plain.stage(Agglomerate).graph,)
    assert plain.stage(Relabel).content() == {"threshold": 0.02}
    masked = classed((8, 16, 12))
    assert masked.stage(Agglomerate).graph.identity == plain.stage(Agglomerate).graph.identity
    assert masked.stage(Agglomerate).identity != plain.stage(Agglomerate).identity
    done = plain.run()
    stored = done.stage(Agglomerate).tables("up0", (0, 0, 0), "nodes", "merges", "fragments")
    assert not [section for section, table in stored.items() if "kind" in table]
    assert "kind" not in done.stage(Relabel).tables("blocks", (0, 0, 0), "objects")["objects"]


def test_masks_that_do_not_fit_are_refused(classed: Build) -> None:
    wrong = random_classes()
    wrong[9, 4, 5] = 256
    with pytest.raises(InputError, match=r"voxel \(9, 4, 5\) of the class mask holds 256; classes are 1 to 255"):
        classed((24, 40, 40), wrong).run()
    with pytest.raises(WrongShape, match="covers"):
        classed((24, 40, 40), random_classes()[:20]).run()
    with pytest.raises(WrongVoxelSize, match="no whole multiple"):
        classed((24, 40, 40), pm=(30000, 9000, 12000)).run()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"mask": [{"path": "a.npy", "role": "class"}] * 2}, "give one mask"),
        ({"mask": [{"path": "a.npy", "role": "class"}], "agglomerate": {"score": "none"}}, "merges none"),
        ({"mask": [{"path": "a.npy", "share": 0.4}]}, 'role = "skip"'),
        ({"mask": [{"path": "a.npy", "names": {"1": "soma"}}]}, 'role = "skip"'),
        ({"mask": [{"path": "a.npy", "role": "class", "names": {"256": "soma"}}]}, "less than or equal to 255"),
        ({"mask": [{"path": "a.npy", "role": "class", "share": 0.3333}]}, "three decimals"),
    ],
)
def test_configs_that_mean_nothing_are_refused(sections: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse({"input": {"synthetic": {}}, **sections}, where="test")
