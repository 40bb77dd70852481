"""Near-copies as the web makes them: seeded chains of edits, planted to measure and calibrate copy detection."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

WORDS = ("SAMPLE", "(c) example", "SALE -20%", "preview", "wallpaper HD", "www.example.com", "photo of the day")
INKS = ((255, 255, 255), (255, 230, 0), (20, 20, 20))
MIN_SIDE = 48
"""Pixels of the short side that no edit goes below."""


def plant(picture: Image.Image, rng: np.random.Generator, *, num_edits: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Make a near-copy of a picture: a chain of distinct edits in random order, then saved as a JPEG.

    Args:
        picture: RGB, at least MIN_SIDE pixels on the short side.
        num_edits: edits in the chain, 1 to len(EDITS).

    Returns:
        The copy, and the names of its edits in the order they were made.

    Raises:
        ValueError: so many distinct edits do not exist.
    """
    if not 1 <= num_edits <= len(EDITS):
        raise ValueError(f"{num_edits} edits: 1 to {len(EDITS)} are possible")
    names = tuple(str(name) for name in rng.choice(sorted(EDITS), size=num_edits, replace=False))
    copy = picture
    for name in names:
        copy = EDITS[name](copy, rng)
    return (copy if names[-1] == "jpeg" else _encode(copy, int(rng.integers(70, 91)))), names


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Saves as a JPEG of quality 15 to 60."""
    return _encode(picture, int(rng.integers(15, 61)))


def _encode(picture: Image.Image, quality: int) -> Image.Image:
    """The picture as a JPEG of this quality shows it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _shrink(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Leaves 30 to 80 % of each side."""
    scale = max(rng.uniform(0.3, 0.8), MIN_SIDE / min(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _cut_out(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keeps 50 to 90 % of the area, at the aspect of the picture."""
    share = np.sqrt(rng.uniform(0.5, 0.9))
    width, height = (max(1, round(side * share)) for side in picture.size)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _mirror(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left becomes right."""
    return ImageOps.mirror(picture)


def _text(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Writes one of WORDS over it, with a shadow."""
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    font = ImageFont.load_default(float(min(picture.size) * rng.uniform(0.07, 0.16)))
    place = (rng.uniform(0.02, 0.4) * picture.width, rng.uniform(0.05, 0.85) * picture.height)
    word, ink = str(rng.choice(WORDS)), INKS[int(rng.integers(len(INKS)))]
    draw.text((place[0] + 1, place[1] + 1), word, fill=(0, 0, 0), font=font)
    draw.text(place, word, fill=ink, font=font)
    return marked


def _jitter_color(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes brightness, contrast and saturation, each by up to 30 %."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(rng.uniform(0.7, 1.3))
    return picture


def _blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blurs by a Gaussian whose radius is 0.3 to 1 % of the short side."""
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) * rng.uniform(0.003, 0.01)))


def _grayscale(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Takes the colors away; the picture stays RGB."""
    return picture.convert("L").convert("RGB")


def _border(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds a frame of one color, 3 to 12 % of the short side wide."""
    width = max(1, round(min(picture.size) * rng.uniform(0.03, 0.12)))
    shade = tuple(int(v) for v in rng.choice([(255, 255, 255), (0, 0, 0), (128, 128, 128)]))
    return ImageOps.expand(picture, border=width, fill=shade)


def _rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turns by 2 to 12 degrees either way; the corners become black."""
    angle = rng.uniform(2, 12) * rng.choice([-1.0, 1.0])
    return picture.rotate(angle, Image.Resampling.BILINEAR)


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "jpeg": _jpeg,
    "rescale": _shrink,
    "crop": _cut_out,
    "flip": _mirror,
    "text": _text,
    "colour": _jitter_color,
    "blur": _blur,
    "grayscale": _grayscale,
    "border": _border,
    "rotate": _rotate,
}
"""Every edit by its name; all keep the picture recognizable at a glance. The names are values of tables."""
