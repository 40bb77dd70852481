"""A contact sheet: many pictures with captions on one page."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

PAGE, INK, DIM = (251, 250, 247), (32, 38, 44), (104, 113, 122)
"""Colors of the paper, of the text, and of text of less weight."""
GAP, MARGIN = 8, 20
"""Pixels between two pictures, and around the page."""
TITLE, LABEL = 22, 14
"""Height of letters in pixels."""
MAX_COLUMNS = 12
"""Pictures side by side at most; longer strips break into lines of about equal length."""


class Tile(NamedTuple):
    """A picture and the caption under it."""

    label: str
    picture: Image.Image


class Strip(NamedTuple):
    """Pictures that belong together, under a heading."""

    heading: str
    tiles: Sequence[Tile]


def draw_sheet(title: str, notes: Sequence[str], strips: Sequence[Strip], *, tile: int) -> Image.Image:
    """Draw strips of pictures one below the other.

    Args:
        title: text in larger letters at the top.
        notes: lines below the title that explain the page.
        strips: the pictures.
        tile: side in pixels of the square that every picture is scaled to fit.
    """
    lines = [(strip.heading if first else "", line) for strip in strips for first, line in _sheet_lines(strip.tiles)]
    longest = max((len(line) for _, line in lines), default=1)
    width = max(2 * MARGIN + longest * (tile + GAP) - GAP, *(_length(text, LABEL) + 2 * MARGIN for text in notes), 320)
    head = MARGIN + round(1.6 * TITLE) + len(notes) * round(1.5 * LABEL)
    heights = [_height(heading, line, tile) for heading, line in lines]
    page = Image.new("RGB", (width, head + sum(heights) + MARGIN), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, INK, font=_font(TITLE))
    for number, text in enumerate(notes):
        draw.text((MARGIN, MARGIN + round(1.6 * TITLE + 1.5 * LABEL * number)), text, DIM, font=_font(LABEL))
    top = head
    for (heading, line), height in zip(lines, heights, strict=True):
        _draw_line(page, heading, line, top=top, tile=tile)
        top += height
    return page


def _sheet_lines(tiles: Sequence[Tile]) -> list[tuple[bool, Sequence[Tile]]]:
    """(whether it is the first line, its tiles) for each line of a strip."""
    num = -(-len(tiles) // MAX_COLUMNS) or 1
    size = -(-len(tiles) // num) or 1
    return [(start == 0, tiles[start : start + size]) for start in range(0, max(1, len(tiles)), size)]


def _height(heading: str, tiles: Sequence[Tile], tile: int) -> int:
    tallest = max((_fitted(t.picture.size, tile)[1] for t in tiles), default=0)
    return (3 * LABEL if heading else 0) + tallest + 2 * LABEL


def _draw_line(page: Image.Image, heading: str, tiles: Sequence[Tile], *, top: int, tile: int) -> None:
    draw = ImageDraw.Draw(page)
    if heading:
        draw.line((MARGIN, top + LABEL, page.width - MARGIN, top + LABEL), (226, 223, 216))
        draw.text((MARGIN, top + round(1.4 * LABEL)), heading, INK, font=_font(LABEL))
        top += 3 * LABEL
    for number, (label, picture) in enumerate(tiles):
        left = MARGIN + number * (tile + GAP)
        size = _fitted(picture.size, tile)
        how = Image.Resampling.LANCZOS if size[0] < picture.width else Image.Resampling.NEAREST
        page.paste(picture.resize(size, how), (left, top))
        draw.text((left, top + size[1] + 3), label, DIM, font=_font(LABEL))


def _fitted(size: tuple[int, int], tile: int) -> tuple[int, int]:
    scale = tile / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _length(text: str, height: int) -> int:
    return round(_font(height).getlength(text))


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)
