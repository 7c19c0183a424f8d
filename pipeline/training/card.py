"""The model card beside the weights: what they are, what they saw, how they were judged. Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.spec import WeightsSpec
from pipeline.pages import duration
from pipeline.training.settings import Labelled, TrainConfig, Volumes

RECIPES = "## Recipes"
SCORES = ("voi_split", "voi_merge", "voi", "arand")


def card(config: TrainConfig, spec: WeightsSpec, facts: Mapping[str, Any]) -> str:
    """The card; `facts` has size_bytes, parameters, step, metrics, seconds, machine."""
    name, network, training = config.name, config.network, config.training
    what = "edges" if network.predicts == "affinity" else f"{network.dimensions} numbers a voxel and background"
    rows = (
        ("files", f"`{name}.safetensors` (float16, {facts['size_bytes'] / 1e6:.2f} MB), `{name}.json` (spec)"),
        ("SHA-256", f"`{spec.sha256}`"),
        ("network", f"{network.architecture}, widths {_listed(network.widths)}; {facts['parameters']:,} parameters"),
        ("predicts", f"{network.predicts}: {what}; offsets (z, y, x) {_listed(spec.offsets)}"),
        ("voxel size", f"{' x '.join(f'{n:g}' for n in network.voxel_size_nm)} nm"),
        ("patches", f"{_by(spec.patch)}, stride {_by(spec.stride)}, cropped by {_by(network.crop)}"),
        ("trained on", _data([*([config.volumes] if config.volumes else []), *config.sample])),
        ("judged on", _data([config.validation] if isinstance(config.validation, Volumes) else config.validation)),
        (
            "recipe",
            f"step {facts['step']:,} of {training.steps:,}, {training.batch} patches of {_by(training.patch)} a step, "
            f"learning rate {training.learning_rate:g} ({training.schedule}), AMSGrad, running average "
            f"{training.average:g}, augmentation `{config.augmentation.recipe}`",
        ),
        *((("started from", _begun(spec.training["started_from"])),) if "started_from" in spec.training else ()),
        ("trained for", f"{duration(facts['seconds'])} of steps, on {facts['machine']}"),
        ("held-out", ", ".join(f"{key} {value:g}" for key, value in facts["metrics"].items()) or "not judged"),
    )
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return (
        f"# {name}\n\nMade by `neurotile train` from the configuration inside `{name}.json`.\n\n| | |\n|---|---|\n"
        f"{table}\n\nThe held-out data chose this step{_threshold(facts['metrics'])}: scores on other data will be "
        "lower.\nLimits: tissue, contrast and voxel size other than those of the training data were not tried.\n"
    )


def with_recipes(told: str, recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """A card with a table of recipes at its end, in place of one that is there."""
    rows = [
        " | ".join((f"| {name}, {one['volume']}", _settings(recipe), *(f"{one[score]:g}" for score in SCORES))) + " |"
        for name, recipe in recipes.items()
        for one in recipe["tuned"]["volumes"]
    ]
    return (
        f"{told.partition(RECIPES)[0].rstrip()}\n\n{RECIPES}\n\nTuned on the held-out volumes together; in bits. "
        'Take one up with `recipe = "NAME"` in a config.\n\n'
        "| recipe, volume | settings | VOI split | VOI merge | VOI | ARAND |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _settings(recipe: Mapping[str, Any]) -> str:
    sections = ((section, values) for section, values in recipe.items() if section != "tuned")
    return ", ".join(f"`{section}.{key} = {value}`" for section, values in sections for key, value in values.items())


def _threshold(metrics: Mapping[str, float]) -> str:
    return " and the threshold" if "threshold" in metrics else ""


def _data(parts: Iterable[Volumes | Labelled]) -> str:
    return "; ".join(_one(part) for part in parts)


def _one(part: Volumes | Labelled) -> str:
    if isinstance(part, Volumes):
        seeds = f"seeds {part.seeds[0]} to {part.seeds[-1]}"
        return f"{part.count} generated volumes ({seeds}), {_by(part.size)} voxels"
    region = f"voxels {_by(part.begin)} to {_by(part.end)}" if part.end else f"from voxel {_by(part.begin)}"
    return f"`{part.image}`, {region}"


def _begun(other: Mapping[str, Any]) -> str:
    shared = f"{other['tensors']} of {other['of']} tensors"
    return f"`{other['weights']}` (SHA-256 `{other['sha256']}`), {shared}"


def _by(extent: Iterable[int]) -> str:
    return " x ".join(map(str, extent))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value).replace(" ", "") for value in values)
