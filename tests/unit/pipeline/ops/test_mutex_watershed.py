"""Mutex watershed: a slow reference, tiny bands and tiny buffers agree, on small volumes with many ties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import WrongShape, WrongType
from pipeline.ops import mutex_watershed as op
from pipeline.ops.mutex_watershed import mutex_watershed, named

Voxel = tuple[int, ...]
Edge = tuple[float, int, Voxel, Voxel]
NEAREST = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
ODD_FLOATS = np.array([np.nan, -np.nan, -1.0, -0.0, 0.0, 1e-45, 1.0, 1.5, np.inf, -np.inf], np.float32)


@dataclass(frozen=True)
class Case:
    affinities: np.ndarray
    offsets: list[tuple[int, ...]]
    attractive: int
    table: np.ndarray | None
    strides: tuple[int, ...]
    mask: np.ndarray | None
    origin: tuple[int, ...]

    def fast(self) -> tuple[np.ndarray, int]:
        return mutex_watershed(
            self.affinities,
            self.offsets,
            attractive=self.attractive,
            code_table=self.table,
            strides=self.strides,
            mask_ZYX=self.mask,
            origin=self.origin,
        )


def random_case(rng: np.random.Generator, largest: int = 5) -> Case:
    shape = tuple(int(n) for n in rng.integers(1, largest + 1, 3))
    channels = int(rng.integers(1, 13))
    reach = int(rng.integers(1, 5))
    offsets = [tuple(int(n) for n in rng.integers(-reach, reach + 1, 3)) for _ in range(channels)]
    if rng.random() < 0.7:
        offsets[:3] = NEAREST[:channels]
    attractive = int(rng.integers(0, channels + 1)) if rng.random() < 0.3 else min(3, channels)
    mask = rng.random(shape) < 0.8 if rng.random() < 0.4 else None
    strides = tuple(int(n) for n in rng.integers(1, 4, 3)) if rng.random() < 0.4 else (1, 1, 1)
    origin = tuple(int(n) for n in rng.integers(0, 50, 3))
    affinities, table = random_affinities(rng, (channels, *shape))
    return Case(affinities, offsets, attractive, table, strides, mask, origin)


def random_affinities(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    kind = rng.choice([np.uint8, np.uint16, np.float32])
    levels = int(rng.choice([2, 3, 5, 20, 10**6]))
    if kind == np.float32:
        affinities = (rng.integers(0, levels, shape) / (levels - 1)).astype(np.float32)
        odd = rng.random(shape) < rng.choice([0.0, 0.1])
        affinities[odd] = rng.choice(ODD_FLOATS, int(odd.sum()))
        return affinities, None
    codes = np.iinfo(kind).max + 1
    values = rng.choice(codes, min(levels, codes), replace=False)
    if rng.random() < 0.3:
        values[0] = 0
    affinities = rng.choice(values, shape).astype(kind)
    table = np.sort(rng.integers(0, 65536, codes)) if rng.random() < 0.3 else None
    return affinities, table


def strength(case: Case, affinity: Any, *, repels: bool) -> float:
    if case.affinities.dtype == np.float32:
        clean = np.float32(0) if np.isnan(affinity) or affinity < 0 else min(affinity, np.float32(1))
        return float(np.float32(1) - clean) if repels else float(clean)
    linear = 257 if case.affinities.dtype == np.uint8 else 1
    decoded = int(affinity) * linear if case.table is None else int(case.table[affinity])
    return 65535 - decoded if repels else decoded


def edges_of(case: Case, *, global_strides: bool = True) -> list[Edge]:
    """All edges, the first to be decided first."""
    shape = case.affinities.shape[1:]
    edges = []
    for channel, *p in np.ndindex(case.affinities.shape):
        q = [a + b for a, b in zip(p, case.offsets[channel], strict=True)]
        repels = channel >= case.attractive
        begin = case.origin if global_strides else (0, 0, 0)
        off = any((a + b) % s for a, b, s in zip(p, begin, case.strides, strict=True))
        if any(not 0 <= v < n for v, n in zip(q, shape, strict=True)) or (repels and off):
            continue
        if case.mask is not None and not (case.mask[tuple(p)] and case.mask[tuple(q)]):
            continue
        value = strength(case, case.affinities[channel, *p], repels=repels)
        if value > 0 or repels:
            edges.append((-value, channel, tuple(p), tuple(q)))
    return sorted(edges)


def decide(case: Case, edges: list[Edge], *, inherit: bool = True, refuse: bool = True) -> np.ndarray:
    """Decide edges one by one. `inherit`: a joined cluster has the mutexes of both; `refuse`: mutexes count."""
    shape = case.affinities.shape[1:]
    present = [p for p in np.ndindex(shape) if case.mask is None or case.mask[p]]
    cluster = {p: {p} for p in present}
    mutexes: dict[Voxel, set[Voxel]] = {p: set() for p in present}  # per first voxel of a cluster
    name = {p: p for p in present}
    for _, channel, p, q in edges:
        a, b = sorted((name[p], name[q]))
        if a == b or (b in mutexes[a] and refuse):
            continue
        if channel >= case.attractive:
            mutexes[a].add(b)
            mutexes[b].add(a)
            continue
        for voxel in cluster[b]:
            name[voxel] = a
        cluster[a] |= cluster.pop(b)
        mutexes[a].discard(b)  # there, if nothing is refused
        for other in mutexes.pop(b) - {a}:
            mutexes[other].discard(b)
            if inherit:
                mutexes[other].add(a)
                mutexes[a].add(other)
    labels = np.zeros(shape, np.uint32)
    number: dict[Voxel, int] = {}
    for p in present:
        labels[p] = number.setdefault(name[p], len(number) + 1)
    return labels


def reference(case: Case) -> np.ndarray:
    return decide(case, edges_of(case))


def check(case: Case) -> None:
    labels, count = case.fast()
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, reference(case), err_msg=repr(case))
    assert count == labels.max(initial=0)


def narrow(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Bands of a few edges, buffers of hardly more than a row, samples that see a part or nothing."""
    monkeypatch.setattr(op, "BAND", float(rng.choice([0.0, 0.05, 0.5, 4.0])))
    monkeypatch.setattr(op, "BUFFER", float(rng.choice([0.0, 0.5, 2.0])))
    monkeypatch.setattr(op, "SAMPLED", int(rng.choice([1, 30, 1000])))


