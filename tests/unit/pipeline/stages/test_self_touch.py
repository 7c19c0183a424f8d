"""Self-touches are corrected alike on every grid: as on whole arrays, whatever the block, the rounds and the guards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import LAYER, ROI

from models.mean_embeddings import Judged
from models.spec import WeightsSpec
from pipeline.errors import ConfigError, WrongVoxelSize
from pipeline.geometry import Box, Index
from pipeline.ops.contacts import contacts
from pipeline.ops.grow import grown_block
from pipeline.ops.patches import Coarse
from pipeline.ops.region_graph import Place
from pipeline.ops.relabel import rename
from pipeline.ops.resample import mean_image
from pipeline.ops.self_touch import ABSTAINED, APART, MERGE, REFUSED
from pipeline.stages.contacts import Contacts
from pipeline.stages.cut import Cut
from pipeline.stages.judge import Judge
from pipeline.stages.relabel import Relabel
from pipeline.stages.self_touch import SelfTouch
from pipeline.volumes import digest

GRIDS = [(24, 40, 40), (8, 16, 12), (6, 20, 10), (12, 20, 20)]
HIDDEN = ((0, 1, 0), (1, 0, 1))
NET: dict[str, Any] = {
    "architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 5, "background": 1}, "crop": [1, 2, 2]},
    "offsets": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "voxel_size_nm": (30.0, 12.0, 12.0),
    "patch": (8, 20, 20),
    "stride": (4, 10, 10),
    "delta": 1.5,
}
WINDOW: Index = (3, 8, 8)
ON: dict[str, Any] = {"enabled": True, "theta_self_contact": 0.1, "min_contact_edges": 2, "window": WINDOW}
ON |= {"min_voxels": 3, "theta_d": 0.5}
IMAGE = np.random.default_rng(3).integers(0, 256, LAYER.shape).astype(np.uint8)


def facts(**fields: Any) -> dict[str, Any]:
    spec = WeightsSpec(**{**NET, **fields})
    return {"self_touch_weights": {"sha256": "0" * 64, "spec": spec.to_json(), "patch": list(spec.patch)}}


def distance_of(patch_ZYX: np.ndarray, sides_ZYX: np.ndarray) -> float:
    """A stand-in for the network: grey values in the middle of the patch."""
    begin = [p // 2 - w // 2 for p, w in zip(patch_ZYX.shape, sides_ZYX.shape, strict=True)]
    window = patch_ZYX[tuple(slice(b, b + w) for b, w in zip(begin, sides_ZYX.shape, strict=True))]
    one, two = (window[sides_ZYX == side] for side in (1, 2))
    return abs(float(one.mean() - two.mean())) / 16 if one.size and two.size else float("nan")


def stand_in(self: Judge, candidates: Any) -> Judged:
    voxels = [[int((c.sides_ZYX == side).sum()) for side in (1, 2)] for c in candidates]
    distance = [distance_of(c.patch_ZYX, c.sides_ZYX) for c in candidates]
    sections = np.zeros((len(voxels), 5, 16, 16), np.float16)
    return Judged(np.array(voxels, np.int64).reshape(-1, 2), np.array(distance), sections)


@pytest.fixture
def healed(chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(Judge, "judge", stand_in)

    def build(block: Index, **sections: Any) -> Any:
        own = {**ON, **sections.pop("self_touch", {})}
        return chain(block, facts=sections.pop("facts", facts()), image=IMAGE, self_touch=own, **sections)

    return build


# ---- the same on whole arrays --------------------------------------------------------------------------------------
def places(done: Any, names: tuple[np.ndarray, np.ndarray], steps: int) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """Contacts of segments, from relabelled voxels in one block: score, edges, name, point."""
    grown = grown_block(done.fragments(), ROI, ROI, steps)
    labels, place = rename(grown.labels_ZYX, *names), Place(ROI.begin, LAYER.shape)
    codes, table = done.predict.codes_CZYX, done.predict.code_table
    edges = grown.edges_ZYX if steps else None
    rows = contacts(labels, codes, {}, code_table=table, place=place, internal=0, grown_ZYX=edges).closed
    found: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    for a, b, name, sums in zip(rows.a.tolist(), rows.b.tolist(), rows.name.tolist(), rows.sums.tolist(), strict=True):
        count, total, position, grown_edges = sum(sums[:3]), sums[3], sums[4:7], sums[8]
        if count >= ON["min_contact_edges"]:
            scored = count - grown_edges
            point = tuple((2 * p + count) // (2 * count) for p in position)
            score = total / scored if scored else 0.0
            found.setdefault((a, b), []).append((score, scored, -name, point, total))
    return found


def decided(done: Any, names: tuple[np.ndarray, np.ndarray], steps: int) -> list[tuple[Any, ...]]:
    """s1, s2, point, contacts, sum, edges, voxels, distance: a row for every candidate."""
    labels = np.zeros(LAYER.shape, np.uint64)
    labels[ROI.slices()] = rename(done.fragments(), *names)
    coarse, rows = Coarse(LAYER.shape, (1, 2, 2)), []
    _, y, x = coarse.shape
    wide = np.pad(mean_image(IMAGE[:, : 2 * y, : 2 * x], (1, 2, 2)), 30, mode="reflect")
    small = np.pad(labels[:, : 2 * y : 2, : 2 * x : 2], 30)
    for (a, b), found in sorted(places(done, names, steps).items()):
        score, edges, _, point, total = max(found)
        if len(found) < 2 or not score > 65535 * ON["theta_self_contact"]:
            continue
        middle = [min(p // f, n - 1) + 30 for p, f, n in zip(point, (1, 2, 2), coarse.shape, strict=True)]
        patch, window = (
            volume[tuple(slice(m - e // 2, m - e // 2 + e) for m, e in zip(middle, extent, strict=True))]
            for volume, extent in ((wide, NET["patch"]), (small, WINDOW))
        )
        sides = np.where(window == a, 1, np.where(window == b, 2, 0))
        voxels = [int((sides == side).sum()) for side in (1, 2)]
        rows.append((a, b, *point, len(found), total, edges, *voxels, distance_of(patch, sides)))
    return rows


def rows_of(table: dict[str, np.ndarray], number: int) -> list[tuple[Any, ...]]:
    columns = [table[name].tolist() for name in ("s1", "s2", "z", "y", "x", "contacts", "score_sum", "edges")]
    columns += [table[name].tolist() for name in ("voxels_1", "voxels_2", "distance")]
    rows = zip(zip(*columns, strict=True), table["round"].tolist(), strict=True)
    return [row for row, which in rows if which == number]


def names_of(done: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the merge tree makes of fragments, from the labels of a run without corrections."""
    pairs = np.unique(np.stack([done.fragments().ravel(), done.segmentation().ravel()]), axis=1)
    return pairs[0][pairs[0] != 0], pairs[1][pairs[0] != 0]


