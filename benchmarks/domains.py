"""Pictures of ten domains whose pictures look alike, drawn from seeds, and photographs as the control.

A pool of letters, X-rays or frames of one camera is what copy detection finds hardest: every two pictures share their
layout and differ in their content alone. Each generator draws such a domain with one layout (or a few) and other
content in each picture, so that no two of them are copies; `draw_domain` gives the first so many.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter

from curate.errors import ConfigError
from curate.samples.bundled import PHOTOS
from curate.samples.mnist import load_mnist5k

SYLLABLES = ("ka", "lo", "mi", "tre", "sou", "pan", "vil", "ra", "den", "to", "lic", "mar", "ing", "es", "un")
DIGIT_SCALE = 4
"""Pixels of a side of a drawn pixel of a digit: edits need pictures of 48 pixels."""
PHOTO_SIDE = 384
"""Pixels of the long side of a photograph."""


def draw_domain(name: str, num_pictures: int, *, seed: int) -> list[Image.Image]:
    """`num_pictures` distinct pictures of one domain; another seed gives other ones of the same layout.

    Raises:
        ConfigError: the name is not known.
    """
    if name not in DOMAINS:
        raise ConfigError(f"--domain {name}: not known; {', '.join(DOMAINS)} are")
    number = list(DOMAINS).index(name)
    return [
        DOMAINS[name](np.random.default_rng([seed, number, i]), np.random.default_rng([seed, number]), i)
        for i in range(num_pictures)
    ]


def _page(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A letter: a common head, thirty lines of other words."""
    page, pen = _sheet((425, 550), "white")
    pen.text((40, 30), _words(layout, 3).upper(), font=_font(20), fill=0)
    pen.line((40, 60, 385, 60), fill=0, width=2)
    for line in range(int(rng.integers(20, 31))):
        pen.text((40, 90 + 14 * line), _words(rng, 9)[:58], font=_font(11), fill=0)
    return page


