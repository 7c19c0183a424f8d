"""Scores: reducible or not, histograms against plain counting, and partitions against waterz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import waterz

from pipeline.geometry import Box
from pipeline.ops.agglomerate import Part, agglomerate
from pipeline.ops.edges import Edges
from pipeline.ops.histograms import Histograms
from pipeline.ops.region_graph import Place, contacts, nodes
from pipeline.ops.relabel import rename, segments
from pipeline.ops.scores import Score, Statistics, add_at, edges_of, score_at, statistics_of
from workers.errors import Poison

SCORES = [Score("mean"), Score("max"), *(Score("quantile", q) for q in (1, 50, 85, 99))]
FULL_SCALE = 65535


def random_contacts(rng: np.random.Generator, number: int) -> list[np.ndarray]:
    """Affinities of contacts: few or many, few levels or many."""
    spread = int(rng.choice([2, 40, 65536]))
    return [rng.integers(0, spread, rng.integers(1, 12)) * (FULL_SCALE // (spread - 1)) for _ in range(number)]


def edges_from(affinities: list[np.ndarray]) -> Edges:
    ids = np.arange(len(affinities), dtype=np.uint64)
    items = [(e, b, n) for e, v in enumerate(affinities) for b, n in sorted(Counter((v >> 8).tolist()).items())]
    rows = np.array(items, np.int64)
    return Edges(
        ids,
        ids + np.uint64(1),
        np.array([v.sum() for v in affinities], np.int64),
        np.array([v.size for v in affinities], np.int64),
        ids,
        np.array([v.max() for v in affinities], np.uint16),
        Histograms(rows[:, 0], rows[:, 1].astype(np.uint8), rows[:, 2]),
    )


def plain(affinities: np.ndarray, score: Score) -> float:
    if score.name == "mean":
        return float(Fraction(int(affinities.sum()), affinities.size))
    if score.name == "max":
        return float(affinities.max())
    bins = np.sort(affinities >> 8)
    return 257.0 * next(int(b) for i, b in enumerate(bins, 1) if 100 * np.sum(bins <= b) > score.quantile * bins.size)


def gets_better(score: Callable[[np.ndarray], float], rng: np.random.Generator, pairs: int) -> int:
    """How often adding two contacts gives a score above both."""
    found = 0
    for _ in range(pairs):
        one, two = random_contacts(rng, 2)
        found += score(np.concatenate([one, two])) > max(score(one), score(two))
    return found


@pytest.mark.parametrize("score", SCORES, ids=str)
def test_every_score_is_reducible(score: Score) -> None:
    assert gets_better(lambda v: plain(v, score), np.random.default_rng(0), 600) == 0


def test_control_a_sum_is_not_reducible() -> None:
    rng = np.random.default_rng(0)
    assert gets_better(lambda v: float(v.sum()), rng, 600) > 300
    assert gets_better(lambda v: float(v.mean() * v.size**0.5), rng, 600) > 200
    with pytest.raises(Poison, match="not reducible"):
        statistics_of(edges_from(random_contacts(rng, 2)), Score(reducible=False))


@pytest.mark.parametrize("score", SCORES, ids=str)
def test_adding_edges_is_adding_their_affinities(score: Score) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        affinities = random_contacts(rng, 6)
        statistics: Statistics = statistics_of(edges_from(affinities), score)
        for other in rng.permutation(np.arange(1, 6)):
            affinities[0] = np.concatenate([affinities[0], affinities[other]])
            add_at(statistics, 0, int(other))
            assert score_at(statistics, 0) == plain(affinities[0], score)
        names = np.zeros(1, np.uint64)
        left = edges_of(names, names, names, statistics, np.array([0]))
        assert (left.total[0], left.count[0]) == (affinities[0].sum(), affinities[0].size)
        if left.histograms is not None:
            expected = sorted(Counter((affinities[0] >> 8).tolist()).items())
            rows = zip(left.histograms.bin.tolist(), left.histograms.entries.tolist(), strict=True)
            assert list(rows) == expected


# ---- the field's own: waterz, on input where no two edges ever have the same score ----------------------------------


def merged(labels: np.ndarray, affinities: np.ndarray, score: Score, floor: float) -> np.ndarray:
    """Our labels."""
    box = Box.of_shape(labels.shape)
    place = Place(box.begin, labels.shape)
    found = contacts(labels, affinities, {}, code_table=None, place=place, histograms=True)
    own = nodes(labels, 0)
    part = Part(box, own.name, own.mask, found["inner"], (found["low_z"], found["low_y"], found["low_x"]))
    tree = agglomerate([part], box, floor=floor, score=score).tree
    return rename(labels, *segments(tree.a, tree.b, tree.score, floor))


def merges_without_ties(labels: np.ndarray, integers: np.ndarray, score: Score, floor: float) -> int:
    """How many merges there are, or -1 if two edges ever share the best score, or one comes close to the floor."""
    state: dict[tuple[int, int], np.ndarray] = {}
    for axis in range(3):
        ends = [np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(None, -1))]
        values = np.moveaxis(integers[axis], axis, 0)[1:]
        low, high = np.minimum(*ends), np.maximum(*ends)
        for a, b in np.unique(np.stack([low, high])[:, low != high], axis=1).T.tolist():
            found = values[(low == a) & (high == b)]
            state[a, b] = np.concatenate([state.get((a, b), found[:0]), found])
    merges = 0
    while state:
        (value, (keep, gone)), *others = sorted(((plain(v, score), pair) for pair, v in state.items()), reverse=True)
        if abs(value - floor) < 300 or (others and others[0][0] == value):
            return -1
        if value < floor:
            break
        merges += 1
        del state[keep, gone]
        for pair in [pair for pair in state if gone in pair]:
            found = state.pop(pair)
            new = tuple(sorted((keep, pair[0] if pair[1] == gone else pair[1])))
            state[new] = np.concatenate([state.get(new, found[:0]), found])
    return merges


def same_partition(one: np.ndarray, two: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1).shape[1]
    return pairs == np.unique(one).size == np.unique(two).size


@pytest.mark.parametrize(
    ("score", "function", "edge"),
    [
        (Score("mean"), "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>", 5),
        (Score("quantile", 50), "OneMinus<HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256, false>>", 5),
        (Score("quantile", 85), "OneMinus<HistogramQuantileAffinity<RegionGraphType, 85, ScoreValue, 256, false>>", 5),
    ],
)
def test_partitions_are_those_of_waterz(score: Score, function: str, edge: int) -> None:
    rng = np.random.default_rng(2)
    compared = 0
    for _ in range(80):
        shape = (2 * edge, 2 * edge, 2 * edge)
        labels = np.zeros(shape, np.uint64)
        cells = 1 + np.arange(8, dtype=np.uint64)
        side = round(cells.size ** (1 / 3))
        size = shape[0] // side
        for z, y, x in np.ndindex(side, side, side):
            where = tuple(slice(i * size, (i + 1) * size if i + 1 < side else None) for i in (z, y, x))
            labels[where] = cells[(z * side + y) * side + x]
        integers = rng.integers(0, 65536, (3, *shape))
        affinities = (integers / FULL_SCALE).astype(np.float32)
        floor = float(rng.uniform(0.4, 0.55)) * FULL_SCALE
        merges = merges_without_ties(labels, integers, score, floor)
        if merges < 0:
            continue
        given = waterz.agglomerate(
            affinities, [1 - floor / FULL_SCALE], fragments=labels.copy(), scoring_function=function
        )
        assert same_partition(merged(labels, affinities, score, floor), next(iter(given)))
        compared += merges > 0
    assert compared > 8
