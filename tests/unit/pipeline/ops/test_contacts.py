"""Contacts and adjacency: any grid, one block and plain Python agree, also after merges; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import contact_join, faces
from pipeline.ops.contact_join import Joined, Part, join, reaches, settle
from pipeline.ops.contact_merge import join_contacts
from pipeline.ops.contact_table import Adjacency, ContactRows, first_voxels, fold, stack
from pipeline.ops.contacts import contacts
from pipeline.ops.region_graph import Place
from pipeline.ops.region_graph import contacts as graph_rows
from pipeline.ops.relabel import rename
from pipeline.ops.union_find import unite_pairs

Voxel = tuple[int, int, int]
Row = tuple[int, ...]  # a, b, sums, begin, end
Found = tuple[dict[int, Row], set[tuple[int, int]]]

AROUND = [d for d in product((-1, 0, 1), repeat=3) if any(d)]
FACES = [d for d in AROUND if sum(map(abs, d)) == 1]
EDGES = [d for d in AROUND if sum(map(abs, d)) <= 2]
VOXELS = 2 + 7  # the column of a row that does not add up


@dataclass(frozen=True)
class Case:
    labels: np.ndarray
    codes: np.ndarray
    table: np.ndarray
    roi: Box
    grown: np.ndarray | None = None  # bits: edges that tell no affinity

    @property
    def layer(self) -> Voxel:
        return tuple(end + 3 for end in self.roi.end)


def random_case(rng: np.random.Generator, largest: int = 6, codes: type = np.uint8) -> Case:
    shape = tuple(int(n) for n in rng.integers(2, largest + 1, 3))
    coarse = tuple(int(n) for n in rng.integers(1, 4, 3))
    names = rng.choice(2**62, int(rng.integers(2, 9)), replace=False).astype(np.uint64) + np.uint64(1)
    labels = rng.choice(names, [-(-n // c) for n, c in zip(shape, coarse, strict=True)])
    for axis, times in enumerate(coarse):
        labels = labels.repeat(times, axis)
    labels = np.ascontiguousarray(labels[tuple(slice(n) for n in shape)])
    noisy = rng.random(shape) < rng.choice([0, 0.1, 0.3])
    labels[noisy] = rng.choice(names, shape)[noisy]
    labels[rng.random(shape) < rng.choice([0, 0.1, 0.5])] = 0
    levels = 256 if codes is np.uint8 else 65536
    roi = Box.of_shape(shape).shift(tuple(int(n) for n in rng.integers(0, 30, 3)))
    table = np.sort(rng.integers(0, 65536, levels))
    grown = rng.integers(0, 8, shape).astype(np.uint8) if rng.random() < 0.3 else None
    return Case(labels, rng.integers(0, levels, (3, *shape)).astype(codes), table, roi, grown)


def random_block(rng: np.random.Generator) -> Voxel:
    return tuple(int(n) for n in rng.integers(1, 5, 3))


# ---- the reference: voxel sets, components, adjacency in plain Python ----------------------------------------------


def voxel_sets(case: Case, box: Box) -> dict[tuple[int, int], dict[Voxel, list[int]]]:
    """Pair -> voxel -> channels of its edges, of the edges stored in a box."""
    sets: dict[tuple[int, int], dict[Voxel, list[int]]] = {}
    here = np.argwhere(case.labels[box.slices(case.roi.begin)]) + np.subtract(box.begin, case.roi.begin)
    for p in map(tuple, here.tolist()):
        for channel in range(3):
            q = tuple(v - (axis == channel) for axis, v in enumerate(p))
            ends = sorted((int(case.labels[p]), int(case.labels[q]))) if min(q) >= 0 else [0, 0]
            if ends[0] not in (0, ends[1]):
                sets.setdefault((ends[0], ends[1]), {}).setdefault(p, []).append(channel)
    return sets


def reference(
    case: Case,
    box: Box | None = None,
    *,
    reach: list[Voxel] = AROUND,
    touch: list[Voxel] = AROUND,
    coincide: bool = True,
    sharing: bool = False,
) -> tuple[dict[int, Row], set[tuple[int, int]], dict[Voxel, list[int]]]:
    """Rows by name, adjacent pairs of names, and the contacts of every voxel."""
    rows: dict[int, Row] = {}
    at: dict[Voxel, list[int]] = {}
    for pair, voxels in voxel_sets(case, case.roi if box is None else box).items():
        left = set(voxels)
        while left:
            component, waiting = [], [left.pop()]
            while waiting:
                p = waiting.pop()
                component.append(p)
                near = [(p[0] + d[0], p[1] + d[1], p[2] + d[2]) for d in reach]
                waiting += [q for q in near if q in left]
                left -= set(near)
            name, row = row_of(case, pair, {p: voxels[p] for p in component})
            rows[name] = row
            for p in component:
                at.setdefault(p, []).append(name)
    adjacent = set()
    for p, names in at.items():
        if coincide:
            adjacent |= set(combinations(sorted(names), 2))
        for d in touch:
            for other in at.get((p[0] + d[0], p[1] + d[1], p[2] + d[2]), []):
                adjacent |= {(min(one, other), max(one, other)) for one in names if rows[one][:2] != rows[other][:2]}
    if sharing:
        adjacent = {(one, two) for one, two in adjacent if set(rows[one][:2]) & set(rows[two][:2])}
    return rows, adjacent, at


def row_of(case: Case, pair: tuple[int, int], voxels: dict[Voxel, list[int]]) -> tuple[int, Row]:
    edges, sums, total, grown = [0] * 3, [0] * 3, 0, 0
    for p, channels in voxels.items():
        for channel in channels:
            edges[channel] += 1
            unknown = case.grown is not None and case.grown[p] >> channel & 1
            grown, total = grown + bool(unknown), total + (not unknown) * int(case.table[case.codes[(channel, *p)]])
            sums = [s + v + b for s, v, b in zip(sums, p, case.roi.begin, strict=True)]
    places = [tuple(v + b for v, b in zip(p, case.roi.begin, strict=True)) for p in voxels]
    first, channel = min(places), voxels[min(voxels)][0]
    name = ((first[0] * case.layer[1] + first[1]) * case.layer[2] + first[2]) * 4 + channel
    corners = [f(along) for f in (min, max) for along in zip(*places, strict=True)]
    end = [v + 1 for v in corners[3:]]
    return name, (*pair, *edges, total, *sums, len(voxels), grown, *corners[:3], *end)


def rows_of(found: ContactRows) -> dict[int, Row]:
    columns = [column.tolist() for column in found.columns().values()]
    rows = {name: row for name, *row in zip(*columns, strict=True)}
    assert len(rows) == found.size, "a contact twice"
    return {name: tuple(row) for name, row in rows.items()}


def pairs_of(found: Adjacency) -> set[tuple[int, int]]:
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(pairs) == found.size, "a pair twice"
    return pairs


# ---- the hierarchy, in memory ------------------------------------------------------------------------------------


def one_block(case: Case, grid: Grid, index: Voxel) -> Joined:
    box = grid.block_box(index)
    inside = box.slices(case.roi.begin)
    before = {}
    for axis, side in enumerate(faces.LOW):
        if index[axis]:
            where: list[slice | int] = list(inside)
            where[axis] = where[axis].start - 1
            before[side] = case.labels[tuple(where)]
    return contacts(
        np.ascontiguousarray(case.labels[inside]),
        np.ascontiguousarray(case.codes[(slice(None), *inside)]),
        before,
        code_table=case.table,
        place=Place(box.begin, case.layer),
        internal=grid.internal_faces(index),
        grown_ZYX=None if case.grown is None else np.ascontiguousarray(case.grown[inside]),
    )


def hierarchical(
    case: Case,
    block: Voxel,
    *,
    start: Callable[[Case, Grid, Voxel], Joined] = one_block,
    step: Callable[..., Joined] = join,
) -> tuple[ContactRows, Adjacency]:
    """Walk up the levels as the stage does; blocks without labels are not there."""
    grids = Grid(case.roi, block).levels
    done, final = {}, []
    for index in grids[0]:
        box = grids[0].block_box(index)
        if case.labels[box.slices(case.roi.begin)].any():
            done[index] = start(case, grids[0], index)
    final += done.values()
    for finer, grid in pairwise(grids):
        above = {}
        for index in grid:
            children = [done[child].part for child in finer.children(index) if child in done]
            if children:
                above[index] = step(children, grid.block_box(index), internal=grid.internal_faces(index))
        final += above.values()
        done = above
    for top in done.values():
        assert top.part.contacts.size == top.part.waiting.size == top.part.shell_voxel.size == 0
    first, second = (
        np.concatenate([np.empty(0, np.uint64), *(getattr(f.adjacency, side) for f in final)])
        for side in ("first", "second")
    )
    return stack(f.closed for f in final), Adjacency(first, second)


def agree(case: Case, block: Voxel, **parts: Callable[..., object]) -> bool:
    try:
        rows, adjacency = hierarchical(case, block, **parts)
        return (rows_of(rows), pairs_of(adjacency)) == reference(case)[:2]
    except (AssertionError, ChunkCorrupt):
        return False


def check_many(seed: int, count: int, **how: object) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        case = random_case(rng, **how)
        expected = reference(case)
        whole, block = hierarchical(case, case.roi.shape), random_block(rng)
        assert (rows_of(whole[0]), pairs_of(whole[1])) == expected[:2]
        rows, adjacency = hierarchical(case, block)
        assert rows_of(rows) == expected[0], block
        assert pairs_of(adjacency) == expected[1], block


@pytest.mark.parametrize("seed", range(3))
def test_every_grid_gives_the_contacts_of_plain_python(seed: int) -> None:
    check_many(seed, 60)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 110))
def test_every_grid_gives_the_contacts_of_plain_python_many_times(seed: int) -> None:
    check_many(seed, 220, largest=7)


def test_codes_of_two_bytes_and_larger_volumes() -> None:
    check_many(20, 12, codes=np.uint16)
    check_many(21, 4, largest=14, codes=np.uint16)


def test_contacts_of_a_pair_add_up_to_its_row_of_the_region_graph() -> None:
    rng = np.random.default_rng(22)
    for _ in range(30):
        case = replace(random_case(rng), grown=None)
        place = Place(case.roi.begin, case.layer)
        edges = graph_rows(case.labels, case.codes, {}, code_table=case.table, place=place)["inner"]
        found, _ = hierarchical(case, random_block(rng))
        pairs: dict[tuple[int, int], list[int]] = {}
        for a, b, *numbers in rows_of(found).values():
            count, total = pairs.setdefault((a, b), [0, 0])
            pairs[a, b] = [count + sum(numbers[:3]), total + numbers[3]]
        rows = zip(edges.a.tolist(), edges.b.tolist(), edges.count.tolist(), edges.total.tolist(), strict=True)
        assert pairs == {(a, b): [count, total] for a, b, count, total in rows}


def test_a_name_tells_the_first_voxel() -> None:
    found, _ = hierarchical(random_case(np.random.default_rng(23)), (2, 2, 2))
    case = random_case(np.random.default_rng(23))
    begin, place = found.begin, first_voxels(found.name, case.layer)
    assert ((place[:, 0] == begin[:, 0]) & (place >= begin).all(axis=1) & (place < found.end).all(axis=1)).all()


@pytest.mark.parametrize("places", [1, 2, 3, 5])
def test_segments_that_touch_at_k_places_have_k_contacts(places: int) -> None:
    """Two slabs with a gap of background and `places` bridges; the first bridge lies across a corner of blocks."""
    labels = np.zeros((8, 8, 40), np.uint64)
    labels[:4], labels[4:] = 5, 9
    labels[4] = 0
    for place in range(places):
        labels[4, 3:5, 8 * place + 3 : 8 * place + 5] = 9
    codes = np.random.default_rng(places).integers(0, 256, (3, *labels.shape)).astype(np.uint8)
    case = Case(labels, codes, np.arange(256) * 257, Box.of_shape(labels.shape))
    for block in ((4, 4, 4), (8, 8, 40), (3, 5, 7), (4, 8, 40), (1, 1, 1), (5, 4, 4)):
        found, _ = hierarchical(case, block)
        assert found.size == places, block
        assert (found.sums[:, :3].sum(axis=1) == 4).all()


# ---- merged pairs -------------------------------------------------------------------------------------------------


def merged(case: Case, rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], Case]:
    """A random merge of fragments, as a rename table and on the voxels."""
    names = np.unique(case.labels[case.labels > 0])
    group = rng.integers(0, rng.integers(1, names.size + 2), names.size)
    smallest = np.array([names[group == g].min() for g in group], np.uint64)
    table = names[names != smallest], smallest[names != smallest]
    return table, replace(case, labels=rename(case.labels, *table))


def without_voxels(rows: dict[int, Row]) -> dict[int, Row]:
    return {name: row[:VOXELS] + row[VOXELS + 1 :] for name, row in rows.items()}


def merge_failures(seed: int, count: int, adjacency: Callable[[Case], set[tuple[int, int]]] | None = None) -> int:
    rng = np.random.default_rng(seed)
    failures = 0
    for _ in range(count):
        case = random_case(rng)
        if failures or not case.labels.any():
            continue
        found, adjacent = hierarchical(case, random_block(rng))
        if adjacency is not None:
            columns = np.array(sorted(adjacency(case)), np.uint64).reshape(-1, 2)
            adjacent = Adjacency(columns[:, 0].copy(), columns[:, 1].copy())
        for _ in range(3):
            table, after = merged(case, rng)
            got = join_contacts(found, adjacent, table)
            assert got.name.tolist() == got.take(np.lexsort((got.name, got.b, got.a))).name.tolist()
            failures += without_voxels(rows_of(got)) != without_voxels(reference(after)[0])
    return failures


def test_contacts_of_merged_segments_are_those_of_relabelled_voxels() -> None:
    assert merge_failures(40, 60) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(140, 145))
def test_contacts_of_merged_segments_many_times(seed: int) -> None:
    assert merge_failures(seed, 150) == 0


@pytest.mark.parametrize("broken", [{"coincide": False, "touch": []}, {"sharing": True}, {"touch": EDGES}])
def test_control_poorer_adjacency_spoils_merged_contacts(broken: dict[str, object]) -> None:
    """Among them adjacency of pairs that share a fragment alone, as first specified: not enough."""
    assert merge_failures(41, 120, lambda case: reference(case, **broken)[1]) > 0


# ---- controls: a slow block and slow seams agree; with one rule broken they are caught ------------------------------


def slow_block(case: Case, grid: Grid, index: Voxel, **broken: object) -> Joined:
    box, internal = grid.block_box(index), grid.internal_faces(index)
    rows, adjacent, at = reference(case, box, **broken)
    names = sorted(rows)
    numbers = np.array([rows[name][2:] for name in names], np.int64).reshape(len(names), 15)
    ends = np.array([rows[name][:2] for name in names], np.uint64).reshape(len(names), 2)
    name = np.array(names, np.uint64)
    found = ContactRows(name, ends[:, 0], ends[:, 1], numbers[:, :9], numbers[:, 9:12], numbers[:, 12:])
    is_open = contact_join.reaches(found, box, internal)
    open_names = set(name[is_open].tolist())
    pairs = np.array(sorted(adjacent), np.uint64).reshape(-1, 2)
    waits = np.array([bool(open_names & {one, two}) for one, two in pairs.tolist()], bool)
    places = {p: [v + b for v, b in zip(p, case.roi.begin, strict=True)] for p in at}
    ids = {p: 1 + (z << 42 | y << 21 | x) for p, (z, y, x) in places.items()}
    shell = [(ids[p], names.index(one)) for p, here in at.items() for one in here]
    voxel, row = np.array(sorted(shell), np.int64).reshape(-1, 2).T
    outer = contact_join._on_faces(voxel.astype(np.uint64), box, internal)
    waiting, final = (Adjacency(pairs[chosen, 0], pairs[chosen, 1]) for chosen in (waits, ~waits))
    return contact_join.settle(Part(box, found, voxel.astype(np.uint64)[outer], row[outer], waiting), is_open, final)


def slow_seams(reach: list[Voxel], noting: bool = True) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def across(place: np.ndarray, row: np.ndarray, owner: np.ndarray, a: np.ndarray, b: np.ndarray):
        voxels = [(p >> 42, p >> 21 & (1 << 21) - 1, p & (1 << 21) - 1) for p in place.tolist()]
        union, adjacent = [], []
        for (p, i), (q, j) in combinations(zip(voxels, row.tolist(), strict=True), 2):
            if owner[i] != owner[j] and tuple(np.subtract(p, q)) in reach:
                (union if a[i] == a[j] and b[i] == b[j] else adjacent).append((i, j))
        first, second = np.array(union, np.int64).reshape(-1, 2).T
        return unite_pairs(a.size, first, second), np.array(adjacent if noting else [], np.int64).reshape(-1, 2)

    return across


def disagree(seed: int, count: int, **parts: Callable[..., object]) -> bool:
    rng = np.random.default_rng(seed)
    return any(not agree(random_case(rng, largest=5), random_block(rng), **parts) for _ in range(count))


@pytest.mark.parametrize(
    "broken", [{"coincide": False}, {"sharing": True}, {"reach": FACES}, {"reach": EDGES}, {"touch": EDGES}, {}]
)
def test_control_each_rule_of_a_block(broken: dict[str, object]) -> None:
    assert disagree(50, 600 if broken else 25, start=partial(slow_block, **broken)) == bool(broken)


@pytest.mark.parametrize(
    ("reach", "noting", "right"),
    [(AROUND, True, True), (AROUND, False, False), (EDGES, True, False), (FACES, True, False)],
)
def test_control_each_rule_of_seams(reach: list, noting: bool, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_join, "_across_seams", slow_seams(reach, noting))
    assert disagree(51, 25 if right else 600) != right


BROKEN_STEPS = {
    "fold": lambda rows, group: replace(fold(rows, group), sums=fold(rows, group).sums * 2),  # counted twice
    "rename": lambda names, old, new: names,  # waiting pairs keep the names of parts
    "reaches": lambda rows, box, internal: reaches(rows, box, internal & 0b010101),  # closed though it may go on
    "_listed": lambda names, values: np.zeros(values.size, bool),  # pairs leave before their contacts
    "settle": lambda part, is_open, final: settle(part, is_open, Adjacency(final.first[:0], final.second[:0])),
}


@pytest.mark.parametrize("rule", BROKEN_STEPS)
def test_control_each_rule_of_a_step(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_join, rule, BROKEN_STEPS[rule])
    assert disagree(52, 25)
