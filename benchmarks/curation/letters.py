"""Letters A to J of many fonts, in the manner of notMNIST: one picture for each font and letter.

Debian's package `fonts-aenigma` has 465 fonts by one hand, most of them ornamental, many with relatives that differ by
an outline or a slant: shapes of one class are as far apart as handwriting is not, and some are nearly copies.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from curate.errors import ConfigError

FONTS = Path("/usr/share/fonts/truetype/aenigma")
"""Where Debian's package `fonts-aenigma` puts its fonts."""
LETTERS = "ABCDEFGHIJ"
SIDE, MARGIN = 28, 2
"""Pixels of a picture, and those of its rim that stay black, as in MNIST."""
DRAWN = 64
"""Points at which a letter is drawn before it is brought to size."""
SMALLEST = 4
"""Pixels that a drawn letter has at least along its shorter side; what is smaller is an empty glyph."""


def draw_letters(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S) uint8 white letters on black, and (N,) int64 their places in `LETTERS`.

    Raises:
        ConfigError: there are no fonts.
    """
    fonts = sorted(folder.rglob("*.ttf"))
    if not fonts:
        raise ConfigError(
            f"{folder}: no fonts; `apt-get download fonts-aenigma`, unpack it with `dpkg-deb -x FILE FOLDER`, and give "
            "--fonts FOLDER"
        )
    drawn = [(picture, label) for path in fonts for picture, label in _of_font(path)]
    return np.stack([picture for picture, _ in drawn]), np.array([label for _, label in drawn], np.int64)


def _of_font(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    font = ImageFont.truetype(str(path), DRAWN)
    for label, letter in enumerate(LETTERS):
        left, top, right, bottom = (int(value) for value in font.getbbox(letter))
        if min(right - left, bottom - top) < SMALLEST:
            continue
        glyph = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(glyph).text((-left, -top), letter, font=font, fill=255)
        glyph.thumbnail((SIDE - 2 * MARGIN, SIDE - 2 * MARGIN), Image.Resampling.LANCZOS)
        square = Image.new("L", (SIDE, SIDE))
        square.paste(glyph, ((SIDE - glyph.width) // 2, (SIDE - glyph.height) // 2))
        yield np.asarray(square), label
