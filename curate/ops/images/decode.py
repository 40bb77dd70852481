"""From encoded bytes to an upright RGB picture, decoded once, at the size its consumers need; and what is wrong with
bytes that give none."""

import io
import struct

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from curate.errors import foreign_text

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The only decoders used. Formats that start programs (EPS), that crawls lack (FITS, PSD, ...) or that hold
icons stay closed: every further decoder is one more way in for a hostile file."""

PIL_PIXELS = 178_956_970
"""Most pixels that Pillow opens, twice its own MAX_IMAGE_PIXELS; a higher limit of ours would have no effect."""

_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
"""First bytes of the formats that are told by them alone; see `_sniff` for the others."""

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each EXIF orientation."""


class RejectedImage(ValueError):
    """The data are no picture, or one outside the limits; `reason` is one of `tables.REJECT_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def decode_rgb(data: bytes, *, min_side: int | None = None, max_pixels: int = PIL_PIXELS) -> Image.Image:
    """Decode the picture in encoded bytes of any origin, by `FORMATS` alone; safe in threads.

    Args:
        data: the encoded image; its content decides the format.
        min_side: pixels of the short side that are needed, see `decode_upright`.
        max_pixels: width x height in the header, checked before anything is decoded.

    Returns:
        The first frame: RGB, upright, on white where it is transparent.

    Raises:
        RejectedImage: the data are no picture, damaged, or too large to be honest.
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
    """
    opened = open_image(data)
    check_pixels(opened, max_pixels)
    return decode_upright(opened, data, min_side)[0]


def open_image(data: bytes) -> Image.Image:
    """Read the header of an image; its pixels are not decoded yet.

    Raises:
        RejectedImage: the data are empty, no picture, damaged, or of more pixels than Pillow opens.
    """
    if not data:
        raise RejectedImage("empty", "0 bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedImage("too_large", foreign_text(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # parsers of hostile headers raise nearly anything
        known = _sniff(data)
        if known is None:
            raise RejectedImage("not_an_image", f"starts with {data[:16]!r}, none of {', '.join(FORMATS)}") from error
        raise _reject_damaged(data, known, error) from error


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Refuse an image whose header claims more pixels than are allowed, before any is decoded.

    Raises:
        RejectedImage: it does.
    """
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height}"
        raise RejectedImage("too_large", f"{size} = {pixels} pixels, at most {max_pixels} are allowed")


def decode_upright(image: Image.Image, data: bytes, min_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode the first frame of an opened image.

    Args:
        image: as `open_image` gives it.
        data: the bytes that it was opened from, which tell what is wrong with them.
        min_side: pixels of the short side that the consumers of the picture need; larger images are reduced
            while they are decoded (JPEG) or right after, by a whole factor that leaves at least this many.
            None: full size.

    Returns:
        An RGB picture, upright, on white where it is transparent; and the upright (width, height) of the full image.

    Raises:
        RejectedImage: the data are damaged.
        MemoryError: the machine has no memory for the picture.
    """
    size = image.size
    try:
        if min_side is not None and image_format(image) == "JPEG":
            _draft(image, min_side)
        image.load()
        orientation = _orientation(image)
        if image.format == "TIFF":  # Pillow turns these itself, while it loads
            size = image.size
        picture = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject_damaged(data, image_format(image), error) from error
    factor = min(picture.size) // min_side if min_side else 1
    if factor > 1:
        picture = picture.reduce(factor)
    if orientation in TRANSPOSE:
        picture = picture.transpose(TRANSPOSE[orientation])
    return picture, (size[1], size[0]) if orientation >= 5 else size


def image_format(image: Image.Image) -> str:
    """The format, one of `FORMATS`; MPO, a JPEG that more JPEGs follow, counts as JPEG."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _draft(image: Image.Image, min_side: int) -> None:
    """Ask the JPEG decoder for 1/2, 1/4 or 1/8 of the size where the short side keeps `min_side` pixels."""
    short = min(image.size)
    if short >= 2 * min_side:
        image.draft(None, (image.width * min_side // short, image.height * min_side // short))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; a broken EXIF block leaves the picture as it lies."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a picture with a damaged side note is still a picture
        return 1
    return value if isinstance(value, int) and value in TRANSPOSE else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; transparent pixels become white, as on a page."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(np.asarray(image).astype(np.float64))).convert("RGB")
    if image.mode == "CMYK" and image_format(image) == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """(H, W) float64 of unknown range -> uint8: the full scale is 1, 255 or 65535 where the values fit, else
    their own range; NaN becomes black."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scale = next((full for full in (1.0, 255.0, 65535.0) if low >= 0 and high <= full), None)
    if scale is None:
        finite, scale = finite - low, high - low
    return np.rint(finite * (255.0 / scale)).astype(np.uint8)


def _reject_damaged(data: bytes, form: str, error: Exception) -> RejectedImage:
    """The reject for data that do not decode: truncated where the container says that its data go on, or where the
    decoder ran out of them; else corrupt."""
    text = str(error).lower()
    ran_out = "truncat" in text or isinstance(error, EOFError) or "requires a buffer" in text
    reason = "truncated" if ran_out or _ends_early(data, form) else "corrupt"
    return RejectedImage(reason, f"{form} of {len(data)} bytes: {_what_failed(error)}")


def _what_failed(error: Exception) -> str:
    """The decoder's complaint; Pillow's own word for data that no decoder opens names an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "its header is not understood"
    return foreign_text(error) or type(error).__name__


def _sniff(data: bytes) -> str | None:
    """The format that the first bytes claim, for data that do not open."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1"):
        return "AVIF"
    if data[:2] == b"BM":  # two letters also begin words: the header's own length tells
        return "BMP" if int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124) else None
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    return next((form for magic, form in _MAGIC if data.startswith(magic)), None)


def _ends_early(data: bytes, form: str) -> bool:
    """Whether the container's own lengths and end marks say that bytes are missing."""
    match form:
        case "JPEG":
            return _jpeg_ends_early(data)
        case "PNG":
            return _chunks_end_early(data, start=8, overhead=12, last=b"IEND")
        case "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "BMP":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "AVIF":
            return _chunks_end_early(data, start=0, overhead=0, last=None)
    return False


def _jpeg_ends_early(data: bytes) -> bool:
    """Walk the segments up to the first scan; after it an end-of-image mark must follow."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7:  # fill byte, or a mark without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            return data.find(b"\xff\xd9", at) < 0
        if marker == 0xD9:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def _chunks_end_early(data: bytes, *, start: int, overhead: int, last: bytes | None) -> bool:
    """Walk chunks of (length, type) until `last` or the end of the data; a chunk that leads past it tells."""
    at = start
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == last or length + overhead < 8:  # no chunk is that short: damaged, not cut
            return False
        at += length + overhead
    return last is not None or at != len(data)
