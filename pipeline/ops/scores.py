"""How strong an edge between two clusters is: the mean, the maximum, or a quantile of its contact's affinities.

1. mean: float64(sum) / float64(count) of decoded integers. Both stay below 2**53, so the division is the correctly
   rounded rational, hence the same in every chunk.
2. max: the largest decoded affinity (single linkage). Of parallel edges, the larger one.
3. quantile: of a histogram with 256 bins, bin = decoded affinity >> 8: the smallest bin i with 100 * cum(i) > q *
   total, all in integers. The score is 257 * i, so that all scores lie in 0 .. 65535. Of parallel edges, the
   histograms are added. This is waterz's HistogramQuantileAffinity<q, 256> without its start from the maximum.

All three are **reducible**: adding the statistics of two edges gives a score no better than the better one of the two.
That is what agglomeration over blocks rests on (ops/agglomerate.py); a sum, or a mean times a size, is not reducible.

A histogram is a linked list of (bin, count), ascending: most edges have a few voxel edges only. Adding two lists
reuses their items, so that nothing is allocated while clusters merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChunkCorrupt
from pipeline.ops.compiled import compiled
from pipeline.ops.edges import Edges
from pipeline.ops.histograms import Histograms
from workers.errors import Poison

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

Column = TypeVar("Column")

MEAN, MAX, QUANTILE = range(3)
BIN_VALUE = 257  # bin 255 stands for 65535


@dataclass(frozen=True)
class Score:
    """A score by name; `quantile` in percent."""

    name: Literal["mean", "max", "quantile"] = "mean"
    quantile: int = 50
    reducible: bool = True

    @property
    def rule(self) -> int:
        """Its number in kernels."""
        return ("mean", "max", "quantile").index(self.name)


class Statistics(NamedTuple):
    """Of every edge: the sum and the number of affinities; what the rule needs besides, empty where it does not."""

    rule: int
    quantile: int
    total: I64
    terms: I64
    level: I32  # max, quantile: the score
    head: I32  # quantile: the first item of the histogram; the others follow
    follow: I32
    bin: NDArray[np.uint8]
    entries: I64


def statistics_of(edges: Edges, score: Score) -> Statistics:
    """A kernel's own copy of the edges' statistics."""
    if not score.reducible:
        raise Poison(
            f"the score {score.name!r} is not reducible: chunks cannot merge before they have seen all",
            way_out="agglomerate with the mean, the maximum or a quantile",
        )
    none, empty = np.empty(0, np.int32), np.empty(0, np.int64)
    level, head, follow, bins, entries = none, none, none, np.empty(0, np.uint8), empty
    if score.rule == MAX and edges.size:
        level = _present(edges.largest, score).astype(np.int32)
    elif score.rule == QUANTILE and edges.size:
        histograms = _present(edges.histograms, score)
        head, follow = _linked(edges.size, histograms.row)
        bins, entries = histograms.bin.copy(), histograms.entries.copy()
        level = np.empty(edges.size, np.int32)
    sums = np.stack([edges.total, edges.count], axis=1)  # kernels want both at once
    total, terms = sums[:, 0], sums[:, 1]
    statistics = Statistics(score.rule, score.quantile, total, terms, level, head, follow, bins, entries)
    if score.rule == QUANTILE:
        _settle_quantiles(statistics)
    return statistics


def _present(column: Column | None, score: Score) -> Column:
    if column is None:
        raise ChunkCorrupt(
            f"the edges lack what the score {score.name!r} needs",
            way_out="make the region graph again, with what this score needs",
        )
    return column


def edges_of(a: U64, b: U64, tie: U64, statistics: Statistics, rows: I64) -> Edges:
    """Some of the edges as a table, under the names and with the ties given."""
    largest = statistics.level[rows].astype(np.uint16) if statistics.rule == MAX else None
    histograms = Histograms(*_listed(statistics, rows)) if statistics.rule == QUANTILE else None
    return Edges(a, b, statistics.total[rows], statistics.terms[rows], tie, largest, histograms)


@compiled
def score_at(statistics: Statistics, edge: int) -> float:
    """The score of an edge."""
    return score_of(statistics.total, statistics.terms, statistics.level, edge)


@compiled
def score_of(total: I64, terms: I64, level: I32, edge: int) -> float:
    """The same from bare arrays, for loops: the mean has no levels."""
    if level.size:
        return float(level[edge])
    return float(total[edge] / terms[edge])


@compiled
def scores_of(statistics: Statistics, edges: int) -> NDArray[np.float64]:
    """The scores of all edges."""
    total, terms, level = statistics.total, statistics.terms, statistics.level
    scores = np.empty(edges, np.float64)
    for edge in range(edges):
        scores[edge] = score_of(total, terms, level, edge)
    return scores


@compiled
def add_at(statistics: Statistics, edge: int, other: int) -> None:
    """Add the statistics of another edge, which is used up."""
    statistics.total[edge] += statistics.total[other]
    statistics.terms[edge] += statistics.terms[other]
    settle_level(statistics, edge, other)


@compiled
def settle_level(statistics: Statistics, edge: int, other: int) -> None:
    """The part of adding that the mean does not need."""
    if statistics.rule == MAX:
        statistics.level[edge] = max(statistics.level[edge], statistics.level[other])
    elif statistics.rule == QUANTILE:
        statistics.head[edge] = _merged(statistics, statistics.head[edge], statistics.head[other])
        statistics.level[edge] = _quantile(statistics, edge)


@compiled
def _merged(statistics: Statistics, one: int, two: int) -> int:
    """Two ascending lists made one; of equal bins, the counts are added and one item is dropped."""
    follow, bins = statistics.follow, statistics.bin
    first, last = -1, -1
    while one >= 0 or two >= 0:
        if one < 0 or (two >= 0 and bins[two] < bins[one]):
            one, two = two, one
        item = one
        one = follow[item]
        if two >= 0 and bins[two] == bins[item]:
            statistics.entries[item] += statistics.entries[two]
            two = follow[two]
        if last < 0:
            first = item
        else:
            follow[last] = item
        last = item
    if last >= 0:
        follow[last] = -1
    return first


@compiled
def _quantile(statistics: Statistics, edge: int) -> int:
    wanted = statistics.quantile * statistics.terms[edge]
    item = statistics.head[edge]
    below = np.int64(0)
    value = 0
    while item >= 0:
        below += statistics.entries[item]
        value = int(statistics.bin[item]) * BIN_VALUE
        if 100 * below > wanted:
            break
        item = statistics.follow[item]
    return value


@compiled
def _settle_quantiles(statistics: Statistics) -> None:
    for edge in range(statistics.level.size):
        statistics.level[edge] = _quantile(statistics, edge)


@compiled
def _linked(edges: int, row: I64) -> tuple[I32, I32]:
    """Lists of items that are sorted by their edge."""
    head, follow = np.full(edges, -1, np.int32), np.full(row.size, -1, np.int32)
    for item in range(row.size - 1, -1, -1):
        follow[item] = head[row[item]]
        head[row[item]] = item
    return head, follow


@compiled
def _listed(statistics: Statistics, edges: I64) -> tuple[I64, NDArray[np.uint8], I64]:
    """The histograms of some edges, as rows: which of them, bin, count."""
    size = 0
    for edge in edges:
        item = statistics.head[edge]
        while item >= 0:
            size += 1
            item = statistics.follow[item]
    row, bins, entries = np.empty(size, np.int64), np.empty(size, np.uint8), np.empty(size, np.int64)
    size = 0
    for place in range(edges.size):
        item = statistics.head[edges[place]]
        while item >= 0:
            row[size], bins[size], entries[size] = place, statistics.bin[item], statistics.entries[item]
            size += 1
            item = statistics.follow[item]
    return row, bins, entries