@pytest.mark.parametrize(("hidden", "steps"), [((), 0), (HIDDEN, 2)])
def test_every_grid_gives_the_answer_of_whole_arrays(
    healed: Callable[..., Any], chain: Callable[..., Any], hidden: Any, steps: int
) -> None:
    plain = chain((24, 40, 40), hidden=hidden).run()
    names, labels, tables = names_of(plain), [], []
    expected = decided(plain, names, steps)
    for block in GRIDS[:3]:
        done = healed(block, hidden=hidden, contacts={"expand_xy": steps}).run()
        table = done.stage(SelfTouch).decisions()
        tables.append({name: column.tobytes() for name, column in table.items()})
        labels.append(digest(done.segmentation()))
        assert repr(rows_of(table, 1)) == repr(expected), block
    assert len(set(labels)) == 1
    assert all(other == tables[0] for other in tables)
    assert len(expected) > 8
    assert {APART, MERGE} <= set(table["decision"].tolist())
    check_labels(plain, done, table)


def check_labels(plain: Any, done: Any, table: dict[str, np.ndarray]) -> None:
    """Segments that were merged have one name, the smallest; everything else is as before."""
    merged = table["decision"] == MERGE
    parent: dict[int, int] = {}

    def root(name: int) -> int:
        return root(parent[name]) if name in parent else name

    for a, b in zip(table["s1"][merged].tolist(), table["s2"][merged].tolist(), strict=True):
        low, high = sorted((root(a), root(b)))
        if low != high:
            parent[high] = low
    before = plain.segmentation()
    expected = np.array([root(name) for name in before.ravel().tolist()], np.uint64).reshape(before.shape)
    np.testing.assert_array_equal(done.segmentation(), expected)
    assert not np.array_equal(expected, before)


def test_later_rounds_start_from_what_was_merged(healed: Callable[..., Any], chain: Callable[..., Any]) -> None:
    plain = chain((24, 40, 40)).run()
    names, twice = names_of(plain), {"rounds": 2}
    tables = [healed(block, self_touch=twice).run().stage(SelfTouch).decisions() for block in (GRIDS[1], GRIDS[3])]
    assert all(np.array_equal(tables[0][name], tables[1][name], equal_nan=name == "distance") for name in tables[0])
    once = healed(GRIDS[0]).run()
    after = rename(names[1], *once.stage(SelfTouch).united())
    expected = decided(plain, (names[0], after), 0)
    assert expected
    assert repr(rows_of(tables[0], 2)) == repr(expected)
    assert (np.diff(tables[0]["round"].astype(int)) >= 0).all()


