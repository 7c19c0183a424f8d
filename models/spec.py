"""What a weights file says about itself: everything inference needs to know, without torch.

`NAME.json` stands beside `NAME.safetensors` and holds this spec, with the SHA-256 of the safetensors file in it.
Affinities are stored as uint8 codes; `code_table` gives the integer (0..65535) behind every code.

`architecture` is what `models.networks` builds:

    {"name": "rsunet", "widths": [16, 32, 64, 128], "heads": {"affinity": 12}}
    {"name": "rsunet_p", "widths": [28, 36, 48, 64, 80], "heads": {"affinity": 12}, "norm": "running"}
    {"name": "rsunet", "widths": [16, 32, 64, 128], "heads": {"embedding": 24, "background": 1}, "crop": [2, 16, 16]}

`heads` gives every head its channels: either "affinity" (logits, one channel an offset; "background" may stand beside
it) or "embedding" (vectors) with "background" (one logit). `crop` is what the network cuts off either side of z, y, x
of its output; without it nothing. `norm` says what statistics normalise: "instance" (rsunet, may be left out) are the
patch's own, "running" (rsunet_p) those of training: batch norm in eval mode. Neither sees what else is in a batch.

`patch` is the network's input; `stride` is the step of its output, whose extent is `patch` less twice the `crop`.
y and x of `patch` divide by 2 ** (scales - 1). `offsets` are the edges (z, y, x) that the weights know, the three
nearest ones first. For an embedding they are the edges of the metric graph, and one key more, `delta`, says how far:
the affinity of an edge whose ends are d apart (L1) is max((2 delta - d) / (2 delta), 0) ** 2.

    {"architecture": ..., "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], ...], "delta": 1.5,
     "voxel_size_nm": [29, 12, 12], "patch": [20, 128, 128], "stride": [8, 48, 48], ...}

With a head "background", `background_threshold` may say from which probability on a voxel is background; a run's config
holds against it.

`recipes` may hold post-processing that was tuned for these weights, by name: sections of a run's config, and under
"tuned" what by, and how well it did. A run takes one up by its config's `recipe` (`pipeline.recipes`).

    "recipes": {"mean": {"fragments": {"low": 0.02}, "relabel": {"threshold": 0.6}, "tuned": {"voi": 0.62, ...}}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from models.architecture import Architecture, read, require
from models.errors import WeightsInvalid

Index = tuple[int, int, int]

FORMAT = 1
CODES = 256
TOP = 65535  # the integer that stands for probability 1
NEAREST: tuple[Index, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
NORMALISATIONS = ("u8/255",)
OPTIONAL = {"delta", "background_threshold", "recipes"}  # keys that only some specs have
DECIDES_NOTHING = ("training", "recipes")  # of what the network says
SHIPPED = Path(__file__).parent / "shipped"


def smooth_code_table() -> tuple[int, ...]:
    """The default table: 65535 * t^2 (3 - 2t) for t = code / 255, so codes lie densest near 0 and 1."""
    steps = CODES - 1
    return tuple(
        (2 * TOP * code * code * (3 * steps - 2 * code) + steps**3) // (2 * steps**3)  # rounded, integers only
        for code in range(CODES)
    )


@dataclass(frozen=True)
class WeightsSpec:
    """The contract between a network, its training and everything that applies it."""

    architecture: Mapping[str, Any]  # as above; `network` is the same, read
    offsets: tuple[Index, ...]  # of the edges that the weights know; the first three are the nearest ones
    voxel_size_nm: tuple[float, float, float]
    patch: Index
    stride: Index
    code_table: tuple[int, ...] = field(default_factory=smooth_code_table)
    normalisation: str = "u8/255"
    training: Mapping[str, Any] = field(default_factory=dict)  # provenance; decides nothing
    sha256: str = ""  # of the safetensors file
    format: int = FORMAT
    delta: float | None = None  # of an embedding: half the distance at which affinity ends
    background_threshold: float | None = None  # voxels at or above this probability are background
    recipes: Mapping[str, Mapping[str, Any]] | None = None  # tuned post-processing

    def __post_init__(self) -> None:
        """Refuse what cannot work, before any array is touched."""
        _check_kind(self)
        _check_offsets(self)
        _check_patch(self)
        _check_code_table(self.code_table)

    @property
    def network(self) -> Architecture:
        """The architecture, read."""
        return read(self.architecture)

    @property
    def output(self) -> Index:
        """The extent of what the network says about one patch: the patch less the crop on either side."""
        return self.network.output(self.patch)

    @property
    def has_background(self) -> bool:
        """Whether the network says which voxels are background."""
        return "background" in self.network.heads

    @property
    def exchangeable(self) -> bool:
        """Whether y and x of a patch may change places."""
        y, x = zip(self.patch[1:], self.output[1:], self.voxel_size_nm[1:], strict=True)
        return y == x

    def unseen(self, offsets: Sequence[Index]) -> tuple[Index, ...]:
        """The offsets of which some edge lies in no patch: patches must overlap by more than the edge is long."""
        room = [n - s for n, s in zip(self.output, self.stride, strict=True)]
        return tuple(offset for offset in offsets if any(abs(o) > r for o, r in zip(offset, room, strict=True)))

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides an answer, as JSON: the hash of the weights, but not how they were trained."""
        return {name: value for name, value in self.to_json().items() if name not in DECIDES_NOTHING}

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values; what does not apply is left out."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in plain.items() if name not in OPTIONAL or value is not None}


