"""Scores by threshold are those of a segmentation made at that threshold, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.ops.evaluate import Pairs, pairs, scores
from pipeline.ops.merge_tree import cut_links, links
from pipeline.ops.relabel import rename, segments
from pipeline.ops.sweep import Point, best, sweep


def random_tree(rng: np.random.Generator, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge random pairs of clusters at scores that never rise; few levels, many ties."""
    clusters = names.tolist()
    rows = []
    score = 1.0
    for _ in range(int(rng.integers(0, names.size))):
        low, high = sorted(rng.choice(clusters, 2, replace=False).tolist())
        score -= 0.1 * float(rng.random() < 0.3)
        rows.append((low, high, score))
        clusters.remove(high)
    rng.shuffle(rows)
    a, b, found = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return np.array(a, np.uint64), np.array(b, np.uint64), np.array(found, np.float64)


@pytest.mark.parametrize("seed", range(8))
def test_links_cut_anywhere_are_the_components_of_the_merges_above(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        names = np.unique(rng.integers(1, 60, int(rng.integers(2, 30)))).astype(np.uint64)
        a, b, score = random_tree(rng, names)
        tree = links(a, b, score)
        for threshold in (-1.0, 0.5, 2.0, *score[:3].tolist()):
            old, new = segments(a, b, score, threshold)
            found = rename(names, tree.larger, cut_links(tree, threshold))
            np.testing.assert_array_equal(found, rename(names, old, new))


@pytest.mark.parametrize("ignore_zero", [True, False])
def test_every_point_is_the_score_of_the_segmentation_at_its_threshold(ignore_zero: bool) -> None:
    rng = np.random.default_rng(9)
    for _ in range(30):
        fragments = rng.integers(0, 25, (4, 6, 7)).astype(np.uint64)
        truth = rng.integers(0, 5, fragments.shape).astype(np.uint64)
        a, b, score = random_tree(rng, np.unique(fragments[fragments != 0]))
        thresholds = (0.1, 0.5, 0.8, 0.95)
        counted = pairs(truth, fragments)
        points = sweep(counted, links(a, b, score * 65535), thresholds, full=65535, ignore_zero=ignore_zero)
        for point in points:
            cut = rename(fragments, *segments(a, b, score * 65535, point.threshold * 65535))
            expected = scores(pairs(truth, cut), ignore_truth_zero=ignore_zero)
            found = {name: getattr(point, name) for name in ("voi_split", "voi_merge", "voi", "arand", "segments")}
            assert found == {name: expected[name] for name in found}


def test_the_best_point_is_the_least_voi_and_of_equals_the_lowest_threshold() -> None:
    points = [Point(t, 1, 0.0, 0.0, voi, 0.0) for t, voi in ((0.1, 0.5), (0.2, 0.3), (0.3, 0.3), (0.4, None))]
    assert best(points) == points[1]
    assert best(points[3:]) is None
    nothing = Pairs(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
    tree = links(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0))
    assert sweep(nothing, tree, [0.5], full=1, ignore_zero=True) == [Point(0.5, 0, None, None, None, None)]
