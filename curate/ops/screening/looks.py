"""Looks of a picture as numbers: how blurred, dark, bright, empty, long, gray or flat it is, and how many frames.

Each score grows with what a rule may forbid, so that a rule says from which value on a picture goes. Most are those of
CleanVision, computed from their definitions, with its published thresholds brought to these scales. Blur is not: there
the border of the picture counts as an edge, so that a picture without any other passes. Here the border is left out,
and the preset is one that no sharp photograph of our samples reaches. They are measured on the picture as the pass
decodes it, with a short side of `Inspect.decode_side` pixels, and less than twice as many, where the original is
larger; blur at 64 pixels of the long side, so that its size does not matter. Shape and frames are those of the
original.

Source: CleanVision 0.3, cleanlab: brightness by the HSP color model, percentiles 99 and 5, entropy of the colors, edges
at 64 pixels.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from curate.ops.images.frames import count_frames

BLUR_SIDE = 64
"""Pixels of the long side at which blur is measured."""
EDGE_SCALE = 100.0
"""Standard deviation of the edges at which a picture has a blur of 1/e."""
BRIGHTNESS = (0.241, 0.691, 0.068)
"""Weights of the squares of red, green and blue in perceived brightness (HSP)."""
ALIKE = 8
"""Steps of 255 by which the channels of a gray pixel may differ: as far as compression tints them."""
EQUAL = 2
"""Steps of 255 by which neighboring pixels of a flat area may differ."""


@dataclass(frozen=True)
class Pictured:
    """A picture with what is known of its file."""

    picture: Image.Image
    """RGB, upright, as the pass decoded it."""
    width: int
    """Pixels of the original, upright."""
    height: int
    data: bytes
    """The encoded image."""

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.asarray(self.picture)


@dataclass(frozen=True)
class Look:
    """One of the scores."""

    measure: Callable[[Pictured], float]
    doc: str
    """Meaning and range."""
    above: float
    """The preset: pictures of higher scores are dropped where a rule says `preset`."""
    whole: bool = False
    """Whether it is a whole number."""


def measure_looks(seen: Pictured, names: Collection[str]) -> dict[str, float | int]:
    """The scores of these names, see `LOOKS`."""
    return {name: int(value) if LOOKS[name].whole else float(value) for name, value in _measured(seen, names)}


def _measured(seen: Pictured, names: Collection[str]) -> list[tuple[str, float]]:
    return [(name, LOOKS[name].measure(seen)) for name in names]


def _blur(seen: Pictured) -> float:
    """exp(-deviation of the edges / 100), of luma at 64 pixels; edges by the Laplacian of eight neighbors, 0..255."""
    picture, longest = seen.picture, max(seen.picture.size)
    if longest > BLUR_SIDE:
        width, height = (max(1, side * BLUR_SIDE // longest) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    luma = np.asarray(picture.convert("L"), np.int32)
    if min(luma.shape) < 3:
        return 1.0
    around = sum(
        luma[1 + down : luma.shape[0] - 1 + down, 1 + right : luma.shape[1] - 1 + right]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    )
    edges = np.clip(9 * luma[1:-1, 1:-1] - around, 0, 255)
    return float(np.exp(-edges.std() / EDGE_SCALE))


def _brightness_squared(seen: Pictured) -> np.ndarray:
    """(H * W,) float32: square of the perceived brightness of each pixel, 0..1; its root keeps the order."""
    values = seen.pixels.reshape(-1, 3)
    return np.square(values, dtype=np.float32) @ np.array(BRIGHTNESS, np.float32) / np.float32(255 * 255)


def _percentile(values: np.ndarray, percent: int) -> float:
    """The value below which so many percent lie: that of the nearest rank."""
    place = min(len(values) - 1, round(percent / 100 * (len(values) - 1)))
    return float(np.partition(values, place)[place])


def _darkness(seen: Pictured) -> float:
    return float(1 - min(1.0, np.sqrt(_percentile(_brightness_squared(seen), 99))))


def _overexposure(seen: Pictured) -> float:
    return float(min(1.0, np.sqrt(_percentile(_brightness_squared(seen), 5))))


def _low_information(seen: Pictured) -> float:
    """1 - mean entropy of the channels / 8 bits."""
    counts = np.array(seen.picture.histogram(), np.float64).reshape(3, 256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(1 + (shares * logs).sum(axis=1).mean() / 8)


def _odd_aspect(seen: Pictured) -> float:
    return max(seen.width, seen.height) / min(seen.width, seen.height)


def _animated(seen: Pictured) -> float:
    return count_frames(seen.data)


def _grayscale(seen: Pictured) -> float:
    red, green, blue = seen.picture.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    counts = ImageChops.subtract(highest, lowest).histogram()
    return sum(counts[: ALIKE + 1]) / sum(counts)


def _flat(seen: Pictured) -> float:
    """Of pixels with neighbors to the right and below; a picture of one row or column is compared with itself."""
    luma = np.asarray(seen.picture.convert("L"), np.int16)
    here, right, below = luma[:-1, :-1], luma[:-1, 1:], luma[1:, :-1]
    if here.size == 0:
        return 1.0
    return float(((abs(here - right) <= EQUAL) & (abs(here - below) <= EQUAL)).mean())


LOOKS = {
    "blur": Look(_blur, "lack of edges at 64 pixels, 0 (sharp)..1 (no edge at all)", 0.85),
    "darkness": Look(_darkness, "1 - brightness that 1 % of the pixels exceed, 0..1 (black)", 0.68),
    "overexposure": Look(_overexposure, "brightness that all but 5 % of the pixels reach, 0..1 (white)", 0.95),
    "low_information": Look(_low_information, "1 - mean entropy of the channels / 8 bits, 0..1 (one color)", 0.823),
    "odd_aspect": Look(_odd_aspect, "long side / short side of the original, 1...", 1 / 0.35),
    "animated": Look(_animated, "frames of a GIF, PNG, WebP or AVIF, 1 (a still picture)...", 1, whole=True),
    "grayscale": Look(_grayscale, "share of the pixels without color, 0..1", 0.99),
    "flat": Look(_flat, "share of the pixels that equal those beside and below them, 0..1", 0.95),
}
"""Scores by name, which is their column's too."""
