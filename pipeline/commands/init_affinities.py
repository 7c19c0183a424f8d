"""`neurotile init --affinities FILE`: a commented config for affinities made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import WrongShape
from pipeline.sources import Source, open_source

MOST_CHANNELS = 64  # a first or last axis that is longer holds no channels

TEMPLATE = """\
# A neurotile run on affinities made elsewhere: no network is run. `neurotile plan {name}` shows what it would do.
# Every value below is the default unless a comment says otherwise. Unknown keys are refused.

[affinities]
path = {path}   # {described}
axes = "{axes}"                   # seen in the file; "CZYX" or "ZYXC"
{voxel_size}# A channel with offset o (z, y, x): its value at p is the edge p, p + o; with stored_at = "end": p - o, p.
offsets = [{offsets}]{guessed}
stored_at = "start"
kind = "affinity"               # "boundary": high values part
clip = false                    # true: cut floats off at 0 and 1 rather than refuse them

# [input]
# truth = "labels.zarr"         # label volume to score against
# image = "image.zarr"          # only shown

# [roi]                         # write only this region
# begin = [0, 0, 0]
# end = [{roi}]

[fragments]                     # steepest-ascent watershed
low = {low}                      # edges at or below do not exist; raise it when fragments leak
high = {high}                    # edges at or above always join; lower it for fewer fragments
dust_vx = {dust}

[agglomerate]
floor = {floor}                     # the merge tree reaches down to here

[relabel]
threshold = {threshold}                # any value from floor up is a relabel away; raise it when objects are merged

[blocks]                        # how the work is cut: never part of the answer
shape = {shape}
chunk = {chunk}

[workers]
executor = "daisy"              # "serial" for debugging
cpu = {{ count = {count}, memory_gb = {memory} }}
"""


def affinities_config_text(location: str, out: Path) -> str:
    """The commented config, with what the file shows filled in."""
    path = str(Path(location).absolute())
    source = open_either_way(path)
    channels = source.channels or 0
    default = RunConfig.model_validate({"affinities": {"path": path}})
    nearest = ["[-1, 0, 0]", "[0, -1, 0]", "[0, 0, -1]"]
    unknown = ["[?, ?, ?]"] * (channels - len(nearest))
    size = " x ".join(str(extent) for extent in source.shape)
    known = source.voxel_size
    return TEMPLATE.format(
        name=out,
        path=json.dumps(path),
        described=f"{channels} channels of {size} {source.dtype}, {known or 'voxel size unknown'}",
        axes=source.stored_axes.upper(),
        voxel_size="" if known else "voxel_size_nm = [?, ?, ?]       # the file does not say: fill in z, y, x\n",
        offsets=", ".join((nearest + unknown)[: max(channels, len(nearest))]),
        guessed="   # fill in those of the further channels, and check the first three" if unknown else "   # check",
        roi=", ".join(str(extent) for extent in source.shape),
        low=default.fragments.low,
        high=default.fragments.high,
        dust=default.fragments.dust_vx,
        floor=default.agglomerate.floor,
        threshold=default.relabel.threshold,
        shape=list(default.blocks.shape),
        chunk=list(default.blocks.chunk),
        count=default.workers.cpu.count,
        memory=default.workers.cpu.memory_gb,
    )


def open_either_way(location: str) -> Source:
    """Open affinities whose channels come first or last: the file's axis names decide, or the shorter axis."""
    try:
        source = open_source(location, axes="czyx")
    except WrongShape:
        return open_source(location, axes="zyxc")
    if (source.channels or 0) <= min(MOST_CHANNELS, source.shape[2]):
        return source
    try:
        return open_source(location, axes="zyxc")
    except WrongShape:
        return source
