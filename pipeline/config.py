"""One TOML file describes a run. Frozen models; unknown keys are refused; every field says what it affects.

A field affects the ANSWER (default: it is part of the content identity of the stages that use it), only the LAYOUT
(how the work is cut and stored; the answer cannot change) or NOTHING that is stored (how and where work is executed).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.recipes import weights_location, with_recipe
from pipeline.sections import (
    LAYOUT,
    NOTHING,
    ClassNumber,
    Extent,
    Halo,
    Lengths,
    Limits,
    LoopKinds,
    Region,
    Section,
    SelfTouch,
    Share,
    Triple,
    Workers,
    absent,
)


class Synthetic(Section):
    """A generated volume: every voxel a function of the seed and its position alone."""

    seed: int = Field(0, ge=0, lt=2**32)
    size: Extent = (64, 512, 512)
    voxel_size_nm: Lengths = (30.0, 6.0, 6.0)
    self_touching: bool = False
    loops: LoopKinds | None = Field(None, exclude_if=absent)  # processes whose arms touch, at known places

    @model_validator(mode="after")
    def _one_way_to_touch(self) -> Self:
        if self.self_touching and self.loops is not None:
            raise ValueError("loops are the only self-contacts of their volume: leave self_touching out")
        return self


class Input(Section):
    """The image, and the truth if there is one: files read in place, or a generated volume."""

    image: str | None = Field(None, json_schema_extra=NOTHING)  # the fingerprint is the identity, not the path
    truth: str | None = Field(None, json_schema_extra=NOTHING)
    scale: int | None = None  # which scale of a multiscale image
    voxel_size_nm: Lengths | None = None  # when the file does not say
    truth_voxel_size_nm: Lengths | None = None
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.image is not None and self.synthetic is not None:
            raise ValueError("give either input.image or [input.synthetic]")
        if self.synthetic is not None and self.truth is not None:
            raise ValueError("a synthetic volume brings its own truth")
        return self


class FromLabels(Section):
    """Affinities made from the truth, with noise: for tests and runs at scale."""

    noise: Share = 0.2  # 0.2: boundaries hold, mostly; 0.6: they leak
    smooth_vx: float = Field(3.0, ge=1.0, le=256.0)  # how far noise hangs together, in voxels of the finest axis
    seed: int = Field(0, ge=0, lt=2**32)
    dtype: Literal["uint8", "uint16"] = "uint8"


class Affinities(Section):
    """Affinities made elsewhere, or generated, in place of a network's. A channel's value at p: edge p, p + offset."""

    path: str | None = Field(None, json_schema_extra=NOTHING)  # the fingerprint is the identity, not the path
    from_labels: FromLabels | None = None
    offsets: Annotated[tuple[Triple, ...], Field(min_length=3)] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    channels: tuple[Annotated[int, Field(ge=0)], ...] | None = None  # which the offsets belong to; default: all
    stored_at: Literal["start", "end"] = "start"  # end: the value at p is the edge p - offset, p
    axes: Literal["CZYX", "ZYXC"] = "CZYX"
    kind: Literal["affinity", "boundary"] = "affinity"  # boundary: a value b counts as the affinity 1 - b
    clip: bool = False  # cut floats off at 0 and 1 rather than refuse them
    scale: int | None = None  # which scale of a multiscale array
    voxel_size_nm: Lengths | None = None  # when the file does not say

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.from_labels is None):
            raise ValueError("give either affinities.path or [affinities.from_labels]")
        for name in ("channels", "stored_at", "axes", "kind", "clip", "scale", "voxel_size_nm"):
            if self.from_labels is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"affinities.{name} describes a file, and affinities.from_labels has none")
        if self.channels is not None and len(self.channels) != len(self.offsets):
            raise ValueError(f"affinities.channels has {len(self.channels)} entries for {len(self.offsets)} offsets")
        return self


class Mask(Section):
    """A volume that covers the layer at some whole-number scale; its non-zero voxels are left out, or are classes."""

    path: str = Field(json_schema_extra=NOTHING)
    role: Literal["skip", "background", "class"] = "skip"  # background: predicted, without a label; class: 1 to 255
    voxel_size_nm: Lengths | None = None
    share: Share = 0.5  # class: of a fragment's voxels that its class must have, to three decimals
    names: dict[ClassNumber, str] = Field({}, json_schema_extra=NOTHING)  # class: what the report calls them

    @model_validator(mode="after")
    def _suits_its_role(self) -> Self:
        if self.role != "class" and (self.names or self.share != 0.5):
            raise ValueError(f'share and names are about classes, and this mask has role = "{self.role}"')
        if round(self.share, 3) != self.share:
            raise ValueError(f"share {self.share} has more than three decimals")
        return self


class Override(Section):
    """Other weights for a region, so that a corner can be retrained without redoing the rest."""

    roi: Region
    weights: str = Field(json_schema_extra=NOTHING)


class Predict(Section):
    """The network's part."""

    weights: str = Field("tiny", json_schema_extra=NOTHING)  # a shipped name or a path; its hash is the identity
    block: Extent | None = Field(None, json_schema_extra=LAYOUT)  # default: chosen by the plan
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", json_schema_extra=NOTHING)
    threads: int = Field(1, ge=1, json_schema_extra=NOTHING)
    batch: int = Field(1, ge=1, json_schema_extra=NOTHING)  # belongs to run.json; lower it when memory runs out
    mixed_devices: bool = Field(False, json_schema_extra=NOTHING)  # let unlike devices share a run: bits may differ
    offsets: Literal["nearest", "all"] | None = None  # edges; default: what fragments.method needs of those known
    augment: Literal["none", "flips16"] = "none"  # flips16: the mean over 16 orientations of every patch
    precision: Literal["float32", "bfloat16"] = "float32"  # of the trunk; the rest is in float32
    background_threshold: Share | None = None  # from this probability on; default: the weights', or 0.6
    skip_empty: bool = False  # patches of one grey value have no edges and are not evaluated
    keep_embeddings: bool = False  # store an embedding net's vectors beside the codes, to be looked at
    override: tuple[Override, ...] = ()


