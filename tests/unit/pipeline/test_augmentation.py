"""The `[augmentation]` part of a training's config."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from models.augmentation.plain import Plain
from models.augmentation.profiles import PROFILES
from models.augmentation.recipe import Augmentation
from pipeline.augmentation import Changes, NamedChanges, PlainChanges, recipe_of

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
NM = (30.0, 12.0, 12.0)


class Config(BaseModel):
    augmentation: Changes = PlainChanges()


def parsed(**given: object) -> PlainChanges | NamedChanges:
    return Config.model_validate({"augmentation": given}).augmentation


def test_without_a_name_it_is_the_plain_recipe():
    assert recipe_of(Config().augmentation, NM) == Plain()
    assert recipe_of(parsed(blur=0.5, flip=False), NM) == Plain(blur=0.5, flip=False)
    assert recipe_of(parsed(recipe="plain"), NM) == Plain()
    assert "recipe" not in parsed(recipe="plain").model_dump(mode="json")  # what shipped weights say of themselves


@pytest.mark.parametrize("name", PROFILES)
def test_a_named_recipe_is_that_recipe(name: str):
    assert recipe_of(parsed(recipe=name), NM) == PROFILES[name](NM)
    kept = parsed(recipe=name, warp={"scale": 0.2})
    assert Config.model_validate({"augmentation": kept.model_dump(mode="json")}).augmentation == kept


def test_tables_say_what_differs_and_lengths_are_in_nanometres():
    changes = parsed(
        recipe="published",
        greyscale={"probability": 0},
        misalignment={"shift_nm": 60, "interpolate": False},
        occlusion={"side_nm": [24, 48], "volume": 0.1},
        out_of_focus={"sigma_nm": 6},
        warp={"rotation_deg": 20},
    )
    recipe = recipe_of(changes, NM)
    assert isinstance(recipe, Augmentation)
    assert recipe.greyscale.probability == 0
    assert (recipe.misalignment.shift_vx, recipe.misalignment.interpolate) == (5, False)
    assert (recipe.occlusion.side_vx, recipe.occlusion.volume) == ((2, 4), 0.1)
    assert recipe.out_of_focus.sigma_vx == 0.5
    assert recipe.warp.rotation_deg == 20
    published = PROFILES["published"](NM)
    assert isinstance(published, Augmentation)
    assert recipe.misalignment.slip == published.misalignment.slip
    assert recipe.missing_section == published.missing_section


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "everything"}, "'published', 'validation' or 'isotropic'"),
        ({"recipe": "published", "blur": 0.1}, "named.blur"),
        ({"warp": {"probability": 0.1}}, "plain.warp"),
        ({"recipe": "published", "warp": {"twist": 1}}, "warp.twist"),
        ({"recipe": "published", "occlusion": {"volume": 1}}, "less than 1"),
        ({"recipe": "published", "flip": {"probability": 1.5}}, "less than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        parsed(**given)


def test_misalignment_cannot_be_more_than_always():
    with pytest.raises(ValidationError, match="at most 1"):
        parsed(recipe="published", misalignment={"translation": 0.9})  # slips are 0.2 already
    parsed(recipe="published", misalignment={"translation": 0.9, "slip": 0.1})


def test_the_documentation_names_every_table_and_key():
    rows = re.findall(r"^\| `(\w+)` \| (`\w+`.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {table: set(re.findall(r"`(\w+)`", keys)) for table, keys in rows}
    tables = {name: field.annotation for name, field in NamedChanges.model_fields.items() if name != "recipe"}
    assert told == {name: set(model.model_fields) for name, model in tables.items() if issubclass(model, BaseModel)}
