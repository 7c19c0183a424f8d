"""The chunk step on random graphs cut into random chunks: plain Python agrees, and each broken rule is caught."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid, Index
from pipeline.ops.mutex_decide import Decided, decide
from pipeline.ops.mutex_graph import Alias, Decide, Nodes, Part, join
from pipeline.ops.mutex_rows import ATTRACTIVE, CERTAIN, Rows, inside, names_at, positions


def random_graph(rng: np.random.Generator) -> tuple[Box, np.ndarray, Rows]:
    """Nodes at some voxels of a box, and edges between any of them, many of the same strength."""
    z, y, x = (int(n) for n in rng.integers(1, 6, 3))
    roi = Box.of_shape((z, y, x)).shift(tuple(int(n) for n in rng.integers(0, 9, 3)))
    at = np.argwhere(rng.random(roi.shape) < rng.random()) + roi.begin
    names = np.sort(names_at(at.astype(np.int64)))
    count = int(rng.integers(0, 6 * names.size + 1)) if names.size > 1 else 0
    ends = np.sort(rng.integers(0, max(1, names.size), (count, 2)), axis=1)
    ends = ends[ends[:, 0] < ends[:, 1]]
    kind = (rng.random(len(ends)) < rng.choice([0.3, 0.5, 0.7])).astype(np.uint8)
    strength = rng.integers(1, int(rng.choice([2, 4, 50])) + 1, len(ends)).astype(np.uint32)
    return (
        roi,
        names,
        Rows(names[ends[:, 0]], names[ends[:, 1]], kind, strength, rng.permutation(len(ends)).astype(np.uint64)),
    )


def reference(names: np.ndarray, rows: Rows) -> dict[int, int]:
    """The smallest member of every node's cluster."""
    cluster = {name: frozenset([name]) for name in names.tolist()}
    enemies: set[frozenset[int]] = set()  # pairs of single nodes
    for row in rows.order():
        a, b = cluster[int(rows.a[row])], cluster[int(rows.b[row])]
        if a == b or any(frozenset([m, n]) in enemies for m in a for n in b):
            continue
        if rows.kind[row] != ATTRACTIVE:
            enemies.add(frozenset([min(a), min(b)]))
        else:
            cluster |= dict.fromkeys(a | b, a | b)
    return {name: min(members) for name, members in cluster.items()}


def part_of(box: Box, names: np.ndarray, rows: Rows) -> Part:
    own = names[inside(names, box)]
    a_in, b_in = inside(rows.a, box), inside(rows.b, box)
    leaving = rows.take(a_in != b_in)
    near = np.where(inside(leaving.a, box), leaving.a, leaving.b)
    far = np.where(inside(leaving.a, box), leaving.b, leaving.a)
    node, of = np.unique(near, return_inverse=True)
    low, high = np.full((node.size, 3), 1 << 20), np.full((node.size, 3), -1)
    np.minimum.at(low, of, positions(far))
    np.maximum.at(high, of, positions(far))
    earlier = near < far
    outer = leaving.take(earlier).between(near[earlier], far[earlier])
    alias = Alias(node, node, names_at(low), names_at(high))
    return Part(box, Nodes(own, np.ones(own.size, np.int64), own, own), rows.take(a_in & b_in), outer, alias)


def chunked(roi: Box, names: np.ndarray, rows: Rows, block: Index, decided_by: Decide) -> dict[int, int]:
    grids = Grid(roi, block).levels
    now = {name: name for name in names.tolist()}
    parts = {index: part_of(grids[0].block_box(index), names, rows) for index in grids[0]}
    for finer, grid in pairwise((None, *grids)):
        above: dict[Index, Part] = {}
        for index in grid:
            children = [parts[index]] if finer is None else [parts[child] for child in finer.children(index)]
            found = join(children, grid.block_box(index), decided_by=decided_by)
            renamed = dict(zip(found.old.tolist(), found.new.tolist(), strict=True))
            now |= {node: renamed[name] for node, name in now.items() if name in renamed}
            above[index] = found.part
        parts = above
    (top,) = parts.values()
    assert top.nodes.name.size == top.inner.size == top.outer.size == top.alias.node.size == 0
    return now


def check(rng: np.random.Generator, cases: int) -> None:
    for _ in range(cases):
        roi, names, rows = random_graph(rng)
        z, y, x = (int(n) for n in rng.integers(1, 4, 3))
        expected = reference(names, rows)
        assert chunked(roi, names, rows, roi.shape, decide) == expected
        assert chunked(roi, names, rows, (z, y, x), decide) == expected


def test_any_chunks_give_the_clusters_of_plain_python() -> None:
    check(np.random.default_rng(0), 150)


@pytest.mark.exhaustive
def test_any_chunks_give_the_same_many_times() -> None:
    check(np.random.default_rng(1), 2500)


# ---- the kernel against plain Python, and controls: plain Python with one rule broken must be caught ----------------

