import numpy as np
import pytest
from PIL import Image

from curate.evaluation.drawing.contact_sheet import MAX_COLUMNS, PAGE, Strip, Tile, draw_sheet


def solid(color: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new("RGB", size, color)


def box(page: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of what has exactly this color."""
    rows, columns = np.nonzero((np.asarray(page) == color).all(axis=-1))
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_each_picture_fits_its_tile_in_its_own_aspect() -> None:
    tiles = [Tile("wide", solid((255, 0, 0), (200, 100))), Tile("tall", solid((0, 255, 0), (25, 50)))]
    page = draw_sheet("T", [], [Strip("one", tiles)], tile=80)
    assert box(page, (255, 0, 0))[2:] == (80, 40)
    assert box(page, (0, 255, 0))[2:] == (40, 80)


def test_columns_stand_below_each_other_and_strips_in_order() -> None:
    colors = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]]
    strips = [Strip(str(n), [Tile("x", solid(color)) for color in row]) for n, row in enumerate(colors)]
    page = draw_sheet("T", ["note"], strips, tile=50)
    places = [[box(page, color) for color in row] for row in colors]
    assert places[0][0][0] == places[1][0][0] < places[0][1][0] == places[1][1][0]
    assert places[0][0][1] == places[0][1][1] < places[1][0][1] - 50


def test_long_strips_break_into_equal_lines() -> None:
    num = MAX_COLUMNS + 2
    colors = [(10 * n + 5, 0, 200) for n in range(num)]
    page = draw_sheet("T", [], [Strip("s", [Tile(str(c), solid(c)) for c in colors])], tile=40)
    tops = [box(page, color)[1] for color in colors]
    assert len(set(tops[: num // 2])) == len(set(tops[num // 2 :])) == 1
    assert tops[0] < tops[-1] - 40


@pytest.mark.parametrize("drawn", ["title", "note", "heading", "label"])
def test_every_text_is_drawn(drawn: str) -> None:
    def page(text: str) -> np.ndarray:
        said = {name: text if name == drawn else "" for name in ("title", "note", "heading", "label")}
        strips = [Strip(said["heading"] or " ", [Tile(said["label"], solid((9, 9, 9)))])]
        return np.asarray(draw_sheet(said["title"], [said["note"]], strips, tile=40))

    assert not np.array_equal(page("some text"), page(""))


def test_long_notes_widen_the_page() -> None:
    note = "words " * 40
    page = np.asarray(draw_sheet("T", [note], [], tile=40))
    assert (page[:, -15:] == PAGE).all()
    assert page.shape[1] > 1000