def _form(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A printed form, whose fields are filled in and whose boxes are ticked."""
    form, pen = _sheet((425, 550), "white")
    pen.text((40, 24), _words(layout, 2).upper(), font=_font(18), fill=0)
    for field in range(14):
        y = 60 + 30 * field
        pen.text((40, y), _words(layout, 2), font=_font(10), fill=60)
        pen.rectangle((170, y - 4, 385, y + 18), outline=(120, 120, 120))
        entry = _words(rng, 2) if field % 3 else str(rng.integers(10**4, 10**8))
        pen.text((176 + int(rng.integers(0, 6)), y - 2), entry, font=_font(14), fill=(20, 20, 120))
    for box in range(8):
        x = 40 + 44 * box
        pen.rectangle((x, 500, x + 14, 514), outline=0)
        if rng.random() < 0.5:
            pen.line((x, 500, x + 14, 514), fill=0, width=2)
    return form


def _digit(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A handwritten digit of the bundled MNIST sample, enlarged."""
    pictures, _ = load_mnist5k()
    order = layout.permutation(len(pictures))
    digit = Image.fromarray(pictures[order[number % len(order)]])
    return digit.resize([side * DIGIT_SCALE for side in digit.size], Image.Resampling.BICUBIC).convert("RGB")


def _icon(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A flat icon: two or three shapes on a round tile."""
    icon, pen = _sheet((192, 192), "white")
    pen.rounded_rectangle((12, 12, 180, 180), 36, fill=_color(rng))
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.integers(30, 110, 2).tolist()
        width, height = rng.integers(24, 72, 2).tolist()
        box, fill = (x, y, x + width, y + height), _color(rng)
        kind = int(rng.integers(4))
        if kind == 0:
            pen.ellipse(box, fill=fill)
        elif kind == 1:
            pen.rectangle(box, fill=fill)
        elif kind == 2:
            pen.regular_polygon((x + width / 2, y + height / 2, width / 2), int(rng.integers(3, 7)), fill=fill)
        else:
            start, end = sorted(rng.integers(0, 360, 2).tolist())
            pen.arc(box, start, end, fill=fill, width=8)
    return icon


def _drawing(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """Thin strokes on white: open curves and polygons."""
    sheet, pen = _sheet((360, 360), "white")
    for _ in range(int(rng.integers(6, 12))):
        if rng.random() < 0.6:
            turns = np.cumsum(rng.normal(0, 0.35, 60))
            steps = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * 6, axis=0)
            points = steps + rng.uniform(60, 300, 2)
            pen.line([tuple(point) for point in points.tolist()], fill=0, width=2)
        else:
            points = rng.uniform(20, 340, (int(rng.integers(3, 6)), 2))
            pen.polygon([tuple(point) for point in points.tolist()], outline=0)
    return sheet


def _satellite(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """Fields, cut by a grid that is turned, with roads and a texture of their own."""
    side = 256
    y, x = np.mgrid[:side, :side].astype(np.float64)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(30, 70)
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / pitch, (np.cos(angle) * y - np.sin(angle) * x) / (1.4 * pitch)
    shade = rng.uniform(60, 140, 4096)
    field = shade[((np.floor(u) * 37 + np.floor(v) * 101).astype(np.int64)) % 4096]
    land = field + 18 * _noise(rng, side, 2) + 14 * _noise(rng, side, 24)
    road = (np.abs(u % 3 - 1.5) < 0.04) | (np.abs(v % 4 - 2) < 0.03)
    land = np.where(road, 190, land)
    return _tinted(land, (0.8, 1.0, 0.62))


def _microscopy(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """Stained cells at other places: round bodies with dark nuclei on a pale ground."""
    side = 256
    cells, pen = _sheet((side, side), (236, 214, 226))
    for _ in range(int(rng.integers(28, 44))):
        x, y, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(9, 19)
        pen.ellipse((x - radius, y - radius * 0.85, x + radius, y + radius * 0.85), fill=(205, 150, 190))
        x, y, radius = x + rng.normal(0, 3), y + rng.normal(0, 3), radius * rng.uniform(0.3, 0.5)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(96, 50, 130))
    return _grain(cells.filter(ImageFilter.GaussianBlur(1.2)), rng, 5)


def _xray(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A chest: lungs, ribs and heart where they always are, each a little otherwise."""
    side = 320
    y, x = np.mgrid[:side, :side] / side
    body = np.exp(-(((x - 0.5) / rng.uniform(0.38, 0.46)) ** 4) - ((y - 0.55) / 0.6) ** 4)
    picture = 60 + 120 * body
    for sign in (-1, 1):
        center = 0.5 + sign * rng.uniform(0.17, 0.2)
        wide, high = rng.uniform(0.11, 0.14), rng.uniform(0.24, 0.3)
        picture -= 85 * np.exp(-((((x - center) / wide) ** 2 + ((y - 0.45) / high) ** 2) ** 2))
    pitch, bend, phase = rng.uniform(0.075, 0.09), rng.uniform(0.5, 1.0), rng.uniform(0, 1)
    ribs = np.cos(2 * np.pi * ((y + bend * (np.abs(x - 0.5) - 0.2) ** 2) / pitch + phase))
    picture += 13 * np.clip(ribs, 0, 1) * body
    left, low = rng.uniform(0.53, 0.58), rng.uniform(0.58, 0.64)
    picture += 60 * np.exp(-((((x - left) / rng.uniform(0.1, 0.14)) ** 2 + ((y - low) / 0.13) ** 2) ** 2))
    picture += 55 * np.exp(-(((x - 0.5) / 0.035) ** 2))  # the spine
    picture += 5 * _noise(rng, side, 3) + 7 * _noise(rng, side, 14)
    return _tinted(picture, (1.0, 1.0, 1.0))


def _screen(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A program's window: bars and menus as ever, another table and another chart."""
    screen, pen = _sheet((480, 320), (246, 247, 249))
    pen.rectangle((0, 0, 480, 28), fill=(40, 60, 100))
    pen.text((10, 6), _words(layout, 2).title(), font=_font(14), fill="white")
    pen.rectangle((0, 28, 110, 320), fill=(226, 230, 238))
    chosen = int(rng.integers(9))
    for entry in range(9):
        if entry == chosen:
            pen.rectangle((0, 40 + 28 * entry, 110, 64 + 28 * entry), fill=(190, 205, 235))
        pen.text((12, 44 + 28 * entry), _words(layout, 1).title(), font=_font(12), fill=(40, 40, 40))
    pen.text((125, 38), _words(rng, 3).title(), font=_font(16), fill=(20, 20, 20))
    for row in range(7):
        y = 66 + 20 * row
        pen.line((125, y + 17, 465, y + 17), fill=(215, 215, 220))
        pen.text((128, y), _words(rng, 2)[:20], font=_font(11), fill=(40, 40, 40))
        for column in range(3):
            pen.text((290 + 60 * column, y), str(rng.integers(1, 99999)), font=_font(11), fill=(60, 60, 60))
    for bar in range(12):
        top = int(rng.integers(220, 300))
        pen.rectangle((130 + 28 * bar, top, 150 + 28 * bar, 306), fill=(90, 140, 210))
    return screen


def _frame(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """A fixed camera over a road: the scene stays, cars, people, light and the clock change."""
    frame, pen = _sheet((384, 256), (150, 180, 205))
    pen.rectangle((0, 110, 384, 256), fill=(96, 108, 84))
    pen.polygon([(130, 110), (250, 110), (384, 256), (0, 256)], fill=(88, 88, 92))
    for x in range(4, 384, 62):
        top = int(layout.integers(40, 85))
        pen.rectangle((x, top, x + 48, 110), fill=tuple(layout.integers(90, 170, 3).tolist()))
        for window in range(3):
            pen.rectangle((x + 6 + 14 * window, top + 8, x + 13 + 14 * window, top + 20), fill=(60, 70, 90))
    for _ in range(int(rng.integers(2, 6))):
        depth = rng.uniform(0.15, 1)
        bottom, wide = 112 + 110 * depth, 14 + 60 * depth
        left = 190 + rng.uniform(-1, 1) * (55 + 110 * depth) - wide / 2
        pen.rectangle((left, bottom - wide / 3, left + wide, bottom + wide / 6), fill=_color(rng))
    for _ in range(int(rng.integers(1, 5))):
        at, feet = rng.uniform(5, 375), rng.uniform(125, 215)
        pen.ellipse((at - 4, feet - 22, at + 4, feet - 14), fill=(200, 160, 140))
        pen.rectangle((at - 5, feet - 14, at + 5, feet + 10), fill=_color(rng))
    light = rng.uniform(0.8, 1.15)
    frame = Image.fromarray(np.clip(np.asarray(frame) * light, 0, 255).astype(np.uint8))
    clock = "{:02}:{:02}:{:02}".format(*rng.integers(0, [24, 60, 60]).tolist())
    ImageDraw.Draw(frame).text((8, 6), f"CAM 2  {clock}", font=_font(13), fill="white")
    return _grain(frame, rng, 4)


def _photo(rng: np.random.Generator, layout: np.random.Generator, number: int) -> Image.Image:
    """One of the bundled photographs: the control, whose pictures do not look alike."""
    files = sorted(path for path in PHOTOS.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".webp"))
    photo = Image.open(files[layout.permutation(len(files))[number % len(files)]]).convert("RGB")
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return photo


DOMAINS: dict[str, Callable[[np.random.Generator, np.random.Generator, int], Image.Image]] = {
    "pages": _page,
    "forms": _form,
    "digits": _digit,
    "icons": _icon,
    "line drawings": _drawing,
    "satellite tiles": _satellite,
    "microscopy": _microscopy,
    "x-rays": _xray,
    "screenshots": _screen,
    "camera frames": _frame,
    "photographs": _photo,
}
"""What draws a picture of each domain: from a stream of its own, one that all pictures of the domain share, and its
number."""
CONTROL = "photographs"


# -- what the generators share -------------------------------------------------------------------------------


def _sheet(size: tuple[int, int], color: str | tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", size, color)
    return sheet, ImageDraw.Draw(sheet)


def _words(rng: np.random.Generator, number: int) -> str:
    return " ".join("".join(rng.choice(SYLLABLES, int(rng.integers(1, 4)))) for _ in range(number))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(float(size))


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(20, 236, 3).tolist()
    return red, green, blue


def _noise(rng: np.random.Generator, side: int, radius: float) -> np.ndarray:
    """(side, side) smooth noise of unit variance."""
    smooth = gaussian_filter(rng.standard_normal((side, side)), radius, mode="wrap")
    noise: np.ndarray = smooth / smooth.std()
    return noise


def _grain(picture: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    values = np.asarray(picture) + rng.normal(0, strength, (*picture.size[::-1], 1))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _tinted(values: np.ndarray, tint: tuple[float, float, float]) -> Image.Image:
    return Image.fromarray(np.clip(values[..., None] * np.array(tint), 0, 255).astype(np.uint8))
