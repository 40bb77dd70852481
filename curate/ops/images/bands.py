"""Making RGB of 8 bits of a large picture, a band of its rows at a time.

A picture of 89 million pixels takes 340 MiB as Pillow holds it, and each step of a conversion would take as much again:
transparency laid on white five times, floats as numbers of 64 bits nine times. So each band goes through all steps by
itself, down to the reduced picture that is wanted. Bands begin at multiples of the factor by which the picture is
reduced, so the result is that of the whole to the last bit; what depends on all pixels (the range of floats, an alpha
channel that nobody set) is found out before, band by band too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from curate.ops.images.containers import Essence

BAND_PIXELS = 1 << 20
"""Pixels of a band, about; at least as many rows as are reduced to one."""


@dataclass(frozen=True)
class Rows:
    """A decoded picture of any mode, of which rows can be had."""

    size: tuple[int, int]
    mode: str
    band: Callable[[int, int], Image.Image]
    """From the first row and the one behind the last to a picture of these rows."""


def rows_of(image: Image.Image) -> Rows:
    """The rows of a picture that is loaded."""

    def band(top: int, bottom: int) -> Image.Image:
        return image if (top, bottom) == (0, image.height) else image.crop((0, top, image.width, bottom))

    return Rows(image.size, image.mode, band)


def reduce_rows(rows: Rows, factor: int, convert: Callable[[Image.Image, int], Image.Image]) -> Image.Image:
    """The picture converted to RGB, then reduced by a whole factor.

    Args:
        convert: from a band and its first row to the same in RGB.
    """
    (width, height), made = rows.size, None
    for top, bottom in spans(rows.size, factor):
        band = convert(rows.band(top, bottom), top)
        band = band.reduce(factor) if factor > 1 else band
        if (top, bottom) == (0, height):
            return band
        made = made or Image.new("RGB", (-(-width // factor), -(-height // factor)))
        made.paste(band, (0, top // factor))
    assert made is not None
    return made


def spans(size: tuple[int, int], factor: int = 1) -> Iterator[tuple[int, int]]:
    """The first row of each band, a multiple of `factor`, and the row behind its last."""
    width, height = size
    step = max(1, BAND_PIXELS // (width * factor)) * factor
    for top in range(0, height, step):
        yield top, min(height, top + step)


@dataclass(frozen=True)
class Conversion:
    """How rows of a picture become RGB of 8 bits."""

    inverted: bool
    """Whether the samples are light where the picture is dark."""
    mask: tuple[int, int, bytes] | None = None
    """As `Essence.mask`, where it fits the picture."""
    inverted_inks: bool = False
    """Whether Pillow took inks for inverted ones."""
    opaque: bool = False
    """Whether an alpha channel means nothing."""
    lowest: float = 0.0
    """Of numbers of unknown range: what becomes black."""
    full: float = 255.0
    """What becomes white, above `lowest`."""

    @classmethod
    def of(cls, rows: Rows, form: str, data: bytes, essence: Essence) -> "Conversion":
        """For all rows of a picture, of the format and the file that it comes from."""
        low, full = _range(rows) if rows.mode in ("I", "F") else (0.0, 255.0)
        # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted.
        inks = rows.mode == "CMYK" and form == "JPEG" and "adobe" not in rows.band(0, 1).info
        mask = essence.mask if essence.mask is not None and _fits(essence.mask, rows.size) else None
        return cls(essence.inverted, mask, inks, _is_opaque(rows, form, data), low, full)

    def to_rgb(self, band: Image.Image, top: int) -> Image.Image:
        """RGB of some rows from row `top` on; transparent pixels become white, as on a page."""
        if band.mode in ("I", "F"):
            band = Image.fromarray(self._to_bytes(band))
        if band.has_transparency_data:
            band = band.convert("RGBA").convert("RGB") if self.opaque else _on_white(band)
        if self.inverted:
            band = ImageChops.invert(band.convert("L"))
        if self.mask is not None:
            band = _masked(band.convert("RGB"), self.mask, top)
        if self.inverted_inks:
            band = ImageChops.invert(band)
        return band if band.mode == "RGB" else band.convert("RGB")  # convert would copy

    def _to_bytes(self, band: Image.Image) -> np.ndarray:
        """(H, W) uint8 of numbers of any range; NaN becomes black."""
        return np.rint((_finite(band) - self.lowest) * (255.0 / self.full)).astype(np.uint8)


def must_convert(image: Image.Image, essence: Essence) -> bool:
    """Whether a picture is anything but RGB as it stands."""
    return image.mode != "RGB" or image.has_transparency_data or essence.inverted or essence.mask is not None


def _finite(band: Image.Image) -> np.ndarray:
    """(H, W) float64 without NaN and infinities."""
    return np.nan_to_num(np.asarray(band).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _range(rows: Rows) -> tuple[float, float]:
    """(lowest, full): the full scale is 1, 255 or 65535 where the numbers fit, else their own range."""
    found = [(values.min(), values.max()) for values in (_finite(rows.band(*span)) for span in spans(rows.size))]
    low, high = float(min(low for low, _ in found)), float(max(high for _, high in found))
    full = next((full for full in (1.0, 255.0, 65535.0) if low >= 0 and high <= full), None)
    return (0.0, full) if full is not None else (low, (high - low) or 1.0)


def _is_opaque(rows: Rows, form: str, data: bytes) -> bool:
    """Whether an alpha channel means nothing.

    Bitmaps, icons and TGA files of 32 bits a pixel mostly mean three colors and a byte that nobody set: where it is 0
    all over, every viewer shows the picture as opaque.
    """
    if form not in ("BMP", "ICO", "TGA") or not rows.band(0, 1).has_transparency_data:
        return False
    if form == "TGA" and not data[17] & 15:
        return True
    alphas = (rows.band(*span).convert("RGBA").getchannel("A").getextrema() for span in spans(rows.size))
    return all(extrema == (0, 0) for extrema in alphas)


def _on_white(band: Image.Image) -> Image.Image:
    white = Image.new("RGBA", band.size, "white")
    return Image.alpha_composite(white, band.convert("RGBA")).convert("RGB")


def _fits(mask: tuple[int, int, bytes], size: tuple[int, int]) -> bool:
    """Whether the mask of an icon is whole, and of its size; another one hides nothing."""
    width, height, bits = mask
    return size == (width, height) and len(bits) >= _stride(width) * height


def _stride(width: int) -> int:
    """Bytes of a row of a mask."""
    return (width + 31) // 32 * 4


def _masked(band: Image.Image, mask: tuple[int, int, bytes], top: int) -> Image.Image:
    """Rows of an icon, from row `top` on, on white where its mask shows nothing."""
    width, height, bits = mask
    stride, left = _stride(width), height - top  # rows from this one down; the mask begins at the bottom
    mine = bits[(left - band.height) * stride : left * stride]
    band.paste("white", mask=Image.frombytes("1", band.size, mine, "raw", "1", stride, -1))
    return band
