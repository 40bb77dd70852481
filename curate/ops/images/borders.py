"""Borders of one color around a picture: frames, letterbox bars, passe-partouts.

A frame moves every pixel of what it surrounds, so that neither a hash nor an embedding of the whole finds the picture
without it. So where a picture has a border, what it surrounds is looked up as well.

Lines of pixels are taken off each side while they have one color, that of the outermost line; several rounds take
frames within frames. JPEG's ringing and a thin line of text are borne. Rotated pictures, rounded corners and drawn bars
have no such border; those are left to registration (`ops/copies/registration.py`).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 160
"""Pixels of the long side at which borders are looked for; the box is then refined by one pixel of it."""
TOLERANCE = 12
"""Largest difference of a channel, 0..255, at which a pixel has the color of the border."""
OTHER_SHARE = 0.02
"""Share of a line's pixels that may have another color: specks."""
ROUNDS = 3
"""Frames within frames."""
LEAST_BORDER = 0.02
"""Share of the side that is taken off at least, in one direction; less moves no hash."""
LEAST_PICTURE = 0.3
"""Share of each side that is left at least: less is a small thing on a plain ground, not a framed picture."""
LEAST_LINES = 8
"""Pixels of each side that are left at least, at `SIDE`."""


class Box(NamedTuple):
    """A part of a picture, in pixels: right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


def without_border(picture: Image.Image) -> Image.Image | None:
    """What a border of one color surrounds; None: there is no border.

    Args:
        picture: RGB.
    """
    box = find_border(picture)
    return None if box is None else picture.crop(box)


def find_border(picture: Image.Image) -> Box | None:
    """What a border of one color surrounds; None: there is no border.

    Args:
        picture: RGB.
    """
    factor = max(1, max(picture.size) // SIDE)
    pixels = np.asarray(picture.reduce(factor) if factor > 1 else picture)
    found = _shrink(pixels)
    if found is None:
        return None
    box = Box(*(side * factor for side in found))
    # The outermost lines of what is left are mixed with the border by reducing and by JPEG.
    left, top = (side + factor * (side > 0) for side in (box.left, box.top))
    right = picture.width if found.right == pixels.shape[1] else box.right - factor
    bottom = picture.height if found.bottom == pixels.shape[0] else box.bottom - factor
    return Box(left, top, right, bottom)


def _shrink(pixels: np.ndarray) -> Box | None:
    """The box within (H, W, 3) uint8 that is left without its border; None: there is none, or too little is left."""
    height, width = pixels.shape[:2]
    inside = pixels
    left = top = 0
    for _ in range(ROUNDS):
        before = inside.shape
        lines = _plain_lines(inside), _plain_lines(inside[::-1])
        if sum(lines) > inside.shape[0] - LEAST_LINES:
            return None
        inside, top = inside[lines[0] : inside.shape[0] - lines[1]], top + lines[0]
        turned = inside.transpose(1, 0, 2)
        lines = _plain_lines(turned), _plain_lines(turned[::-1])
        if sum(lines) > turned.shape[0] - LEAST_LINES:
            return None
        inside, left = inside[:, lines[0] : inside.shape[1] - lines[1]], left + lines[0]
        if inside.shape == before:
            break
    share = inside.shape[0] / height, inside.shape[1] / width
    if min(share) < LEAST_PICTURE or max(1 - side for side in share) < LEAST_BORDER:
        return None
    return Box(left, top, left + inside.shape[1], top + inside.shape[0])


def _plain_lines(lines: np.ndarray) -> int:
    """How many of the first of (N, L, 3) uint8 lines have the color of the first one."""
    color = np.median(lines[0], axis=0)
    if not _is_plain(lines[:1], color)[0]:
        return 0
    plain = _is_plain(lines, color)
    return len(lines) if plain.all() else int(plain.argmin())


def _is_plain(lines: np.ndarray, color: np.ndarray) -> np.ndarray:
    """(N,) bool: whether nearly all pixels of (N, L, 3) uint8 lines have the color."""
    low, high = np.clip(color - TOLERANCE, 0, 255).astype(np.uint8), np.clip(color + TOLERANCE, 0, 255).astype(np.uint8)
    other = ((lines < low) | (lines > high)).any(axis=2)
    found: np.ndarray = other.mean(axis=1) <= OTHER_SHARE
    return found
