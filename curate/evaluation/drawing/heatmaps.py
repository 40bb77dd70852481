"""Maps over the patches of a picture, drawn on the picture.

The scale of colors must not invent what the map does not say. Its lightness rises in equal steps, so that no step looks
like an edge; it begins at 0 and reaches its end only where attention is several times its mean, so that flat attention
looks flat.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageOps

DARKEST, LIGHTEST = 0.17, 0.95
"""OKLab lightness of the lowest and the highest value."""
HUES = (285.0, 465.0)
"""OKLab hue in degrees of the lowest and the highest value: from violet over red to yellow."""
CHROMA = 0.19
"""OKLab chroma, where sRGB can show as much."""
FULL_SCALE = 4.0
"""A map uses the whole scale where its strongest patch has at least this many times the mean."""
DIMMED = 0.3
"""Factor on the brightness of what a mask leaves out."""

_TO_LMS = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.291485548],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)
"""OKLab to linear sRGB. Source: Ottosson 2020, "A perceptual color space for image processing"."""


@cache
def heat_table() -> np.ndarray:
    """(256, 3) uint8 sRGB colors whose perceived lightness rises in equal steps."""
    share = np.linspace(0, 1, 256)
    lightness = DARKEST + (LIGHTEST - DARKEST) * share
    hue = np.deg2rad(HUES[0] + (HUES[1] - HUES[0]) * share)
    low, high = np.zeros(256), np.full(256, CHROMA)
    for _ in range(30):  # bisect for the strongest chroma that sRGB can show
        middle = (low + high) / 2
        linear = _linear_rgb(lightness, middle, hue)
        shown = ((linear >= 0) & (linear <= 1)).all(axis=1)
        low, high = np.where(shown, middle, low), np.where(shown, high, middle)
    linear = _linear_rgb(lightness, low, hue).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    rgb: np.ndarray = (lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    return rgb


def strength(attention: np.ndarray) -> float:
    """The largest value of a map divided by its mean; 1: the map is flat."""
    mean = float(attention.mean())
    return float(attention.max()) / mean if mean > 0 else 1.0


def heat_overlay(picture: Image.Image, attention: np.ndarray) -> Image.Image:
    """The picture in gray under the colors of its (h, w) attention, which begin at 0 and end at its strongest patches.

    Attention whose strongest patch stays below FULL_SCALE times the mean does not reach the lightest color.
    """
    mean = float(attention.mean()) or 1.0
    top = max(float(np.quantile(attention, 0.995)), FULL_SCALE * mean)
    smooth = _enlarge(attention / top, picture.size, Image.Resampling.BICUBIC).clip(0, 1)
    colors = heat_table()[np.rint(255 * smooth).astype(np.int64)].astype(np.float32)
    gray = np.asarray(ImageOps.autocontrast(picture.convert("L")), np.float32)[..., None]
    cover = (0.5 + 0.35 * smooth)[..., None]
    return Image.fromarray(np.rint(colors * cover + gray * (1 - cover)).astype(np.uint8))


def cut_out(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The picture, which is darkened where its (h, w) mask is False."""
    light = _enlarge(np.where(mask, 1.0, DIMMED), picture.size, Image.Resampling.NEAREST)[..., None]
    return Image.fromarray(np.rint(np.asarray(picture, np.float32) * light).astype(np.uint8))


def tiled(colors: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Patches of (h, w, 3) colors or (h, w) grays, uint8, as a picture of `size` (width, height)."""
    return Image.fromarray(colors).resize(size, Image.Resampling.NEAREST)


def _enlarge(grid: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """(h, w) values enlarged to `size` (width, height): (height, width) float32."""
    return np.asarray(Image.fromarray(grid.astype(np.float32)).resize(size, how))
