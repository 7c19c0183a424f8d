"""Which part of the layer is kept at its voxel size: the region of interest, and what is looked at around it."""

from __future__ import annotations

from pipeline.errors import WrongVoxelSize
from pipeline.geometry import Box, Index, VoxelSize
from pipeline.ops.affinities import reading
from pipeline.ops.noisy_affinities import Recipe, recipe
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
    """How far around the region image and truth are kept: what networks see, or generated affinities depend on."""
    extents = [around_self_touches(site)]
    recipe = label_recipe(site)
    if recipe is not None:
        before, after = recipe.halo
        extents.append(_index([max(pair) for pair in zip(before, after, strict=True)]))
    else:
        networks = [site.facts.get("weights") or {}, *site.facts.get("override_weights", ())]
        extents += [_index(network["patch"]) for network in networks if network.get("patch")]
    z, y, x = (max(extent[axis] for extent in extents) for axis in range(3))
    return (z, y, x)


def around_self_touches(site: Site) -> Index:
    """How far around a contact its judge looks, in the layer's voxels: a patch, which it is the centre of."""
    weights = site.facts.get("self_touch_weights")
    if not weights:
        return (0, 0, 0)
    return _index([(n + 1) * f for n, f in zip(weights["patch"], self_touch_factor(site), strict=True)])


def self_touch_factor(site: Site) -> Index:
    """How many of the layer's voxels make up one of the network that judges self-touches."""
    weights = VoxelSize.from_nm(site.facts["self_touch_weights"]["spec"]["voxel_size_nm"])
    factor = weights.ratio(site.layer.voxel_size)
    if factor is None:
        raise WrongVoxelSize(
            f"the layer has voxels of {site.layer.voxel_size}, the weights that judge self-touches were trained at "
            f"{weights}: not a whole multiple",
            where="self_touch.weights",
            way_out="name weights of the layer's voxel size or a coarser one",
        )
    return factor


def label_recipe(site: Site) -> Recipe | None:
    """How the run's affinities are made from labels, if they are."""
    settings = site.config.affinities
    if settings is None or settings.from_labels is None:
        return None
    own = settings.from_labels
    return recipe(
        reading(settings.offsets).offsets,
        seed=own.seed,
        noise=own.noise,
        smooth_vx=own.smooth_vx,
        voxel_pm=site.layer.voxel_size.pm,
    )


def context_box(site: Site) -> Box:
    """The region of interest with its halo, inside the layer. Grids of the image are anchored at its corner."""
    return site.layer.roi.grow(halo(site)).clip(site.layer.box)


def _index(values: list[int] | tuple[int, ...]) -> Index:
    z, y, x = values
    return (z, y, x)