RULES = (
    "pending_repulsive",  # both dirty: no mutex yet
    "pending_attractive",  # both dirty: no join yet
    "may_lose",  # a clean cluster with a dirty enemy is not absorbed
    "spread",  # a clean end of a pending attractive row becomes dirty
    "join_keeps_dirt",  # what absorbs or is absorbed by a dirty cluster is dirty
    "certain_up",  # mutexes between dirty clusters go up
    "strongest",  # of pending rows the strongest goes up
    "certain_first",  # mutexes from below are known from the start
    "repulsive_up",  # pending repulsive rows go up
)


def may_lose(a: int, b: int, soiled: list[bool], mutex: list[set[int]]) -> bool:
    if soiled[b]:
        a, b = b, a
    return soiled[a] and any(soiled[d] and d not in mutex[a] for d in mutex[b])


def strongest_of(waits: dict[int, int], state: Any, first: Any, second: Any, on: dict[str, bool]) -> list[int]:
    root, mutex = state
    best: dict[tuple[int, int, int], int] = {}
    for row in sorted(waits, reverse=on["strongest"]):
        a, b = sorted((root[first[row]], root[second[row]]))
        if a != b and b not in mutex[a] and (waits[row] or on["repulsive_up"]):
            best[a, b, waits[row]] = row
    return list(best.values())


def slow_decide(first: Any, second: Any, kind: Any, dirty: Any, broken: str = "") -> Decided:
    on = {rule: rule != broken for rule in RULES}
    root, soiled = list(range(dirty.size)), [bool(d) for d in dirty]
    mutex: list[set[int]] = [set() for _ in root]
    waits: dict[int, int] = {}
    rows = list(range(first.size))
    if not on["certain_first"]:
        rows.sort(key=lambda row: kind[row] == CERTAIN)
    for row in rows:
        a, b = root[first[row]], root[second[row]]
        if a == b or b in mutex[a]:
            continue
        both = soiled[a] and soiled[b]
        if kind[row] == CERTAIN or (kind[row] != ATTRACTIVE and not (both and on["pending_repulsive"])):
            mutex[a].add(b), mutex[b].add(a)
        elif kind[row] != ATTRACTIVE or (both and on["pending_attractive"]):
            waits[row] = int(kind[row])
        elif on["may_lose"] and may_lose(a, b, soiled, mutex):
            waits[row] = 1
            for end in (a, b):
                soiled[end] = soiled[end] or on["spread"]
        else:
            soiled[a] = (soiled[a] or soiled[b]) if on["join_keeps_dirt"] else both
            root = [a if r == b else r for r in root]
            mutex[a] |= mutex[b]
            for d in mutex[b]:
                mutex[d] = mutex[d] - {b} | {a}
    pending = np.zeros(first.size, np.bool_)
    pending[strongest_of(waits, (root, mutex), first, second, on)] = True
    final = np.array([soiled[r] for r in root], np.uint8)
    pairs = [(a, b) for a in set(root) for b in mutex[a] if a < b and soiled[a] and soiled[b] and on["certain_up"]]
    return Decided(np.array(root, np.int32), final, pending, np.array(sorted(pairs), np.int32).reshape(-1, 2))


def checked_decide(first: Any, second: Any, kind: Any, dirty: Any) -> Decided:
    fast, slow = decide(first, second, kind, dirty), slow_decide(first, second, kind, dirty)
    same = [np.unique(found.root, return_index=True, return_inverse=True)[1:] for found in (fast, slow)]
    smallest = [index[inverse] for index, inverse in same]
    np.testing.assert_array_equal(*smallest)
    np.testing.assert_array_equal(fast.dirty, slow.dirty)
    np.testing.assert_array_equal(fast.pending, slow.pending)
    pairs = [{tuple(sorted(low[list(p)])) for p in f.mutex} for f, low in zip((fast, slow), smallest, strict=True)]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == len(fast.mutex) == len(slow.mutex)
    return fast


def test_every_chunk_is_the_slow_chunk() -> None:
    rng = np.random.default_rng(20)
    for _ in range(60):
        chunked(*random_graph(rng), (2, 2, 2), checked_decide)


def times_caught(decided_by: Decide, cases: int, enough: int = 1) -> int:
    rng, caught = np.random.default_rng(21), 0
    for _ in range(cases):
        if caught == enough:
            break
        graph = random_graph(rng)
        try:
            caught += chunked(*graph, (2, 1, 2), decided_by) != reference(*graph[1:])
        except (ChunkCorrupt, AssertionError):
            caught += 1
    return caught


@pytest.mark.parametrize("broken", ["", *RULES])
def test_control_each_broken_rule_is_caught(broken: str) -> None:
    def broken_decide(first: Any, second: Any, kind: Any, dirty: Any) -> Decided:
        return slow_decide(first, second, kind, dirty, broken)

    assert bool(times_caught(broken_decide, 300 if broken else 60)) == bool(broken)


def test_control_without_dirty_nodes_is_caught() -> None:
    assert times_caught(lambda a, b, kind, dirty: decide(a, b, kind, np.zeros_like(dirty)), 40, enough=6) == 6
