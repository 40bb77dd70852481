"""Near-copies as the web makes them: seeded chains of edits, planted to measure and calibrate copy detection."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

WORDS = ("SAMPLE", "(c) example", "SALE -20%", "preview", "wallpaper HD", "www.example.com", "photo of the day")
INKS = ((255, 255, 255), (255, 230, 0), (20, 20, 20))
PLAIN = ((255, 255, 255), (0, 0, 0), (128, 128, 128))
PAPERS = (*PLAIN, (244, 239, 226), (28, 34, 60), (150, 30, 40), (60, 90, 70))
"""Colors of frames and mats."""
MIN_SIDE = 48
"""Pixels of the short side that no edit goes below."""

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]
"""Makes an RGB picture another one: RGB, or RGBA where it leaves parts transparent."""


def plant(
    picture: Image.Image, rng: np.random.Generator, *, num_edits: int, num_borders: int = 0
) -> tuple[Image.Image, tuple[str, ...]]:
    """Make a near-copy of a picture, see `plant_file`, and show it as a decoder does: RGB, on white.

    Returns:
        The copy, and the names of its edits in the order they were made.

    Raises:
        ValueError: so many distinct edits do not exist.
    """
    data, names = plant_file(picture, rng, num_edits=num_edits, num_borders=num_borders)
    return _on_white(Image.open(io.BytesIO(data))), names


def plant_file(
    picture: Image.Image, rng: np.random.Generator, *, num_edits: int, num_borders: int = 0
) -> tuple[bytes, tuple[str, ...]]:
    """Make the file of a near-copy: a chain of distinct edits in random order, then saved.

    Args:
        picture: RGB, at least MIN_SIDE pixels on the short side.
        num_edits: edits in the chain, 1 to len(EDITS).
        num_borders: how many of them are of BORDERS, the others being of EDITS.

    Returns:
        A JPEG, or a PNG where parts of the copy are transparent; and the names of its edits in the order they were
        made.

    Raises:
        ValueError: so many distinct edits do not exist.
    """
    if not 1 <= num_edits <= len(EDITS) or not 0 <= num_borders <= min(num_edits, len(BORDERS)):
        raise ValueError(
            f"{num_edits} edits, {num_borders} of them borders: 1 to {len(EDITS)} edits are possible, and 0 to "
            f"{min(num_edits, len(BORDERS))} borders"
        )
    names = [str(name) for name in rng.choice(sorted(EDITS), size=num_edits - num_borders, replace=False)]
    if num_borders:  # drawing nothing would move the random stream of chains without borders
        names += [str(name) for name in rng.choice(sorted(BORDERS), size=num_borders, replace=False)]
        names = [names[i] for i in rng.permutation(num_edits)]
    copy, known = picture, EDITS | BORDERS
    for name in names[:-1]:
        copy = _on_white(known[name](copy, rng))
    if names[-1] == "jpeg":  # saved once, by the edit itself
        return _encode(copy, _harsh_quality(rng)), tuple(names)
    copy = known[names[-1]](copy, rng)
    if copy.mode == "RGBA":
        buffer = io.BytesIO()
        copy.save(buffer, "PNG")
        return buffer.getvalue(), tuple(names)
    return _encode(copy, int(rng.integers(70, 91))), tuple(names)


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB: transparent parts show a white page."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    page = Image.new("RGB", picture.size, (255, 255, 255))
    page.paste(picture, mask=picture.getchannel("A"))
    return page


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Saves as a JPEG of quality 15 to 60."""
    return Image.open(io.BytesIO(_encode(picture, _harsh_quality(rng)))).convert("RGB")


def _harsh_quality(rng: np.random.Generator) -> int:
    return int(rng.integers(15, 61))


def _encode(picture: Image.Image, quality: int) -> bytes:
    """The picture as a JPEG of this quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


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
    shade = tuple(int(v) for v in rng.choice(PLAIN))
    return ImageOps.expand(picture, border=width, fill=shade)


def _rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turns by 2 to 12 degrees either way; the corners become black."""
    angle = rng.uniform(2, 12) * rng.choice([-1.0, 1.0])
    return picture.rotate(angle, Image.Resampling.BILINEAR)


def _wide_frame(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds a frame of one color, of its own width on each side: 10 to 35 % of the short side."""
    widths = tuple(max(1, round(min(picture.size) * rng.uniform(0.1, 0.35))) for _ in range(4))
    return ImageOps.expand(picture, border=widths, fill=_color(PAPERS, rng))


def _letterbox(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds two equal bars, above and below or left and right, that make that side 1.2 to 1.8 times as long."""
    along = int(rng.integers(2))
    bar = max(1, round(picture.size[along] * rng.uniform(0.1, 0.4)))
    border = (bar, 0) if along == 0 else (0, bar)
    return ImageOps.expand(picture, border=border, fill=_color(PLAIN, rng))


def _passe_partout(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds a mat of one color, 6 to 18 % of the short side wide, and round it a frame of another, 2 to 7 %."""
    mat, frame = (PAPERS[i] for i in rng.choice(len(PAPERS), size=2, replace=False))
    short = min(picture.size)
    matted = ImageOps.expand(picture, border=max(2, round(short * rng.uniform(0.06, 0.18))), fill=mat)
    return ImageOps.expand(matted, border=max(1, round(short * rng.uniform(0.02, 0.07))), fill=frame)


def _round_corners(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rounds the corners by 6 to 25 % of the short side; outside of them it is transparent, white or black."""
    radius = max(2.0, min(picture.size) * rng.uniform(0.06, 0.25))
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), radius, fill=255)
    outside = (None, (255, 255, 255), (0, 0, 0))[int(rng.integers(3))]
    if outside is not None:
        return Image.composite(picture, Image.new("RGB", picture.size, outside), mask)
    rounded = picture.copy()
    rounded.putalpha(mask)
    return rounded