def test_without_a_tree_fragments_are_what_is_merged_as_far_as_guards_let_them(healed: Callable[..., Any]) -> None:
    none: dict[str, Any] = {"agglomerate": {"score": "none"}, "self_touch": {"theta_d": 6.0, "min_voxels": 1}}
    free = healed((24, 40, 40), **none).run()
    assert [stage.name for stage in free.stages] == ["fragments", "contacts", "self_touch", "relabel"]
    assert not np.array_equal(free.segmentation(), free.fragments())
    names, counts = (found.tolist() for found in np.unique(free.fragments(), return_counts=True))
    sizes, table = dict(zip(names, counts, strict=True)), free.stage(SelfTouch).decisions()
    merged = table["decision"] == MERGE
    pairs = zip(table["s1"][merged].tolist(), table["s2"][merged].tolist(), strict=True)
    limit = max(sizes[a] + sizes[b] for a, b in pairs) - 1
    results = []
    for block in GRIDS[:2]:
        done = healed(block, guards={"largest_vx": limit}, **none).run()
        results.append((digest(done.segmentation()), done.stage(SelfTouch).decisions()["decision"].tolist()))
    assert results[0] == results[1]
    assert {MERGE, REFUSED} <= set(results[0][1])


def test_a_block_needs_what_it_reads(healed: Callable[..., Any], reads: Callable[..., Any]) -> None:
    done = healed((12, 20, 10), hidden=HIDDEN, contacts={"expand_xy": 1}, guards={"largest_vx": 10**9})

    def checked(stage: Any, sweep: str, index: Index) -> Any:
        inputs, found = reads(done, stage, sweep, index)
        if isinstance(stage, SelfTouch | Contacts | Cut | Relabel):
            assert found <= set(stage.needs(sweep, index)), (stage.task(sweep), index)
        made = {ref for ref in stage.needs(sweep, index) if ref.task.split("/")[0] not in ("predict", "resample")}
        assert made <= done.parts.keys()
        return inputs

    done.run(checked)
    stage = done.stage(SelfTouch)
    empty = [index for index in stage.grids[0] if stage._fragments.empty(0, index)]
    assert empty
    assert not any(stage.masked("decide", index) for index in empty), "a point may lie between fragments"
    for stage, sweep, index in done.tasks():
        if isinstance(stage, SelfTouch) and not stage.masked(sweep, index):
            again = stage.write(sweep, index, stage.compute(stage.read(sweep, index)))
            assert dict(stage.reread(sweep, index)) == dict(again.parts)


def test_everything_masked_has_nothing_to_merge(healed: Callable[..., Any]) -> None:
    every = tuple((z, y, x) for z in range(2) for y in range(2) for x in range(2))
    done = healed((6, 20, 10), hidden=every).run()
    assert not done.segmentation().any()
    assert done.stage(SelfTouch).decisions() == {}


def test_abstains_where_there_is_too_little(healed: Callable[..., Any]) -> None:
    done = healed((24, 40, 40), self_touch={"min_voxels": 10**6}).run()
    assert set(done.stage(SelfTouch).decisions()["decision"].tolist()) == {ABSTAINED}


def test_off_nothing_changes(chain: Callable[..., Any]) -> None:
    plain = chain((8, 16, 12))
    assert [stage.name for stage in plain.stages] == ["fragments", "region_graph", "agglomerate", "relabel"]
    assert plain.stage(Relabel).content() == {"threshold": 0.55}


def test_where_it_runs(healed: Callable[..., Any]) -> None:
    stage = healed((8, 16, 12)).stage(SelfTouch)
    pools = {sweep.name: stage.pool_of(sweep.name) for sweep in stage.passes()}
    assert pools == {"up0": "cpu", "up1": "cpu", "up2": "cpu", "decide": "gpu", "unite": "cpu"}
    assert stage.device_class("up0") is None
    assert stage.device_class("decide")
    assert stage.memory_bytes("decide") > stage.memory_bytes("unite") > 0


def test_what_cannot_be_judged_is_refused(healed: Callable[..., Any]) -> None:
    affinities = {"architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}}, "delta": None}
    for given, kind, told in (
        ({"facts": facts(**affinities)}, ConfigError, "no head 'embedding'"),
        ({"self_touch": {"window": (7, 8, 8)}}, ConfigError, "does not fit"),
        ({"facts": facts(voxel_size_nm=(30.0, 3.0, 3.0))}, WrongVoxelSize, "not a whole multiple"),
    ):
        with pytest.raises(kind, match=told):
            healed((24, 40, 40), **given).stage(SelfTouch).passes()


def test_the_reach_is_bounded_by_the_block(healed: Callable[..., Any]) -> None:
    stage = healed((8, 16, 12)).stage(SelfTouch)
    box = stage.box("decide", (0, 0, 0))
    assert stage._seen(box, NET["patch"]).voxels <= Box.of_shape((8 + 18, 16 + 84, 12 + 84)).voxels
