"""Random edits of a picture, as the web makes them: crop, flip, other sizes and colors, words across it, JPEG."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

WORDS = (
    "SAMPLE",
    "(c) example",
    "SALE -20%",
    "preview",
    "wallpaper HD",
    "www.example.com",
    "breaking news",
    "photo of the day",
)
"""What stands across pictures."""


def open_rgb(source: Path | io.BytesIO) -> Image.Image:
    """The picture in RGB."""
    with Image.open(source) as picture:
        return picture.convert("RGB")


def encode_jpeg(picture: Image.Image, quality: int) -> bytes:
    """A JPEG file of a quality of 1..95."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def crop_randomly(
    picture: Image.Image, rng: np.random.Generator, low: float, high: float, *, jitter: float = 0.0
) -> Image.Image:
    """A random part of the picture.

    Args:
        low: least share of the area that is kept.
        high: largest share.
        jitter: the aspect varies by a factor of exp(-jitter)..exp(jitter).
    """
    width, height = picture.size
    keep = rng.uniform(low, high)
    aspect = np.exp(rng.uniform(-jitter, jitter)) if jitter else 1.0
    share_x = min(1.0, np.sqrt(keep) * aspect)  # the shares of the sides multiply to `keep`, neither exceeds 1
    share_y = min(1.0, keep / share_x)
    share_x = min(1.0, keep / share_y)
    w, h = max(1, int(np.ceil(width * share_x))), max(1, int(np.ceil(height * share_y)))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return picture.crop((x, y, x + w, y + h))


def mirror(picture: Image.Image) -> Image.Image:
    """The picture with left and right exchanged."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rescale(picture: Image.Image, scale: float, least: int, filtering: Image.Resampling) -> Image.Image:
    """Resize by a factor, to `least` or more pixels a side."""
    size = (max(least, round(picture.width * scale)), max(least, round(picture.height * scale)))
    return picture.resize(size, filtering)


def vary_colors(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """Multiply brightness, contrast and saturation, each by a factor of 1 - amount..1 + amount."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(float(rng.uniform(1 - amount, 1 + amount)))
    return picture


def draw_words(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write words across the picture, with a shadow."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(int(min(picture.size) * rng.uniform(0.07, 0.14)))
    x = int(rng.uniform(0.02, 0.35) * picture.width)
    y = int(rng.uniform(0.05, 0.85) * picture.height)
    red, green, blue = (int(v) for v in rng.choice([(255, 255, 255), (255, 230, 0), (20, 20, 20)]))
    words = str(rng.choice(WORDS))
    draw.text((x + 1, y + 1), words, fill=(0, 0, 0), font=font)
    draw.text((x, y), words, fill=(red, green, blue), font=font)
    return picture
