"""What a run must know about the world before it starts: inputs, masks, weights. Resolved once, kept in run.json.

Facts carry fingerprints and no paths: a moved file is the same input, an edited one is another. Nothing here imports
torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.errors import WeightsInvalid
from models.spec import WeightsSpec, load_spec, shipped
from pipeline.config import RunConfig
from pipeline.errors import BadWeights, CannotWork, ConfigError, WrongShape, WrongType, WrongVoxelSize
from pipeline.geometry import AXES, ID_BITS_PER_AXIS, Box, Index, Layer, VoxelSize
from pipeline.ops.affinities import reading
from pipeline.sections import Region
from pipeline.sources import Source, open_source

Facts = dict[str, Any]


def resolve(config: RunConfig) -> Facts:
    """Look at everything a config names; every problem is a named error."""
    affinities = _affinities(config)
    network = affinities is None
    weights = _weights(config.predict.weights) if network else None
    facts: Facts = {
        "image": _image(config),
        "affinities": affinities,
        "truth": _truth(config, affinities),
        "masks": [_mask(m.path, m.voxel_size_nm) for m in config.mask],
        "weights": weights,
        "override_weights": [_weights(o.weights) for o in config.predict.override] if network else [],
    }
    if config.self_touch.enabled:
        facts["self_touch_weights"] = _weights(config.self_touch.weights or config.predict.weights)
    _check_cover(config, facts)
    for other in facts["override_weights"]:
        for field in ("offsets", "voxel_size_nm", "code_table"):
            if weights is None or other["spec"][field] != weights["spec"][field]:
                raise ConfigError(
                    f"the weights of an override differ from predict.weights in {field}",
                    where=f"predict.override: {other['spec'].get('name', '?')}",
                    way_out="train both with the same offsets, voxel size and code table",
                )
    return facts


def layer_of(config: RunConfig, facts: Facts) -> Layer:
    """The layer that is segmented, and the region of interest in it."""
    shape, voxel_size = _extent(config, facts)
    for axis, extent in zip(AXES, shape, strict=True):
        if extent > 1 << ID_BITS_PER_AXIS:
            raise CannotWork(
                f"the layer has {extent} voxels along {axis}; ids hold positions up to {1 << ID_BITS_PER_AXIS}",
                way_out="segment the volume in parts, each a layer of its own",
            )
    return Layer(shape, _roi(config.roi, shape), voxel_size)


def _extent(config: RunConfig, facts: Facts) -> tuple[Index, VoxelSize]:
    """The affinities as they are given, or the image at the voxel size of the weights."""
    given = facts.get("affinities")
    if given is not None:
        return _triple(given["shape"]), VoxelSize(_triple(given["voxel_size_pm"]))
    source = VoxelSize(_triple(facts["image"]["voxel_size_pm"]))
    wanted = VoxelSize.from_nm(facts["weights"]["spec"]["voxel_size_nm"])
    factor = wanted.ratio(source)
    if factor is None:
        raise WrongVoxelSize(
            f"the image has voxels of {source}, the weights were trained at {wanted}: not a whole multiple",
            where=config.input.image or "input.synthetic",
            way_out="state the right input.voxel_size_nm, choose another scale of the image, or other weights",
        )
    z, y, x = (size // f for size, f in zip(facts["image"]["shape"], factor, strict=True))
    shape = (z, y, x)
    if min(shape) < 1:
        raise WrongShape(f"the image holds no whole voxel of {wanted}: its shape is {facts['image']['shape']}")
    return shape, wanted


def _check_cover(config: RunConfig, facts: Facts) -> None:
    """Refuse an image that cannot be shown beside the affinities."""
    given, image = facts["affinities"], facts["image"]
    if given is None or image is None:
        return
    size, own = VoxelSize(_triple(given["voxel_size_pm"])), VoxelSize(_triple(image["voxel_size_pm"]))
    factor = size.ratio(own)
    if factor is None or any(n * f > m for n, f, m in zip(given["shape"], factor, image["shape"], strict=True)):
        raise WrongShape(
            f"the image of {image['shape']} voxels of {own} does not cover the affinities: {given['shape']} of {size}",
            where=config.input.image or "input.synthetic",
            way_out="give the image that they were made from, or leave input.image out: it is only shown",
        )


def _roi(region: Region | None, shape: Index) -> Box:
    whole = Box.of_shape(shape)
    if region is None:
        return whole
    roi = Box(region.begin, region.end)
    if not whole.contains(roi):
        raise ConfigError(
            f"the region {roi} reaches beyond the layer {whole}",
            where="roi",
            way_out="regions count in voxels of the segmented layer (the weights' voxel size), not of the image",
        )
    return roi


def _triple(values: list[int]) -> Index:
    z, y, x = values
    return (z, y, x)


def _image(config: RunConfig) -> Facts | None:
    synthetic = config.input.synthetic
    if synthetic is not None:
        return {
            "fingerprint": "synthetic",
            "shape": list(synthetic.size),
            "voxel_size_pm": list(VoxelSize.from_nm(synthetic.voxel_size_nm).pm),
            "dtype": "uint8",
        }
    if config.input.image is None:
        return None
    location = config.input.image
    source = open_source(location, config.input.scale)
    if source.dtype != "uint8":
        raise WrongType(
            f"the image has dtype {source.dtype}; networks read uint8",
            where=location,
            way_out="convert it to uint8 with a fixed grey range first (a range per block would break the one answer)",
        )
    return _described(source, location, config.input.voxel_size_nm, "input.voxel_size_nm")


def _affinities(config: RunConfig) -> Facts | None:
    settings = config.affinities
    if settings is None:
        return None
    how = reading(settings.offsets, settings.channels)
    if settings.path is None:
        return {**(_truth(config, None) or {}), "channels": len(how.offsets)}
    source = open_source(settings.path, settings.scale, settings.axes.lower())
    if source.dtype.name not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise WrongType(
            f"the affinities have dtype {source.dtype}; they must be floats, uint8 or uint16",
            where=settings.path,
            way_out="store them as floats from 0 to 1, or as uint8 or uint16 that use the whole range",
        )
    channels = source.channels or 0
    if how.channels.stop > channels or (settings.channels is None and len(settings.offsets) != channels):
        raise WrongShape(
            f"the affinities have {channels} channels; the config describes {len(settings.offsets)}, "
            f"the last of them number {how.channels.stop - 1}",
            where=settings.path,
            way_out="list the offset of every channel in affinities.offsets (or those of affinities.channels), "
            "and mind affinities.axes",
        )
    return {
        **_described(source, settings.path, settings.voxel_size_nm, "affinities.voxel_size_nm"),
        "channels": channels,
    }


def _truth(config: RunConfig, affinities: Facts | None) -> Facts | None:
    if config.input.synthetic is not None:
        return {**(_image(config) or {}), "dtype": "uint64"}
    if config.input.truth is None:
        return None
    source = open_source(config.input.truth, None)
    if source.dtype.kind not in "ui":
        raise WrongType(
            f"the truth has dtype {source.dtype}; labels are whole numbers",
            where=config.input.truth,
            way_out="give a label volume, not an image",
        )
    stated = config.input.truth_voxel_size_nm or config.input.voxel_size_nm
    if stated is None and affinities is not None and source.voxel_size is None:
        stated = VoxelSize(_triple(affinities["voxel_size_pm"])).nm  # labels beside affinities, voxel by voxel
    return _described(source, config.input.truth, stated, "input.truth_voxel_size_nm")


def _mask(location: str, stated_nm: tuple[float, float, float] | None) -> Facts:
    source = open_source(location, None)
    if source.dtype.kind not in "uib":
        raise WrongType(f"the mask has dtype {source.dtype}; masks are whole numbers", where=location)
    return _described(source, location, stated_nm, "mask.voxel_size_nm")


def _described(source: Source, location: str, stated_nm: tuple[float, float, float] | None, key: str) -> Facts:
    own = source.voxel_size
    voxel_size = VoxelSize.from_nm(stated_nm) if stated_nm is not None else own
    if voxel_size is None:
        raise WrongVoxelSize(
            "the file does not say its voxel size", where=location, way_out=f"set {key} = [z, y, x] in the config"
        )
    if stated_nm is not None and own is not None and own != voxel_size:
        raise WrongVoxelSize(
            f"{key} says {voxel_size}, the file says {own}",
            where=location,
            way_out="remove the key to believe the file, or mend the file's metadata",
        )
    if min(voxel_size.pm) < 1:
        raise WrongVoxelSize(f"a voxel size must be positive, not {voxel_size}", where=location)
    return {
        "fingerprint": source.fingerprint(),
        "shape": list(source.shape),
        "voxel_size_pm": list(voxel_size.pm),
        "dtype": str(source.dtype),
    }


def _weights(name: str) -> Facts:
    try:
        spec: WeightsSpec = load_spec(name)
    except WeightsInvalid as error:
        raise BadWeights(
            str(error), where=name, way_out=f"name shipped weights ({', '.join(shipped())}), or a .safetensors file"
        ) from None
    told = replace(spec, recipes=None)  # the config has taken from them what it wants
    return {"sha256": spec.sha256, "spec": told.to_json(), "patch": list(spec.patch)}