def _transparent_margins(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Puts it on a transparent canvas, with a margin of its own width on each side: 4 to 25 % of the short side."""
    left, top, right, bottom = (max(1, round(min(picture.size) * rng.uniform(0.04, 0.25))) for _ in range(4))
    canvas = Image.new("RGBA", (left + picture.width + right, top + picture.height + bottom), (0, 0, 0, 0))
    canvas.paste(picture, (left, top))
    return canvas


def _screenshot(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shows it on the screen of a phone: a status bar above, a navigation bar below, and the app's page between."""
    page, ink = (((250, 250, 250), (40, 40, 40)), ((18, 18, 18), (225, 225, 225)))[int(rng.integers(2))]
    unit = max(8, round(min(picture.size) * rng.uniform(0.06, 0.1)))  # height of the status bar
    above, below = (round(picture.height * rng.uniform(0.0, 0.25)) for _ in range(2))
    bottom = unit + above + picture.height + below
    screen = Image.new("RGB", (picture.width, bottom + 2 * unit), page)
    screen.paste(picture, (0, unit + above))
    draw, font = ImageDraw.Draw(screen), ImageFont.load_default(unit * 0.6)
    clock = f"{int(rng.integers(24))}:{int(rng.integers(60)):02}"
    draw.text((unit * 0.5, unit * 0.15), clock, fill=ink, font=font)
    right = picture.width - unit * 0.4
    draw.rectangle((right - unit, unit * 0.3, right, unit * 0.7), outline=ink, width=max(1, unit // 12))  # battery
    draw.rectangle((right - unit, unit * 0.3, right - unit * rng.uniform(0.1, 0.9), unit * 0.7), fill=ink)
    for i in range(4):  # strength of the signal
        left = right - unit * (2.6 - 0.3 * i)
        draw.rectangle((left, unit * (0.6 - 0.1 * i), left + unit * 0.18, unit * 0.75), fill=ink)
    middle, half, line = bottom + unit, unit * 0.35, max(1, unit // 8)
    back, home, recent = (picture.width * share for share in (0.25, 0.5, 0.75))
    draw.line([(back + half, middle - half), (back - half, middle), (back + half, middle + half)], fill=ink, width=line)
    draw.ellipse((home - half, middle - half, home + half, middle + half), outline=ink, width=line)
    draw.rectangle((recent - half, middle - half, recent + half, middle + half), outline=ink, width=line)
    return screen


def _side_by_side(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Puts it beside another picture, a drawn one of the same height and 70 to 100 % of its width, on either side."""
    width = max(1, round(picture.width * rng.uniform(0.7, 1.0)))
    gap = round(picture.width * rng.uniform(0.0, 0.03))
    other, first = _scene((width, picture.height), rng), bool(rng.integers(2))
    both = Image.new("RGB", (picture.width + gap + width, picture.height), (255, 255, 255))
    both.paste(picture, (0 if first else width + gap, 0))
    both.paste(other, (picture.width + gap if first else 0, 0))
    return both


def _scene(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A picture of nothing: clouds of color at two scales, and a few shapes with sharp edges."""
    coarse, fine = (
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for side in (4, 24)
    )
    scene = Image.blend(coarse, fine, 0.3)
    draw = ImageDraw.Draw(scene)
    for _ in range(int(rng.integers(3, 9))):
        (x, y), (w, h) = rng.uniform(0, 0.9, 2) * size, rng.uniform(0.05, 0.4, 2) * size
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return scene


def _cropped_in_frame(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keeps 50 to 90 % of the area, and adds the frame of `_wide_frame` round that."""
    return _wide_frame(_cut_out(picture, rng), rng)


def _color(colors: Sequence[tuple[int, int, int]], rng: np.random.Generator) -> tuple[int, int, int]:
    return colors[int(rng.integers(len(colors)))]


EDITS: dict[str, Edit] = {
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

BORDERS: dict[str, Edit] = {
    "wide_frame": _wide_frame,
    "letterbox": _letterbox,
    "passe_partout": _passe_partout,
    "rounded": _round_corners,
    "transparent": _transparent_margins,
    "screenshot": _screenshot,
    "side_by_side": _side_by_side,
    "framed_crop": _cropped_in_frame,
}
"""Edits that surround the picture, by their names; those that leave parts transparent give RGBA, the others RGB."""
