"""`neurotile init IMAGE`: a commented config for a volume."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from models.spec import load_spec
from pipeline.commands.init_affinities import affinities_config_text
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.geometry import VoxelSize
from pipeline.sections import Pool
from pipeline.sources import open_source

TEMPLATE = """\
# A neurotile run. `neurotile plan {name}` shows what it would do, `neurotile run {name}` does it.
# Every value below is the default unless a comment says otherwise. Unknown keys are refused.

[input]
image = {image}{described}
{voxel_size}# truth = "labels.zarr"        # label volume to score against
{scale}

# [roi]                        # write only this region, in voxels of the segmented layer
# begin = [0, 0, 0]
# end = [{roi}]

# [[mask]]                     # leave out the non-zero voxels of this volume
# path = "skip.zarr"
# role = "skip"                # "background": predict them, but give them no label

# [[mask]]                     # 1 to 255: classes, which keep fragments apart; 0: none
# path = "classes.zarr"
# role = "class"
# share = 0.5                  # of a fragment's voxels that its class must have
# names = {{ 1 = "vessel", 2 = "soma" }}

[predict]
weights = "{weights}"                # shipped weights, or the .json beside your own .safetensors{weights_note}
device = "cpu"                  # "cuda" where there is one
threads = 1                     # per worker; more is often slower when workers share cores
batch = {batch}                       # patches at once; lower it when memory runs out

[fragments]                     # steepest-ascent watershed; other methods have sections of their own
# method = "mutex_watershed"    # needs long-range affinities; or "seeded" (scikit-image), "waterz"
thresholds = "{thresholds}"         # or "percentile": low and high as shares of the histogram
low = {low}                       # edges at or below do not exist; raise it when fragments leak
high = {high}                     # edges at or above always join; lower it for fewer fragments
size_vx = {size}                     # smaller fragments are linked along their strongest edges; 0: none
dust_vx = {dust}                     # fragments with fewer voxels become background

[agglomerate]
score = "mean"                  # of a contact's affinities; or "max", "quantile", "none" (fragments are segments)
floor = {floor}                     # the merge tree reaches down to here

[relabel]
threshold = {threshold}                 # any value from floor up is a relabel away; raise it when objects are merged

# [self_touch]                  # merges parts of objects that touch themselves
# enabled = true
# weights = "NET.safetensors"   # of an embedding net; none needed where predict.weights is one

[pyramid]
levels = {levels}                      # coarser copies for viewers

[blocks]                        # how the work is cut: never part of the answer
shape = {shape}         # larger blocks: fewer files, more memory
chunk = {chunk}          # must divide shape

[workers]
executor = "daisy"              # "serial" for debugging
cpu = {{ count = {count}, memory_gb = {memory} }}
gpu = {{ count = 1, memory_gb = {memory} }}   # the workers that run the network, on whatever device

[limits]
inodes = {inodes}              # refuse to make more files and folders
"""


def init(
    image: Annotated[
        str | None, Parameter(help="zarr array or OME-Zarr group, FILE.h5:dataset, FILE.npz:name, or .npy")
    ] = None,
    /,
    *,
    affinities: Annotated[
        str | None, Parameter(help="affinities made elsewhere, in place of an image: no network will be run")
    ] = None,
    out: Annotated[Path, Parameter(help="where to write the config")] = Path("neurotile.toml"),
    scale: Annotated[int | None, Parameter(help="which scale of a multiscale image")] = None,
    weights: Annotated[str, Parameter(help="weights the run will use")] = "tiny",
) -> int:
    """Look at an image, or at affinities, and write a config for it, with a comment on every value."""
    if out.exists():
        raise ConfigError(f"{out} exists", way_out="choose another --out, or remove it")
    if (image is None) == (affinities is None):
        raise ConfigError("name either an image or --affinities", way_out="neurotile init IMAGE")
    if image is not None:
        text = config_text(image, out, scale=scale, weights=weights)
    else:
        text = affinities_config_text(str(affinities), out)
    out.write_text(text, encoding="utf-8")
    sys.stderr.write(f"wrote {out}; next: neurotile plan {out}\n")
    return 0


def config_text(image: str, out: Path, *, scale: int | None, weights: str) -> str:
    """The commented config."""
    location = str(Path(image).absolute())
    source = open_source(location, scale)
    spec = load_spec(weights)
    default = RunConfig.model_validate({"input": {"image": location}})
    wanted = VoxelSize.from_nm(spec.voxel_size_nm)
    known = source.voxel_size
    stated = "" if known is not None else "voxel_size_nm = [?, ?, ?]   # the file does not say: fill in z, y, x\n"
    factor = (1, 1, 1) if known is None else wanted.ratio(known) or (1, 1, 1)
    layer = [extent // f for extent, f in zip(source.shape, factor, strict=True)]
    return TEMPLATE.format(
        name=out,
        image=json.dumps(location),
        described=f"   # {' x '.join(str(s) for s in source.shape)} {source.dtype}, {known or 'voxel size unknown'}",
        voxel_size=stated,
        scale="# scale = 0                    # of a multiscale image" if scale is None else f"scale = {scale}",
        roi=", ".join(str(extent) for extent in layer),
        weights=weights,
        weights_note=_note(known, wanted),
        batch=default.predict.batch,
        thresholds=default.fragments.thresholds,
        low=default.fragments.low,
        high=default.fragments.high,
        dust=default.fragments.dust_vx,
        size=default.fragments.size_vx,
        floor=default.agglomerate.floor,
        threshold=default.relabel.threshold,
        levels=default.pyramid.levels,
        shape=list(default.blocks.shape),
        chunk=list(default.blocks.chunk),
        count=default.workers.cpu.count,
        memory=Pool().memory_gb,
        inodes=default.limits.inodes,
    )


def _note(known: VoxelSize | None, wanted: VoxelSize) -> str:
    if known is None or wanted.ratio(known) is not None:
        return f"\n                                # they read voxels of {wanted}"
    return f"\n# These weights read voxels of {wanted}, which is no whole multiple of {known}: `plan` will refuse."