def _check_kind(spec: WeightsSpec) -> None:
    require(spec.format == FORMAT, f"the spec has format {spec.format!r}; this version reads format {FORMAT}")
    embeds = "embedding" in spec.network.heads
    require(embeds or spec.delta is None, "the spec has a delta, but its network has no head 'embedding'")
    require(
        not embeds or (spec.delta is not None and 0 < spec.delta < inf),
        f"an embedding needs a positive delta, not {spec.delta!r}",
    )
    threshold = spec.background_threshold
    require(
        threshold is None or (spec.has_background and 0 < threshold <= 1),
        f"background_threshold {threshold!r} is no probability above 0, or there is no head 'background'",
    )
    require(
        spec.normalisation in NORMALISATIONS,
        f"the normalisation is {spec.normalisation!r}; known: {', '.join(NORMALISATIONS)}",
    )
    sizes = spec.voxel_size_nm
    require(len(sizes) == 3 and min(sizes) > 0, f"voxel_size_nm {list(sizes)} is not three positive lengths")


def _check_offsets(spec: WeightsSpec) -> None:
    require(spec.offsets[:3] == NEAREST, f"the first three offsets are {spec.offsets[:3]}, they must be {NEAREST}")
    edges = {max(offset, tuple(-o for o in offset)) for offset in spec.offsets}
    require(
        len(edges) == len(spec.offsets) and (0, 0, 0) not in edges,
        f"offsets {spec.offsets} hold an edge twice, or one from a voxel to itself",
    )
    channels = spec.network.heads.get("affinity", len(spec.offsets))
    require(
        channels == len(spec.offsets), f"the head 'affinity' has {channels} channels for {len(spec.offsets)} offsets"
    )


def _check_patch(spec: WeightsSpec) -> None:
    require(len(spec.patch) == 3 and min(spec.patch) >= 2, f"patch {spec.patch} needs two voxels along every axis")
    network = spec.network
    require(
        all(extent % network.divisor == 0 for extent in spec.patch[1:]),
        f"patch {spec.patch}: y and x must divide by {network.divisor}, which {len(network.widths)} scales need",
    )
    output = spec.output
    require(min(output) >= 2, f"crop {network.crop} leaves {output} of the patch {spec.patch}: too little")
    # An edge exists only inside a patch: neighbouring patches must share the voxels of the nearest edges.
    require(
        len(spec.stride) == 3 and all(0 < s < n for s, n in zip(spec.stride, output, strict=True)),
        f"stride {spec.stride} must be positive and smaller than the patch {output} that the network puts out",
    )
    require(
        all(abs(o) < n for offset in spec.offsets for o, n in zip(offset, output, strict=True)),
        f"offsets {spec.offsets}: an edge leaves the patch {output} that the network puts out from every voxel",
    )