class Fragments(Section):
    """How fragments are made. The rest of the section is about the watershed, which is exact over the whole volume.

    Its thresholds are shares of the affinity range, or percentiles of its histogram (256 bins). Other methods have
    sections.
    """

    method: Literal["watershed", "mutex_watershed", "seeded", "waterz"] = "watershed"
    thresholds: Literal["absolute", "percentile"] = "absolute"
    low: Share = 0.02  # edges at or below do not exist; raise it when fragments leak
    high: Share = 0.999  # edges at or above always join; lower it for fewer fragments
    size_vx: int = Field(0, ge=0, lt=1 << 31)  # fragments with fewer voxels are linked to their best neighbour
    dust_vx: int = Field(0, ge=0)  # fragments with fewer voxels become background


class Tiles(Section):
    """A method that sees one tile at a time; its answer depends on the tiles, not on blocks."""

    tile: Extent = (32, 128, 128)  # core; blocks must hold whole tiles
    halo: Halo = (4, 32, 32)  # seen around the core


class Seeded(Tiles):
    """scikit-image's watershed from the maxima of the distance transform."""

    threshold: Share = 0.5  # voxels with a boundary (1 - affinity) below are inside
    flat: bool = True  # in every section by itself


class Waterz(Tiles):
    """waterz's watershed and mean-affinity agglomeration."""

    low: Share = 0.0001
    high: Share = 0.9999
    threshold: Share = 0.5  # it merges above this mean affinity; what is left are the fragments


class MutexWatershed(Tiles):
    """Joined by near affinities, kept apart by those to voxels further away; needs more than 3 channels.

    "tiles" sees one tile at a time, then joins fragments exactly; "exact" is for up to about a gigavoxel.
    """

    mode: Literal["tiles", "exact"] = "tiles"
    attractive: int = Field(3, ge=3)  # the first channels join, the others keep apart
    strides: Extent = (1, 1, 1)  # others count at multiples of these positions only
    low: Share = 0.02  # voxels without an edge above are background
    dust_vx: int = Field(0, ge=0)  # fragments with fewer voxels become background


