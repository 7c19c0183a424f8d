"""Which part of the layer is kept at its voxel size: the region of interest, and what the networks see around it."""

from __future__ import annotations

from pipeline.errors import WrongVoxelSize
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.stages.stage import Site


def source_factor(site: Site) -> Index:
    """How many voxels of the image, as it is given, make up one of the layer."""
    source = VoxelSize(_index(site.facts["image"]["voxel_size_pm"]))
    factor = site.layer.voxel_size.ratio(source)
    if factor is None:
        raise WrongVoxelSize(
            f"the image has voxels of {source}, the layer of {site.layer.voxel_size}: not a whole multiple",
            where="input",
            way_out="state the right input.voxel_size_nm, choose another scale of the image, or other weights",
        )
    return factor


def halo(site: Site) -> Index:
    """How far around the region the image is kept: the longest patch of any network of the run."""
    networks = [site.facts.get("weights") or {}, *site.facts.get("override_weights", ())]
    patches = [_index(network["patch"]) for network in networks if network.get("patch")]
    z, y, x = (max((patch[axis] for patch in patches), default=0) for axis in range(3))
    return (z, y, x)


def context_box(site: Site) -> Box:
    """The region of interest with its halo, inside the layer. Grids of the image are anchored at its corner."""
    return site.layer.roi.grow(halo(site)).clip(site.layer.box)


def _index(values: list[int] | tuple[int, ...]) -> Index:
    z, y, x = values
    return (z, y, x)
