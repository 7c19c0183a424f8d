"""Post-processing that was tuned for weights and is stored with them: `recipe = "mean"` in a run's config takes it up.

The recipe's sections fill in what the config leaves out; whatever the config says itself holds. The run's record has
the outcome, so a run never depends on a recipe that changes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import WeightsInvalid
from models.spec import load_spec
from pipeline.errors import BadWeights, ConfigError

TUNED = "tuned"  # the part of a recipe that tells of its making and is no section of a config
USUAL_WEIGHTS = "tiny"


def with_recipe(data: Mapping[str, Any], folder: Path, *, where: str) -> dict[str, Any]:
    """A config as it was read, filled up by the recipe that it names, if it names one."""
    name = data.get("recipe")
    if name is None:
        return dict(data)
    weights = _weights(data, folder)
    recipe = _recipe(weights, name, where=where)
    sections = {section: values for section, values in recipe.items() if section != TUNED}
    filled = {section: {**values, **_section(data, section)} for section, values in sections.items()}
    return {**data, **filled}


def _section(data: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    own = data.get(section, {})
    return own if isinstance(own, Mapping) else {}  # what else it is, the config's check will say


def _weights(data: Mapping[str, Any], folder: Path) -> str:
    named = str(_section(data, "predict").get("weights", USUAL_WEIGHTS))
    return weights_location(named, folder)


def weights_location(name: str, folder: Path) -> str:
    """Weights by the name they are shipped by, or a path that counts from a folder."""
    is_path = "/" in name or name.endswith((".safetensors", ".json"))
    return str((folder / name).resolve()) if is_path else name


def _recipe(weights: str, name: str, *, where: str) -> Mapping[str, Any]:
    try:
        known = load_spec(weights, verify=False).recipes or {}
    except WeightsInvalid as error:
        raise BadWeights(str(error), where=weights) from None
    if name not in known:
        has = ", ".join(map(repr, known)) or "none"
        raise ConfigError(
            f"the weights have no recipe {name!r}; they have {has}",
            where=f"{where}, recipe",
            way_out="name one of those, or leave recipe out and set the thresholds in the config",
        )
    return known[name]