def test_the_labels_are_those_of_the_slow_reference() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        check(random_case(rng))


def test_bands_and_buffers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    for _ in range(150):
        narrow(monkeypatch, rng)
        check(random_case(rng))


@pytest.mark.exhaustive
@pytest.mark.parametrize("narrowed", [False, True])
@pytest.mark.parametrize("seed", range(50, 65))
def test_the_labels_are_those_of_the_slow_reference_often(
    monkeypatch: pytest.MonkeyPatch, seed: int, narrowed: bool
) -> None:
    """2 x 15 x 100 volumes, with bands and buffers as they are, and tiny ones."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        if narrowed:
            narrow(monkeypatch, rng)
        check(random_case(rng))


def test_larger_volumes_with_many_mutexes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(30)
    for _ in range(15):
        narrow(monkeypatch, rng)
        monkeypatch.setattr(op, "BAND", 0.1)
        check(random_case(rng, largest=16))


def test_a_band_of_one_strength_is_decided_a_buffer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(31)
    resumed = []
    plain = op.emit
    monkeypatch.setattr(op, "BAND", 0.0)
    monkeypatch.setattr(op, "BUFFER", 0.0)
    monkeypatch.setattr(op, "emit", lambda *args: resumed.append(args[5].place[:2].any()) or plain(*args))
    for _ in range(20):
        codes = rng.choice([0, 7, 255], (6, 5, 6, 7)).astype(np.uint8)
        offsets = [*NEAREST, (0, -2, 0), (1, 0, -3), (0, 3, 1)]
        check(Case(codes, offsets, 3, None, (1, 1, 1), None, (0, 0, 0)))
    assert sum(resumed) > 100


def test_codes_that_decode_alike_are_one_strength() -> None:
    """A table with plateaus: such codes tie, and ties go by channel and voxel."""
    rng = np.random.default_rng(32)
    for _ in range(60):
        case = random_case(rng)
        codes = rng.integers(0, 256, case.affinities.shape).astype(np.uint8)
        table = np.repeat(np.sort(rng.integers(0, 65536, 4)), 64)
        check(replace(case, affinities=codes, table=table))


def test_float32_is_not_rounded() -> None:
    """Neighbouring floats, far too close for 16 or 24 bits of strength, keep their order."""
    close = np.float32(0.3) + np.arange(6, dtype=np.float32) * np.spacing(np.float32(0.3))
    rng = np.random.default_rng(33)
    for _ in range(60):
        case = random_case(rng)
        check(replace(case, affinities=rng.choice(close, case.affinities.shape), table=None))


# ---- controls: each rule broken once must be caught by the cases above ----------------------------------------------


def differing(broken: Any, *, cases: int = 150) -> int:
    rng = np.random.default_rng(40)
    found = [random_case(rng) for _ in range(cases)]
    return sum(not np.array_equal(broken(case), reference(case)) for case in found)


def test_control_ties_by_another_order() -> None:
    def voxel_first(case: Case) -> np.ndarray:
        return decide(case, sorted(edges_of(case), key=lambda edge: (edge[0], edge[2], edge[1])))

    def last_channel_first(case: Case) -> np.ndarray:
        return decide(case, sorted(edges_of(case), key=lambda edge: (edge[0], -edge[1], edge[2])))

    assert differing(voxel_first) > 5
    assert differing(last_channel_first) > 5


def test_control_mutexes_are_inherited_and_refuse() -> None:
    assert differing(lambda case: decide(case, edges_of(case), inherit=False)) > 5
    assert differing(lambda case: decide(case, edges_of(case), refuse=False)) > 5


def test_control_strides_are_anchored_in_the_layer() -> None:
    assert differing(lambda case: decide(case, edges_of(case, global_strides=False))) > 5


@pytest.mark.parametrize("mutant", ["low + 1", "high - 1", "drops one", "stale roots", "unsorted"])
def test_control_a_broken_band_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    plain = op.emit

    def emit(scene: Any, low: int, high: int, state: Any, keys: Any, *rest: Any) -> int:
        low += mutant == "low + 1"
        high -= mutant == "high - 1"  # high + 1 is no mutant: what has been decided once is final
        count = plain(scene, low, high, state, keys, *rest)
        if mutant == "drops one" and count > 1:
            keys[0] = keys[1]
        return count

    class Unsorted(np.ndarray):
        def sort(self, *_: Any, **__: Any) -> None:
            """Leave it."""

    monkeypatch.setattr(op, "emit", emit)
    monkeypatch.setattr(op, "BAND", 0.3)
    if mutant == "stale roots":
        monkeypatch.setattr(op, "_flatten", lambda link, roots: None)
    if mutant == "unsorted":
        monkeypatch.setattr(op, "new_keys", lambda size: np.empty(size, np.uint64).view(Unsorted))
    assert differing(lambda case: case.fast()[0]) > 5


# ---- the rest of the contract ---------------------------------------------------------------------------------------


def test_an_attractive_edge_of_strength_0_does_not_exist() -> None:
    for kind in (np.uint8, np.uint16, np.float32):
        labels, count = mutex_watershed(np.zeros((3, 2, 2, 2), kind), NEAREST, attractive=3)
        np.testing.assert_array_equal(labels, np.arange(1, 9).reshape(2, 2, 2))
        assert count == 8


def test_nothing_but_masked_voxels() -> None:
    labels, count = mutex_watershed(
        np.ones((3, 2, 2, 2), np.float32), NEAREST, attractive=3, mask_ZYX=np.zeros((2, 2, 2), bool)
    )
    assert not labels.any()
    assert count == 0


def test_what_cannot_be_meant_is_refused() -> None:
    codes = np.ones((3, 2, 2, 2), np.uint8)
    with pytest.raises(WrongType, match="float64"):
        mutex_watershed(codes.astype(np.float64), NEAREST, attractive=3)
    with pytest.raises(WrongShape, match="2 offsets"):
        mutex_watershed(codes, NEAREST[:2], attractive=2)
    with pytest.raises(WrongShape, match="mask"):
        mutex_watershed(codes, NEAREST, attractive=3, mask_ZYX=np.ones((2, 2, 3), bool))
    with pytest.raises(WrongShape, match="code table"):
        mutex_watershed(codes, NEAREST, attractive=3, code_table=np.arange(256)[::-1])


def test_more_edges_than_a_key_can_number_are_refused() -> None:
    many = np.broadcast_to(np.uint8(1), (3, 1 << 10, 1 << 10, 1 << 11))
    with pytest.raises(WrongShape, match="smaller tiles"):
        mutex_watershed(many, NEAREST, attractive=3)


def test_names_are_ids_of_first_voxels() -> None:
    rng = np.random.default_rng(50)
    for _ in range(50):
        labels = rng.integers(0, 9, tuple(rng.integers(1, 6, 3))).astype(np.uint32)
        origin = tuple(int(n) for n in rng.integers(0, 1 << 20, 3))
        found, name, volume = named(labels, origin)
        assert (np.diff(name.astype(np.int64)) > 0).all()
        assert volume.sum() == np.count_nonzero(labels)
        for label in np.unique(labels[labels > 0]):
            z, y, x = (int(v) + o for v, o in zip(np.argwhere(labels == label)[0], origin, strict=True))
            expected = 1 + (z << 42 | y << 21 | x)
            assert set(found[labels == label].tolist()) == {expected}
            assert volume[name == expected] == (labels == label).sum()
        assert not found[labels == 0].any()
        assert name.size == np.unique(labels[labels > 0]).size