class RegionGraph(Section):
    """Pairs of fragments that touch."""

    histograms: bool = False  # keep every pair's histogram of affinities; a quantile score does so by itself


class Contacts(Section):
    """Connected places where two fragments touch: what a correction of self-contacts starts from."""

    enabled: bool = False  # self_touch.enabled makes them as well
    expand_xy: int = Field(0, ge=0, le=3)  # voxels that segments grow into background first; raise it over wide gaps


class Agglomerate(Section):
    """Agglomeration by a score of contacts; floor and thresholds are shares of the affinity range for all of them."""

    score: Literal["mean", "max", "quantile", "none"] = "mean"  # none: fragments are segments, and there is no tree
    quantile: int = Field(50, ge=1, le=99)  # percent; for the score of that name
    floor: Share = 0.1  # where agglomeration stops and the stored merge tree begins


class Relabel(Section):
    """From the merge tree to labels."""

    threshold: Share = 0.25  # any value from agglomerate.floor up; a relabel away
    upsample: bool = False  # labels at the image's voxel size as well, where the weights work at a coarser one


class Guards(Section):
    """Merges that are refused at any threshold, and all above them: a property of the merge tree, not of an order."""

    largest_vx: int = Field(0, ge=0)  # a merge whose object would have more voxels; 0: none is refused
    conflicting_classes: bool = True  # a merge whose object would hold fragments of two classes


class Pyramid(Section):
    """Coarser copies for viewers."""

    levels: int = Field(2, ge=0, le=10)


class Evaluate(Section):
    """Comparison with the truth, where there is one."""

    ignore_truth_zero: bool = True


class Sweep(Section):
    """Scores at many thresholds from agglomerate.floor up, where there are a truth and a merge tree."""

    thresholds: tuple[Share, ...] = tuple(round(0.05 * n, 2) for n in range(2, 19))  # 0.1 to 0.9; empty: no sweep


class Blocks(Section):
    """How the work is cut: never part of the answer."""

    shape: Extent = Field((32, 128, 128), json_schema_extra=LAYOUT)
    chunk: Extent = Field((32, 64, 64), json_schema_extra=LAYOUT)  # inner chunks of a shard; must divide shape


