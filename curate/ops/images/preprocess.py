"""From a picture of any size to the square input of a model, as torchvision makes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MAX_ASPECT = 32
"""Ratio of the sides above which the middle of a picture alone is resized: a strip of 2 x 30,000 pixels, brought to a
short side of 256, would take 3 GB, of which the crop keeps a square. torchvision resizes all of it."""


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its pictures: they are resized here, on the CPU, and normalized on the device, by the model."""

    size: int
    """Pixels of a side of the square input."""
    resize: Literal["short_edge_crop", "square"]
    """Bring the short side to `short_edge` and crop the center, or squeeze the whole picture into the square."""
    short_edge: int
    """Pixels of the short side before the crop; equals `size` for square."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    """Mean of each RGB channel, of values in 0..1, that the model subtracts."""
    std: tuple[float, float, float]
    """Standard deviation of each RGB channel, of values in 0..1, that the model divides by."""


def decode_side(consumers: Iterable[Preprocess], *, at_least: int = 0) -> int:
    """The `min_side` to decode with so that every consumer has enough pixels, and there are `at_least` so many."""
    return max([at_least, *(how.short_edge for how in consumers)])


def middle(picture: Image.Image, *, max_aspect: int) -> Image.Image:
    """The middle of a picture that is longer than `max_aspect` times its short side; else the picture itself."""
    longest = max_aspect * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    width, height = (min(side, longest) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def preprocess(picture: Image.Image, how: Preprocess) -> np.ndarray:
    """Resize and crop a picture as torchvision does on PIL images.

    Args:
        picture: RGB.
        how: what the model wants.

    Returns:
        (3, size, size) uint8, contiguous; the model normalizes it by `mean` and `std`.
    """
    filter_ = INTERPOLATION[how.interpolation]
    if how.resize == "square":
        resized = picture.resize((how.size, how.size), filter_)
    else:
        picture = middle(picture, max_aspect=MAX_ASPECT)
        short = min(picture.size)
        width, height = (max(how.size, int(how.short_edge * side / short)) for side in picture.size)
        resized = picture.resize((width, height), filter_)
        left, top = round((width - how.size) / 2), round((height - how.size) / 2)
        resized = resized.crop((left, top, left + how.size, top + how.size))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
