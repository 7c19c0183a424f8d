"""Contacts and adjacency: any grid, one block and plain Python agree, also after merges; broken rules are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from contact_cases import (
    AROUND,
    EDGES,
    FACES,
    VOXELS,
    Case,
    Row,
    Voxel,
    hierarchical,
    merged,
    pairs_of,
    random_block,
    random_case,
    reference,
    rows_of,
)

from pipeline.errors import ChunkCorrupt
from pipeline.geometry import Box, Grid
from pipeline.ops import contact_join
from pipeline.ops.contact_join import Joined, Part, reaches, settle
from pipeline.ops.contact_merge import join_contacts
from pipeline.ops.contact_table import Adjacency, ContactRows, first_voxels, fold
from pipeline.ops.region_graph import Place
from pipeline.ops.region_graph import contacts as graph_rows
from pipeline.ops.union_find import unite_pairs


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