class RunConfig(Section):
    """A whole run."""

    recipe: str | None = Field(None, json_schema_extra=NOTHING)  # tuned for the weights; fills in what is left out
    input: Input = Input()
    affinities: Affinities | None = None  # given: no network is run
    roi: Region | None = None
    mask: tuple[Mask, ...] = ()
    predict: Predict = Predict()
    fragments: Fragments = Fragments()
    mutex_watershed: MutexWatershed = MutexWatershed()
    seeded: Seeded = Seeded()
    waterz: Waterz = Waterz()
    region_graph: RegionGraph = RegionGraph()
    contacts: Contacts = Contacts()
    agglomerate: Agglomerate = Agglomerate()
    self_touch: SelfTouch = SelfTouch()
    relabel: Relabel = Relabel()
    guards: Guards = Guards()
    pyramid: Pyramid = Pyramid()
    evaluate: Evaluate = Evaluate()
    sweep: Sweep = Sweep()
    blocks: Blocks = Blocks()
    workers: Workers = Workers()
    limits: Limits = Limits()
    holes: tuple[Region, ...] = ()  # of blocks that failed and were accepted as missing; the report says so

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        self._check_source()
        self._check_masks()
        self._check_self_touch()
        if self.relabel.upsample and self.affinities is not None:
            raise ValueError("relabel.upsample is about an image finer than the weights; given affinities have no such")
        if not self._merges and self.guards.largest_vx:
            raise ValueError('guards.largest_vx cuts the merge tree, and agglomerate.score = "none" makes none')
        if self.relabel.threshold < self.agglomerate.floor:
            raise ValueError(
                f"relabel.threshold {self.relabel.threshold} lies below agglomerate.floor {self.agglomerate.floor}: "
                "the merge tree does not reach that deep; lower the floor"
            )
        if self.fragments.low >= self.fragments.high:
            raise ValueError(f"fragments.low {self.fragments.low} must lie below fragments.high {self.fragments.high}")
        tiles = self._tiles
        if tiles is not None and any(s % t for s, t in zip(self.blocks.shape, tiles.tile, strict=True)):
            raise ValueError(f"blocks.shape {self.blocks.shape} must be a multiple of the tile {tiles.tile}")
        if any(s % c for s, c in zip(self.blocks.shape, self.blocks.chunk, strict=True)):
            raise ValueError(f"blocks.chunk {self.blocks.chunk} must divide blocks.shape {self.blocks.shape}")
        return self

    def _check_source(self) -> None:
        """Whether there is something to start from."""
        given, source = self.affinities, self.input
        if given is None:
            if source.image is None and source.synthetic is None:
                raise ValueError("give either input.image or [input.synthetic], or [affinities]")
        elif given.path is not None and source.synthetic is not None:
            raise ValueError("affinities.path and [input.synthetic] are two volumes: give one of them")
        elif given.from_labels is not None and source.truth is None and source.synthetic is None:
            raise ValueError("[affinities.from_labels] needs labels: give input.truth or [input.synthetic]")

    def _check_masks(self) -> None:
        """Whether classes are unambiguous and of use."""
        classes = sum(mask.role == "class" for mask in self.mask)
        if classes > 1:
            raise ValueError('give one mask of role = "class" with a number for every class')
        if classes and not self._merges:
            raise ValueError('classes keep fragments from merging, and agglomerate.score = "none" merges none')

    def _check_self_touch(self) -> None:
        """Whether self-touches can be corrected."""
        if not self.self_touch.enabled or self.affinities is None:
            return
        if self.input.image is None:
            raise ValueError("self_touch looks at the image: give input.image beside the affinities")
        if self.self_touch.weights is None:
            raise ValueError("self_touch.weights must name an embedding net where affinities are given")

    @property
    def _merges(self) -> bool:
        """Whether fragments are merged at all."""
        return self.agglomerate.score != "none" or self.self_touch.enabled

    @property
    def _tiles(self) -> Tiles | None:
        """The tiles of the chosen method, if it has any."""
        if self.fragments.method == "mutex_watershed" and self.mutex_watershed.mode == "tiles":
            return self.mutex_watershed
        return {"seeded": self.seeded, "waterz": self.waterz}.get(self.fragments.method)


def parse(data: dict[str, Any], *, where: str) -> RunConfig:
    """Check a mapping against the models; a ConfigError names every offending key."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc']) or 'config'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            "the configuration is not valid: " + "; ".join(problems),
            where=where,
            way_out="mend the named keys; `neurotile init` writes a commented example",
        ) from None


def load(path: Path) -> RunConfig:
    """Read a TOML file. Relative paths in it count from the file's own folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", where=str(path)) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}", where=str(path)) from None
    return anchored(parse(with_recipe(data, path.parent, where=str(path)), where=str(path)), path.parent)


def anchored(config: RunConfig, folder: Path) -> RunConfig:
    """The same config with every relative path made absolute; shipped weights keep their plain name."""

    def absolute(location: str | None) -> str | None:
        return None if location is None else str((folder / location).resolve())

    source = config.input.model_copy(
        update={"image": absolute(config.input.image), "truth": absolute(config.input.truth)}
    )
    given = config.affinities
    if given is not None:
        given = given.model_copy(update={"path": absolute(given.path)})
    masks = tuple(m.model_copy(update={"path": absolute(m.path)}) for m in config.mask)
    overrides = tuple(
        o.model_copy(update={"weights": weights_location(o.weights, folder)}) for o in config.predict.override
    )
    own = weights_location(config.predict.weights, folder)
    predict = config.predict.model_copy(update={"weights": own, "override": overrides})
    healed = config.self_touch
    if healed.weights is not None:
        healed = healed.model_copy(update={"weights": weights_location(healed.weights, folder)})
    sections = {"affinities": given, "mask": masks, "predict": predict, "self_touch": healed}
    return config.model_copy(update={"input": source, **sections})
