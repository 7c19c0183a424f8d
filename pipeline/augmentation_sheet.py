"""What a training does to its crops, as one picture for people: changes in columns, sections in rows.

1. One crop, from the middle of a volume; a few neighbouring sections of it are shown.
2. The original, then every change of the recipe alone, then all of them as training draws them, twice.
3. Of a few draws of each change one is shown that is clear, but not the strongest; of those that change some sections,
   one in which changed ones stand beside unchanged ones.
4. Labels are outlines in their colours: where image and outlines part, the labels were left alone on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.geometry import Index
from pipeline.pictures import Plane, Rgb, colour, grey, nearest

if TYPE_CHECKING:
    from models.augmentation.recipe import Recipe

SECTIONS = 4  # rows
DRAWS = 16  # of which one is shown
TILE_PX = 224
GAP_PX = 8
EDGE_PX = 28  # around everything
ROW_PX = 34  # left of the tiles, for the number of the section
HEAD_PX = 112
FOOT_PX = 30
BAR_PX = 4  # marks a changed section
OUTLINE = 1.0  # share of the label's colour
OUTLINE_PX = 2  # the line and its darker rim
RIM = 0.45
LIGHTER = 0.3  # colours are mixed with white: thin lines look darker than areas
PAPER, INK, FAINT, MARK = (250, 250, 248), (28, 30, 34), (118, 122, 130), (240, 128, 20)
LEGEND = "Outlines: labels.   Orange bar: a section that is changed while others are not."
OF_SECTIONS = ("translation", "slip", "missing section", "out of focus")
REMARKS = {"flip": "each axis, {:.0%}"}
TOLD = {  # what there is to see
    "original": "no change",
    "greyscale": "contrast, brightness, gamma",
    "translation": "from a section on, labels too",
    "slip": "one section's image, not its labels",
    "missing section": "one grey or black",
    "occlusion": "boxes of one grey each",
    "out of focus": "blurred sections, or parts",
    "warp": "turned, stretched; labels too",
    "noise": "Gaussian",
    "flip": "mirrored, exchanged; labels too",
    "everything": "two draws",
}
SLIP_OF_BOTH = "one section, its labels too"

Crop = tuple[NDArray[np.float32], NDArray[Any]]  # image and labels, ZYX


@dataclass(frozen=True)
class Column:
    """One column: what was made to the crop."""

    name: str
    remark: str
    told: str
    image: NDArray[np.float32]
    labels: NDArray[Any]
    changed: tuple[bool, ...]  # which of its sections get a mark


def extent(recipe: Recipe, patch: Index) -> Index:
    """How large a crop the columns need: unmoved sections stay where they are in the original."""
    from models.augmentation.plain import Plain
    from models.augmentation.recipe import margin

    shift = (0, 0, 0) if isinstance(recipe, Plain) else recipe.misalignment.reach
    z, y, x = (sum(lengths) for lengths in zip(patch, margin(recipe, patch), shift, strict=True))
    return (z, y, x)


def columns(crop: Crop, recipe: Recipe, patch: Index, seed: int) -> list[Column]:
    """The columns for a crop of the extent above, images in [0, 1]."""
    from models.augmentation.alone import NOTHING, alone

    def drawn(change: Recipe, number: int) -> Crop:
        return _drawn(crop, change, patch, np.random.default_rng((seed, number)))

    original = drawn(NOTHING, 0)
    interpolates = getattr(getattr(recipe, "misalignment", None), "interpolate", True)
    told = TOLD if interpolates else {**TOLD, "slip": SLIP_OF_BOTH}
    found = [Column("original", "", told["original"], *original, ())]
    for change in alone(recipe):
        draws = [drawn(change.recipe, number) for number in range(DRAWS)]
        chosen = _best(draws, original, change.name in OF_SECTIONS)
        changed = _changed(draws[chosen], original)
        often = REMARKS.get(change.name, "{:.0%} of crops" if change.probability < 1 else "every crop")
        marks = changed if _telling(changed) else ()
        found.append(Column(change.name, often.format(change.probability), told[change.name], *draws[chosen], marks))
    for number in range(2):
        found.append(Column("everything", "as in training", told["everything"], *drawn(recipe, number), ()))
    return found


def _drawn(crop: Crop, recipe: Recipe, patch: Index, rng: np.random.Generator) -> Crop:
    """The shown sections of a patch whose unmoved sections come from the middle of the crop."""
    from models.augmentation.recipe import apply, prepare

    geometry = prepare(recipe, patch, rng)
    back = (0, max(0, -geometry.shift.y), max(0, -geometry.shift.x)) if geometry.shift else (0, 0, 0)
    unmoved = geometry.mapping.source if geometry.mapping else patch
    begin = [(n - u) // 2 - b for n, u, b in zip(crop[0].shape, unmoved, back, strict=True)]
    part = tuple(slice(b, b + n) for b, n in zip(begin, geometry.source, strict=True))
    image, labels = apply(crop[0][part], crop[1][part], recipe, geometry, rng)
    rows = shown(patch[0])
    return image[rows], labels[rows]


def _best(draws: Sequence[Crop], original: Crop, of_sections: bool) -> int:
    """The draw with most sections that stand out; of several, one that differs clearly, but not most."""
    telling = [_telling(_changed(draw, original)) if of_sections else 0 for draw in draws]
    candidates = [number for number, count in enumerate(telling) if count == max(telling)]
    candidates.sort(key=lambda number: float(np.abs(draws[number][0] - original[0]).mean()))
    return candidates[len(candidates) * 2 // 3]


def shown(depth: int) -> slice:
    """The sections in the middle of a patch."""
    count = min(SECTIONS, depth)
    return slice((depth - count) // 2, (depth - count) // 2 + count)


def _changed(crop: Crop, original: Crop) -> tuple[bool, ...]:
    return tuple(not np.array_equal(one, other) for one, other in zip(crop[0], original[0], strict=True))


def _telling(changed: Sequence[bool]) -> int:
    """How many sections stand out: none if all or none are changed."""
    return min(sum(changed), len(changed) - sum(changed))


# ---- drawing -------------------------------------------------------------------------------------------------------
def draw_sheet(shown_columns: Sequence[Column], title: str, first_section: int = 0) -> Rgb:
    """All columns on one sheet, with captions."""
    depth, height, width = shown_columns[0].image.shape
    tile = (max(1, round(TILE_PX * height / width)), TILE_PX)
    sheet = Image.new("RGB", _sheet_size(len(shown_columns), depth, tile), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((EDGE_PX, EDGE_PX - 6), title, INK, ImageFont.load_default(22))
    for number, column in enumerate(shown_columns):
        left = EDGE_PX + ROW_PX + number * (tile[1] + GAP_PX)
        pen.text((left, HEAD_PX - 56), column.name, INK, ImageFont.load_default(17))
        pen.text((left, HEAD_PX - 34), column.told, INK, ImageFont.load_default(13))
        pen.text((left, HEAD_PX - 17), column.remark, FAINT, ImageFont.load_default(12))
        for row in range(depth):
            top = HEAD_PX + row * (tile[0] + GAP_PX)
            sheet.paste(Image.fromarray(picture(column.image[row], column.labels[row], tile)), (left, top))
            if column.changed and column.changed[row]:
                pen.rectangle((left, top, left + BAR_PX - 1, top + tile[0] - 1), MARK)
    for row in range(depth):
        middle = HEAD_PX + row * (tile[0] + GAP_PX) + tile[0] // 2
        place = (EDGE_PX + ROW_PX - 10, middle)
        pen.text(place, f"z {first_section + row}", FAINT, ImageFont.load_default(12), anchor="rm")
    pen.text((EDGE_PX + ROW_PX, sheet.height - FOOT_PX), LEGEND, FAINT, ImageFont.load_default(13))
    return np.asarray(sheet)


def _sheet_size(count: int, rows: int, tile: tuple[int, int]) -> tuple[int, int]:
    width = 2 * EDGE_PX + ROW_PX + count * (tile[1] + GAP_PX) - GAP_PX
    return width, HEAD_PX + rows * (tile[0] + GAP_PX) + FOOT_PX + GAP_PX


def picture(image_YX: Plane, labels_YX: Plane, shape_px: tuple[int, int]) -> Rgb:
    """A section with the outlines of its labels, which stay thin however small the patch is."""
    codes = Image.fromarray(np.rint(image_YX * 255).astype(np.uint8))
    under = grey(np.asarray(codes.resize((shape_px[1], shape_px[0]), Image.Resampling.BICUBIC))).astype(np.float32)
    labels = nearest(labels_YX, shape_px)
    share = np.where(_outline(labels), np.float32(OUTLINE), np.float32(0))[..., None]
    lines = colour(labels).astype(np.float32)
    lines += (255 - lines) * LIGHTER
    dark = _outline(labels, OUTLINE_PX) & (share[..., 0] == 0)  # a rim: lines stand out from light and dark tissue
    under[dark] *= RIM
    return np.rint(under + (lines - under) * share).astype(np.uint8)


def _outline(labels_YX: Plane, width_px: int = 1) -> NDArray[np.bool_]:
    """The pixels of objects that are so near to another label."""
    found = np.zeros(labels_YX.shape, bool)
    for axis in (0, 1):
        one, other = (np.moveaxis(a, axis, 0) for a in (found, labels_YX))
        for apart in range(1, width_px + 1):
            differ = other[apart:] != other[:-apart]
            one[apart:] |= differ
            one[:-apart] |= differ
    found &= labels_YX != 0
    return found


def write_sheet(path: Path, picture_YXC: Rgb) -> None:
    """A PNG file."""
    Image.fromarray(picture_YXC).save(path, format="PNG", optimize=True)
