"""Block maps: every block shows, in the right place and state, whatever the grid."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline import block_maps
from pipeline.block_maps import COLOURS, block_map


def squares(html: str, state: str) -> int:
    return sum(path.count("M") for path in re.findall(rf'class="{state}" d="([^"]*)"', html))


def picture(html: str) -> np.ndarray:
    found = re.search(r'src="data:image/png;base64,([^"]*)"', html)
    assert found
    return np.asarray(Image.open(BytesIO(base64.b64decode(found[1]))).convert("RGBA"))


def test_one_block():
    html = block_map("d", (1, 1, 1))
    assert squares(html, "done") == 1
    assert 'aria-label="1 done"' in html


def test_few_blocks_have_a_panel_for_every_layer():
    html = block_map("dmfr" + "w...", (2, 2, 2))
    assert html.count("<svg") == 2
    assert [squares(html, s) for s in ("done", "masked", "failed", "running", "waiting", "to-do")] == [1, 1, 1, 1, 1, 3]
    first = html.partition("</svg>")[0]
    assert 'class="failed" d="M0 ' in first  # y = 1, x = 0


def test_many_blocks_are_one_picture_in_which_the_worst_shows():
    grid = (50, 60, 40)
    letters = np.full(grid, ord("d"), np.uint8)
    letters[13, 7, 5] = ord("f")
    letters[:, 9, 3] = ord("m")
    letters[49, 20, 30] = ord("r")
    letters[25:, 59, 39] = ord(".")
    letters[:, 0, 0] = ord(".")
    shown = picture(block_map(letters.tobytes().decode(), grid))
    assert shown.shape == (60, 40, 4)
    assert tuple(shown[7, 5]) == (*COLOURS["failed"], 255)
    assert tuple(shown[9, 3]) == (*COLOURS["masked"], 255)
    assert tuple(shown[20, 30]) == (*COLOURS["running"], 255)
    assert tuple(shown[30, 20]) == (*COLOURS["done"], 255)
    assert shown[59, 39, 3] == 127  # half of them done
    assert shown[0, 0, 3] == 0


def test_the_first_block_shows_and_full_colour_means_all():
    letters = np.full((100, 60, 60), ord("."), np.uint8)
    letters[0, 1, 2] = ord("d")
    letters[1:, 3, 4] = ord("d")
    letters[:, 5, 6] = ord("d")
    opacity = picture(block_map(letters.tobytes().decode(), letters.shape))[..., 3]
    assert opacity[0, 0] == 0 < opacity[1, 2] < opacity[3, 4] < opacity[5, 6] == 255


@pytest.mark.parametrize("grid", [(1, 1, 200_000), (200_000, 1, 1), (40, 70, 70), (1, 447, 447), (70, 13, 12)])
def test_any_grid_gives_a_small_picture(grid):
    count = grid[0] * grid[1] * grid[2]
    html = block_map("d" * (count - 1) + "f", grid)
    assert len(html) < 20_000
    shown = picture(html)
    assert max(shown.shape[:2]) <= block_maps.LONGEST
    assert (shown == (*COLOURS["failed"], 255)).all(axis=2).sum() == 1


def test_a_stack_of_single_blocks_is_not_looked_through_lengthwise():
    shown = picture(block_map("d" * 299 + ".", (300, 1, 1)))
    assert shown.shape[:2] == (300, 1)


def test_no_map_without_states():
    assert block_map("", (2, 2, 2)) == ""


def test_every_state_has_a_colour_in_the_style():
    for name in block_maps.LETTERS.values():
        assert f".{name.replace(' ', '-')}{{--state:" in block_maps.style()
