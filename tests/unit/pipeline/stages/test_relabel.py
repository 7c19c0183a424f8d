"""The whole way from codes to labels on files: one answer on every grid, needs that are the reads, honest rereads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.ops.agglomerate import Part, agglomerate
from pipeline.ops.fragments import watershed
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.fragments import Fragments
from pipeline.stages.region_graph import RegionGraph
from pipeline.stages.relabel import Relabel
from pipeline.volumes import digest

GRIDS = [(24, 40, 40), (8, 16, 12), (6, 20, 10), (12, 20, 20)]
HIDDEN = ((0, 1, 0), (1, 0, 1))


def in_memory(codes: np.ndarray, roi: Any, layer_shape: Any, threshold: float) -> np.ndarray:
    """The same answer from the ops alone, as one block."""
    found = watershed(codes, roi, roi, codes=(25, 243), internal=0)
    names, volumes = np.unique(found.labels_ZYX, return_counts=True)
    small = names[volumes < 4]
    labels = rename(found.labels_ZYX, small, np.zeros_like(small))
    place = Place(roi.begin, layer_shape)
    edges = contacts(labels, codes, {}, code_table=np.arange(256) * 257, place=place)
    own = nodes(labels, 0)
    part = Part(roi, own.name, own.mask, edges["inner"], tuple(edges[f"low_{a}"] for a in "zyx"))
    tree = agglomerate([part], roi, floor=0.3 * 65535).tree
    return rename(labels, *segments(tree.a, tree.b, tree.score, threshold * 65535))


@pytest.mark.parametrize("hidden", [(), HIDDEN])
def test_every_grid_gives_the_same_labels(chain: Callable[..., Any], hidden: Any) -> None:
    digests = []
    for block in GRIDS:
        done = chain(block, hidden=hidden).run()
        digests.append((digest(done.fragments()), digest(done.segmentation())))
    assert len(set(digests)) == 1
    layer = done.predict.site.layer
    expected = in_memory(done.predict.codes_CZYX, layer.roi, layer.shape, 0.55)
    np.testing.assert_array_equal(done.segmentation(), expected)
    fragments = np.unique(done.fragments()).size
    assert 2 < np.unique(expected).size < fragments


@pytest.mark.parametrize(("block", "hidden"), [((6, 20, 10), HIDDEN), ((24, 40, 40), ()), ((12, 20, 20), HIDDEN)])
def test_needs_are_exactly_the_blocks_that_are_read(
    chain: Callable[..., Any], reads: Callable[..., Any], block: Any, hidden: Any
) -> None:
    made = chain(block, hidden=hidden, fragments={"thresholds": "percentile", "low": 0.01, "high": 0.99})
    wanted: set[Any] = set()

    def checked(stage: Any, sweep: str, index: Any) -> Any:
        inputs, found = reads(made, stage, sweep, index)
        needs = list(stage.needs(sweep, index))
        assert sorted(needs) == sorted(found), (stage.task(sweep), index)
        unmasked = {r for r in needs if r.task == "predict/blocks" and r.index not in hidden}
        assert set(needs) <= made.parts.keys() | unmasked, "a need comes before, and is not masked"
        wanted.update(needs)
        return inputs

    made.run(checked)
    assert set(made.parts) - wanted == {ref for ref in made.parts if ref.task == "relabel/blocks"}


def test_reread_finds_what_was_written_and_writing_again_changes_nothing(chain: Callable[..., Any]) -> None:
    done = chain((8, 16, 12), hidden=HIDDEN).run()
    for stage, sweep, index in done.tasks():
        if stage.masked(sweep, index):
            assert not stage.table_path(sweep, index).exists()
            continue
        ref = next(r for r in done.parts if r.task == stage.task(sweep) and r.index == index)
        assert dict(stage.reread(sweep, index)) == dict(done.parts[ref])
        again = stage.write(sweep, index, stage.compute(stage.read(sweep, index)))
        assert dict(again.parts) == dict(done.parts[ref])


def test_summaries_are_small_and_add_up(chain: Callable[..., Any]) -> None:
    done = chain((6, 20, 10)).run()
    assert all(isinstance(v, int) for s in done.summaries.values() for k, v in s.items() if k != "histogram")
    total = {key: 0 for key in ("closed", "merges", "voxels", "dust")}
    for ref, summary in done.summaries.items():
        for key in total:
            if ref.task.split("/")[0] != "fragments" or key == "dust":
                total[key] += summary.get(key, 0)
    segments_ = np.unique(done.segmentation())
    fragments = np.unique(done.fragments())
    assert total["dust"] > 0
    assert total["voxels"] == np.count_nonzero(done.segmentation())
    assert total["closed"] == fragments[fragments != 0].size - total["merges"]
    assert segments_.size < fragments.size


def test_a_higher_threshold_is_a_relabel_away(chain: Callable[..., Any]) -> None:
    low, high = chain((8, 16, 12)).run(), chain((8, 16, 12), relabel={"threshold": 0.7}).run()
    for kind in (Fragments, RegionGraph, Agglomerate):
        assert low.stage(kind).folder == high.stage(kind).folder
    assert low.stage(Relabel).folder != high.stage(Relabel).folder
    pairs = np.unique(np.stack([high.segmentation().ravel(), low.segmentation().ravel()]), axis=1)
    assert np.unique(pairs[0]).size == pairs.shape[1], "segments only split when the threshold rises"
    assert np.unique(pairs[1]).size < pairs.shape[1]


def test_everything_masked_leaves_an_empty_segmentation(chain: Callable[..., Any]) -> None:
    every = tuple((z, y, x) for z in range(2) for y in range(2) for x in range(2))
    done = chain((6, 20, 10), hidden=every).run()
    assert not done.segmentation().any()
    assert {ref.task for ref in done.parts} == {"fragments/thresholds"}


def test_without_a_score_fragments_are_segments(chain: Callable[..., Any]) -> None:
    done = chain((12, 20, 20), agglomerate={"score": "none"}).run()
    assert [stage.name for stage in done.stages] == ["fragments", "relabel"]
    assert done.segmentation().any()
    np.testing.assert_array_equal(done.segmentation(), done.fragments())
