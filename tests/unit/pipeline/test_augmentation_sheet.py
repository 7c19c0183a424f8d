"""The picture of an augmentation: what stands where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.augmentation.plain import Plain
from models.augmentation.profiles import isotropic, published
from models.augmentation.recipe import Recipe
from pipeline import cli
from pipeline.augmentation_sheet import MARK, TILE_PX, columns, draw_sheet, extent, picture, shown
from pipeline.errors import ConfigError
from pipeline.training import show_augmentation

PATCH = (8, 24, 24)
NM = (30.0, 12.0, 12.0)
TOML = """
name = "small"
[volumes]
first_seed = 1000
count = 1
size = [8, 64, 64]
[validation]
first_seed = 2000
count = 1
size = [6, 40, 40]
[training]
patch = [6, 16, 16]
"""


def crop(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = extent(recipe, PATCH)
    return rng.random(shape, np.float32), rng.integers(1, 4, shape).astype(np.uint64)


def test_the_original_comes_first_then_every_change_then_all():
    recipe = published(NM)
    image, labels = crop(recipe)
    found = columns((image, labels), recipe, PATCH, 0)
    names = "original greyscale translation slip missing_section occlusion out_of_focus warp flip everything everything"
    assert [c.name for c in found] == [name.replace("_", " ") for name in names.split()]
    middle = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(image.shape, PATCH, strict=True))
    np.testing.assert_array_equal(found[0].image, image[middle][shown(PATCH[0])])
    np.testing.assert_array_equal(found[0].labels, labels[middle][shown(PATCH[0])])
    assert found[2].remark == "25% of crops"
    assert found[3].told == "one section's image, not its labels"
    by_name = {c.name: c for c in found}
    assert sum(by_name["slip"].changed) == 1
    translated = by_name["translation"].changed
    assert list(translated) == sorted(translated)
    assert {False, True} == set(translated)
    np.testing.assert_array_equal(by_name["slip"].labels, found[0].labels)
    assert not by_name["warp"].changed


@pytest.mark.parametrize("recipe", [published(NM), isotropic((8.0, 8.0, 8.0)), Plain()])
def test_a_sheet_has_a_tile_for_every_section_of_every_column(recipe: Recipe):
    found = columns(crop(recipe), recipe, PATCH, 0)
    sheet = draw_sheet(found, "title", 5)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > len(found) * TILE_PX
    assert sheet.shape[0] > 4 * TILE_PX
    marked = (sheet == np.array(MARK)).all(axis=2).any()
    assert marked == any(any(c.changed) for c in found)


def test_outlines_are_drawn_inside_objects_only():
    labels = np.zeros((10, 10), np.uint64)
    labels[:, 3:7] = 5
    drawn = picture(np.full((10, 10), 0.5, np.float32), labels, (100, 100))
    coloured = (drawn != drawn[..., :1]).any(axis=2)
    assert np.flatnonzero(coloured.any(axis=0)).tolist() == [30, 69]
    assert np.flatnonzero((drawn[..., 0] < 100).all(axis=0)).tolist() == [31, 68]  # the rim, further inside
    coloured[:, [31, 68]] = True
    assert (drawn[~coloured] == 128).all()


def test_the_command_writes_the_picture_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "small.toml"
    config.write_text(TOML)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(config), "--show-augmentation", "changes.png"])
    assert ended.value.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changes.png", "small.toml"]
    with Image.open("changes.png") as shown_picture:
        assert shown_picture.mode == "RGB"
        assert shown_picture.width > 1000


def test_volumes_that_are_too_small_are_refused(tmp_path: Path):
    config = tmp_path / "small.toml"
    config.write_text(TOML + '[augmentation]\nrecipe = "published"\n')
    with pytest.raises(ConfigError, match="smaller than the"):
        show_augmentation(config, tmp_path / "changes.png")
    assert not (tmp_path / "changes.png").exists()