def _check_code_table(table: Sequence[int]) -> None:
    require(len(table) == CODES, f"the code table has {len(table)} entries, it needs {CODES}")
    require(all(isinstance(value, int) for value in table), "the code table holds something else than whole numbers")
    require(table[0] == 0 and table[-1] == TOP, f"the code table runs from {table[0]} to {table[-1]}, not 0 to {TOP}")
    require(all(a <= b for a, b in pairwise(table)), "the code table is not monotone")


# ---- files ----------------------------------------------------------------------------------------------------------
def from_json(data: Mapping[str, Any]) -> WeightsSpec:
    """A spec from plain JSON values; WeightsInvalid says what is wrong with them."""
    known = {f.name for f in fields(WeightsSpec)}
    unknown, missing = sorted(set(data) - known), sorted(known - OPTIONAL - set(data))
    require(not unknown and not missing, f"the spec has unknown keys {unknown} and lacks {missing}")
    try:
        return WeightsSpec(
            **{
                **data,
                "offsets": tuple(_index(offset) for offset in data["offsets"]),
                "voxel_size_nm": tuple(float(length) for length in data["voxel_size_nm"]),
                "patch": _index(data["patch"]),
                "stride": _index(data["stride"]),
                "code_table": tuple(data["code_table"]),
                **{
                    key: None if data.get(key) is None else float(data[key])
                    for key in ("delta", "background_threshold")
                },
                "recipes": _recipes(data.get("recipes")),
            }
        )
    except WeightsInvalid:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        raise WeightsInvalid(f"the spec holds a value of the wrong kind: {error}") from None


def _index(values: Sequence[int]) -> Index:
    require(
        len(values) == 3 and all(isinstance(v, int) for v in values), f"{values!r} is not three whole numbers (z, y, x)"
    )
    z, y, x = values
    return (z, y, x)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _recipes(values: Any) -> Mapping[str, Mapping[str, Any]] | None:
    tables = isinstance(values, Mapping) and all(isinstance(recipe, Mapping) for recipe in values.values())
    require(
        values is None or (tables and all(isinstance(part, Mapping) for r in values.values() for part in r.values())),
        "recipes are no tables of sections by name",
    )
    return values  # type: ignore[no-any-return]


def encoded(spec: WeightsSpec) -> bytes:
    """The spec as the bytes of its file: a line for every key."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in spec.to_json().items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def find(name_or_path: str) -> Path:
    """The spec's file behind a shipped name (`tiny`) or a path to either file of the pair."""
    path = Path(name_or_path)
    if path.suffix in (".json", ".safetensors"):
        return path.with_suffix(".json")
    if "/" not in name_or_path:
        return SHIPPED / f"{name_or_path}.json"
    return path.with_name(path.name + ".json")


def shipped() -> list[str]:
    """The names of the weights that come with the code."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def load_spec(name_or_path: str, *, verify: bool = True) -> WeightsSpec:
    """Read a spec and check that the weights beside it are the ones it was written for."""
    path = find(name_or_path)
    try:
        spec = from_json(json.loads(path.read_text(encoding="utf-8")))
        if verify:
            read_verified(path, spec)
    except WeightsInvalid as error:
        raise WeightsInvalid(error.what, where=error.where or str(path)) from None
    except OSError as error:
        raise WeightsInvalid(f"cannot read the weights' spec: {error.strerror}", where=str(path)) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsInvalid(f"the spec is not JSON: {error}", where=str(path)) from None
    return spec


def read_verified(path: Path, spec: WeightsSpec) -> bytes:
    """The bytes of the safetensors file beside a spec, only if they have the hash that the spec states."""
    weights = path.with_suffix(".safetensors")
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise WeightsInvalid(f"cannot read the weights: {error.strerror}", where=str(weights)) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != spec.sha256:
        raise WeightsInvalid(
            f"the weights have SHA-256 {digest[:16]}…, their spec says {spec.sha256[:16]}…", where=str(weights)
        )
    return content
