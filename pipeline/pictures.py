"""Sections of volumes as pictures: arrays in, RGB arrays out.

1. A section is drawn at the size of the picture, not of the array: images are averaged, codes and labels take the
   nearest voxel, and both axes share one physical scale, so that proportions are those of the tissue.
2. A label's colour is a hash of its id: the same object has the same colour in every picture of every run.
3. Truth objects take the colour of the segment that they and nobody else match best, so that what agrees looks alike.
4. Voxels that could not be read are hatched. They never look like data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]  # (Y, X, 3)
Plane = NDArray[Any]  # (Y, X), or any other two axes
Shape = tuple[int, int]
Colours = dict[int, tuple[int, int, int]]

LONGEST_PX = 512
TOP = 65535  # the integer that stands for affinity 1
HUES = 360
OVERLAY = 0.5  # share of the label's colour over the image
BORDER = 0.85
WHITE = np.uint8(255)
HATCH = ((216, 217, 220), (186, 188, 193))
HATCH_PX = 5


# ---- size ----------------------------------------------------------------------------------------------------------
def picture_shape(shape_vx: Shape, voxel_nm: tuple[float, float], longest_px: int = LONGEST_PX) -> Shape:
    """Height and width in pixels of a section: physical proportions, the longer side at most `longest_px`."""
    size_nm = [count * size for count, size in zip(shape_vx, voxel_nm, strict=True)]
    per_nm = longest_px / max(size_nm)
    height, width = (max(1, round(length * per_nm)) for length in size_nm)
    return height, width


def nearest(values: Plane, shape_px: Shape) -> Plane:
    """A plane at another size: each pixel takes the voxel at its centre."""
    rows, columns = (
        (2 * np.arange(px) + 1) * vx // (2 * px) for px, vx in zip(shape_px, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns[None, :]]


def averaged(image_YX: Plane, shape_px: Shape) -> Plane:
    """An 8-bit image at another size: each pixel takes the mean of the voxels that it covers."""
    picture = Image.fromarray(np.ascontiguousarray(image_YX, dtype=np.uint8))
    return np.asarray(picture.resize((shape_px[1], shape_px[0]), Image.Resampling.BOX))


# ---- what is shown -------------------------------------------------------------------------------------------------
def grey(image_YX: Plane) -> Rgb:
    """An image as it is."""
    return np.repeat(image_YX.astype(np.uint8)[..., None], 3, axis=2)


def affinities(codes_CYX: Plane, code_table: Plane) -> Rgb:
    """Affinities along x, y, z as red, green, blue: white inside of cells, a colour where only some axes are cut."""
    decoded = np.asarray(code_table, np.int64)[codes_CYX[2::-1]]
    return np.moveaxis((decoded * 255 + TOP // 2) // TOP, 0, 2).astype(np.uint8)


def least_affinity(codes_CYX: Plane, code_table: Plane, channels: tuple[int, int] = (1, 2)) -> Rgb:
    """The least affinity along the two axes of the section: dark where the network sees a boundary."""
    decoded = np.asarray(code_table, np.int64)[codes_CYX[list(channels)].min(axis=0)]
    return grey((decoded * 255 + TOP // 2) // TOP)


def background(codes_YX: Plane, code_table: Plane, level: int) -> Rgb:
    """The probability of background: half as bright below the level that counts as background, white from it on."""
    decoded = np.asarray(code_table, np.int64)[codes_YX.astype(np.intp)]
    return grey(np.where(decoded >= level, 255, (decoded * 127 + TOP // 2) // TOP))


def seamed(picture: Rgb, parts_YX: Plane) -> Rgb:
    """A thin white line wherever one part ends and another begins."""
    return np.where(_borders(parts_YX)[..., None], WHITE, picture)


def overlay(image_YX: Plane, labels_YX: Plane, colours: Colours | None = None) -> Rgb:
    """Labels over the image: coloured areas with stronger borders; background stays grey."""
    tint = colour(labels_YX, colours).astype(np.float32)
    share = np.where(_borders(labels_YX), BORDER, OVERLAY).astype(np.float32)
    share[labels_YX == 0] = 0.0
    under = grey(image_YX).astype(np.float32)
    return np.rint(under + (tint - under) * share[..., None]).astype(np.uint8)


def _borders(labels_YX: Plane) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another label."""
    found = np.zeros(labels_YX.shape, bool)
    found[:-1] |= labels_YX[:-1] != labels_YX[1:]
    found[:, :-1] |= labels_YX[:, :-1] != labels_YX[:, 1:]
    return found


def hatched(picture: Rgb, missing_YX: Plane) -> Rgb:
    """Diagonal stripes where nothing could be read."""
    if not missing_YX.any():
        return picture
    height, width = missing_YX.shape
    diagonal = np.arange(height)[:, None] + np.arange(width)
    stripes = np.asarray(HATCH, np.uint8)[diagonal // HATCH_PX % 2]
    return np.where(missing_YX[..., None], stripes, picture)


# ---- colours -------------------------------------------------------------------------------------------------------
def colour(labels: Plane, colours: Colours | None = None) -> Rgb:
    """A colour for every voxel; 0 is black."""
    ids, where = np.unique(labels, return_inverse=True)
    table = colour_of_ids(ids.astype(np.uint64))
    for row, one in enumerate(ids.tolist()):
        if colours and one in colours:
            table[row] = colours[one]
    return table[where.reshape(labels.shape)]


def colour_of_ids(ids: NDArray[np.uint64]) -> Rgb:
    """The colours of ids: a hash decides hue, strength and brightness."""
    mixed = _mix(ids.astype(np.uint64))
    hue = (mixed % np.uint64(HUES)).astype(np.float64) / 60.0
    strength = 0.55 + 0.40 * ((mixed >> np.uint64(20)) % np.uint64(4)).astype(np.float64) / 3
    value = 0.72 + 0.28 * ((mixed >> np.uint64(40)) % np.uint64(3)).astype(np.float64) / 2
    channels = []
    for shift in (5.0, 3.0, 1.0):  # hue, strength, value to red, green, blue
        k = (hue + shift) % 6.0
        channels.append(value - value * strength * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    table: Rgb = np.rint(np.stack(channels, axis=-1) * 255).astype(np.uint8)
    table[ids == 0] = 0
    return table


def _mix(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the id (the finaliser of SplitMix64)."""
    mixed = ids + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def matching_colours(truth: Plane, segmentation: Plane) -> Colours:
    """For truth objects the colour of their segment, where each is the other's largest partner in this section."""
    both = (truth != 0) & (segmentation != 0)
    columns = [plane[both].astype(np.uint64) for plane in (truth, segmentation)]
    pairs, counts = np.unique(np.stack(columns, axis=-1), axis=0, return_counts=True)
    best_of_truth: dict[int, int] = {}
    best_of_segment: dict[int, int] = {}
    for row in np.argsort(-counts, kind="stable"):  # the largest overlap first: the first entry is the best one
        one, other = (int(v) for v in pairs[row])
        best_of_truth.setdefault(one, other)
        best_of_segment.setdefault(other, one)
    agreed = {one: other for one, other in best_of_truth.items() if best_of_segment[other] == one}
    table = colour_of_ids(np.fromiter(agreed.values(), np.uint64, len(agreed)))
    return {one: (int(r), int(g), int(b)) for one, (r, g, b) in zip(agreed, table, strict=True)}
