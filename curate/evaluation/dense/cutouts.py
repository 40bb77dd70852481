"""Objects cut out of pictures: by the background where it is of one color, else by a smooth random outline.

Digits, clip art and photographs of products lie on one color: what is connected to the border and has its color is
background, and the outline is that of the thing itself. Of a photograph the middle is cut by an outline that says
nothing about what it shows, so that no shape gives a class away.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

TOLERANCE = 24
"""By how much a channel of the background may differ from the border's median, of 0..255."""
PLAIN_BORDER = 0.9
"""Share of the border that has one color where a picture lies on one."""
LEAST, MOST = 0.02, 0.95
"""Share of the picture that a thing on one color covers; else an outline is drawn."""
HARMONICS = 4
"""Waves of a random outline."""
SMOOTH = 4
"""Times that an outline is drawn larger, so that its edge is smooth when it is made small again."""


class CutOut(NamedTuple):
    """An object: a picture and which of its pixels belong to it, cropped to these."""

    picture: Image.Image
    mask: Image.Image  # mode L, 0 or 255


def lies_on_one_color(picture: Image.Image) -> bool:
    """Whether the border of an RGB picture is of one color."""
    pixels = np.asarray(picture, np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((np.abs(border - np.median(border, axis=0)).max(axis=1) <= TOLERANCE).mean() >= PLAIN_BORDER)


def cut_out(picture: Image.Image, rng: np.random.Generator) -> CutOut:
    """The object that an RGB picture shows on one color, or the middle of it within a random outline."""
    mask = _on_one_color(picture) if lies_on_one_color(picture) else None
    if mask is None or not LEAST <= mask.mean() <= MOST:
        mask = random_outline(picture.size, rng)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return CutOut(picture.crop(box), Image.fromarray(mask.astype(np.uint8) * 255).crop(box))


def _on_one_color(picture: Image.Image) -> np.ndarray:
    """(H, W) bool, what is not connected with the border by its color."""
    from scipy import ndimage

    pixels = np.asarray(picture, np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    plain = np.abs(pixels - np.median(border, axis=0)).max(axis=2) <= TOLERANCE
    numbers, _ = ndimage.label(plain)
    at_border = np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]))
    mask: np.ndarray = ~np.isin(numbers, at_border[at_border > 0])
    return mask


def random_outline(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool, a smooth shape about the middle of a picture of (width, height)."""
    width, height = size
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    radius = np.ones_like(angles)
    for wave in range(2, 2 + HARMONICS):
        radius += rng.uniform(0, 0.35 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * math.pi))
    radius = radius / radius.max() * min(size) / 2 * 0.95
    outline = [
        (SMOOTH * (width / 2 + r * math.cos(a)), SMOOTH * (height / 2 + r * math.sin(a)))
        for r, a in zip(radius.tolist(), angles.tolist(), strict=True)
    ]
    large = Image.new("L", (SMOOTH * width, SMOOTH * height))
    ImageDraw.Draw(large).polygon(outline, fill=255)
    return np.asarray(large.resize(size, Image.Resampling.BOX)) >= 128
