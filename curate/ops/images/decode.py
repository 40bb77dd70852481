"""From encoded bytes to facts, a verdict and a picture: decoded once, at the size its consumers need."""

import hashlib
import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageChops
from pydantic import Field

from curate.config import Settings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The only decoders used. Formats that start programs (EPS), that crawls lack (FITS, PSD, ...) or that hold
only icons stay closed: every further decoder is one more way in for a hostile file."""

PIL_PIXELS = 178_956_970
"""Above twice Pillow's own MAX_IMAGE_PIXELS it refuses to open, so a higher limit of ours would be idle."""

SAMPLED_LINES = 64
"""Rows and columns, evenly spread, that the correlation of neighbours is measured on."""

COARSE = 4
"""Pixels averaged in each direction before noise is told from dither."""

_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


class ImageLimits(Settings):
    """What an image must be to enter the pool."""

    min_side: Annotated[int, Field(ge=1)] = 32
    """Pixels of the short side."""
    max_aspect: Annotated[float, Field(ge=1)] = 8.0
    """Long side / short side."""
    max_pixels: Annotated[int, Field(ge=1, le=PIL_PIXELS)] = 89_478_485
    """Width x height in the header, checked before anything is decoded; a guard against decompression bombs."""
    max_bytes: Annotated[int, Field(ge=1)] = 256 * 2**20
    """Bytes of the encoded image."""
    min_luma_std: Annotated[float, Field(ge=0)] = 2.0
    """Standard deviation, 0..128; uniform when luma and every colour channel stay below it."""
    min_smoothness: Annotated[float, Field(ge=-1, le=1)] = 0.3
    """Correlation of neighbouring luma pixels; photographs have 0.7 and more, noise about 0."""


@dataclass(frozen=True)
class Inspected:
    """Facts of one image, its verdict and, when accepted, its picture. The fields are those of `tables.IMAGES`."""

    num_bytes: int
    sha256: bytes
    width: int | None = None
    height: int | None = None
    format: str | None = None
    luma_std: float | None = None
    smoothness: float | None = None
    reject: str | None = None
    """One of `tables.REJECT_REASONS`, the first that holds; None: accepted."""
    detail: str | None = None
    picture: Image.Image | None = None
    """RGB, upright, on white where the original is transparent; None when rejected."""


class RejectedImage(ValueError):
    """The data are no picture, or one outside the limits; `reason` is one of `tables.REJECT_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def decode_rgb(data: bytes, *, min_side: int | None = None, max_pixels: int = PIL_PIXELS) -> Image.Image:
    """The picture in encoded bytes of any origin, decoded by `FORMATS` alone; safe in threads.

    Args:
        min_side: as in `inspect_image`.
        max_pixels: width x height in the header, checked before anything is decoded.

    Returns:
        The first frame: RGB, upright, on white where it is transparent.

    Raises:
        RejectedImage: the data are no picture, damaged, or too large to be honest.
        MemoryError: as in `inspect_image`.
    """
    opened = _open(data)
    _check_pixels(opened, max_pixels)
    return _decode(opened, data, min_side)[0]


def inspect_image(data: bytes, limits: ImageLimits, *, min_side: int | None = None) -> Inspected:
    """Decode once, measure, and judge. Bad data give a reject, never an exception; safe in threads.

    Args:
        data: the encoded image; its content decides the format, whatever its name says.
        limits: what an image must be.
        min_side: pixels of the short side that the consumers of the picture need; larger images are reduced
            while they are decoded (JPEG) or right after, by a whole factor that leaves at least this many.
            None: full size. Facts of the header are those of the full size; `luma_std` and `smoothness` are
            measured on the picture, so they shift a little with this argument.

    Raises:
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
    """
    facts: dict[str, object] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).digest()}
    try:
        _check_bytes(data, limits)
        opened = _open(data)
        facts.update(format=_format(opened), width=opened.width, height=opened.height)
        _check_pixels(opened, limits.max_pixels)
        picture, upright = _decode(opened, data, min_side)
        facts.update(width=upright[0], height=upright[1])
        _check_shape(upright, limits)
        luma = picture.convert("L")
        luma_std, smoothness = _deviation(luma.histogram()), _smoothness(np.asarray(luma))
        facts.update(luma_std=luma_std, smoothness=smoothness)
        _check_content(picture, luma_std, smoothness, limits)
    except RejectedImage as rejected:
        return Inspected(**facts, reject=rejected.reason, detail=rejected.detail)  # type: ignore[arg-type]
    return Inspected(**facts, picture=picture)  # type: ignore[arg-type]


def _check_bytes(data: bytes, limits: ImageLimits) -> None:
    if len(data) > limits.max_bytes:
        raise RejectedImage("too_large", f"{len(data)} bytes, at most {limits.max_bytes} are allowed")


def _open(data: bytes) -> Image.Image:
    if not data:
        raise RejectedImage("empty", "0 bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedImage("too_large", str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # parsers of hostile headers raise nearly anything
        known = _sniff(data)
        if known is None:
            raise RejectedImage("not_an_image", f"starts with {data[:16]!r}, none of {', '.join(FORMATS)}") from error
        raise _damaged(data, known, error) from error


def _format(image: Image.Image) -> str:
    """MPO is a JPEG that more JPEGs follow."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height}"
        raise RejectedImage("too_large", f"{size} = {pixels} pixels, at most {max_pixels} are allowed")


def _decode(image: Image.Image, data: bytes, min_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """The first frame as an upright RGB picture, and the upright size of the full image."""
    size = image.size
    try:
        if min_side is not None and _format(image) == "JPEG":
            _draft(image, min_side)
        image.load()
        orientation = _orientation(image)
        if image.format == "TIFF":  # Pillow turns these itself, while it loads
            size = image.size
        picture = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _damaged(data, _format(image), error) from error
    factor = min(picture.size) // min_side if min_side else 1
    if factor > 1:
        picture = picture.reduce(factor)
    if orientation in TRANSPOSE:
        picture = picture.transpose(TRANSPOSE[orientation])
    return picture, (size[1], size[0]) if orientation >= 5 else size


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
    """8-bit RGB of any mode; transparent pixels lie on white, as a page shows them."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(np.asarray(image).astype(np.float64))).convert("RGB")
    if image.mode == "CMYK" and _format(image) == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for Adobe's, which are inverted
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


def _check_shape(size: tuple[int, int], limits: ImageLimits) -> None:
    short, long = min(size), max(size)
    if long > limits.max_aspect * short:
        raise RejectedImage(
            "extreme_aspect",
            f"{size[0]} x {size[1]} pixels: aspect {long / short:.1f}, at most {limits.max_aspect:g} is allowed",
        )
    if short < limits.min_side:
        raise RejectedImage(
            "too_small", f"{size[0]} x {size[1]} pixels: at least {limits.min_side} on the short side are needed"
        )


def _check_content(picture: Image.Image, luma_std: float, smoothness: float, limits: ImageLimits) -> None:
    if luma_std < limits.min_luma_std:  # two colours may share one luma, so the channels have a say
        bins = picture.histogram()
        widest = max(luma_std, *(_deviation(bins[i : i + 256]) for i in (0, 256, 512)))
        if widest < limits.min_luma_std:
            raise RejectedImage(
                "uniform", f"pixels deviate by {widest:.2f}, at least {limits.min_luma_std:g} is needed"
            )
    if smoothness < limits.min_smoothness:  # a dithered picture is rough too, but only close up
        coarse = _smoothness(np.asarray(picture.convert("L").reduce(COARSE)))
        if coarse < limits.min_smoothness:
            raise RejectedImage(
                "noise",
                f"neighbouring pixels correlate by {smoothness:.2f}, at least {limits.min_smoothness:g} is needed",
            )


def _deviation(bins: list[int]) -> float:
    """Standard deviation of 8-bit values from their 256-bin histogram."""
    counts = np.asarray(bins, dtype=np.float64)
    values = np.arange(256.0)
    mean = counts @ values / counts.sum()
    return float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))


def _smoothness(luma: np.ndarray) -> float:
    """Mean correlation of neighbours along sampled rows and along sampled columns of (H, W) uint8.

    Lines without contrast are left out; a picture that has no others is perfectly smooth, 1.0.
    """
    height, width = luma.shape
    rows = luma[_spread(height)]
    columns = luma[:, _spread(width)].T
    found = [c for lines in (rows, columns) if (c := _neighbor_correlation(lines)) is not None]
    return float(np.mean(found)) if found else 1.0


def _spread(length: int) -> np.ndarray:
    """At most SAMPLED_LINES evenly spread indices of 0..length-1."""
    return np.unique(np.linspace(0, length - 1, min(length, SAMPLED_LINES)).astype(np.int64))


def _neighbor_correlation(lines: np.ndarray) -> float | None:
    if lines.shape[1] < 2:
        return None
    values = lines.astype(np.float32)
    left, right = values[:, :-1], values[:, 1:]
    left, right = left - left.mean(), right - right.mean()
    power = float(np.sqrt((left * left).sum(dtype=np.float64) * (right * right).sum(dtype=np.float64)))
    return float((left * right).sum(dtype=np.float64)) / power if power > 0 else None


def _damaged(data: bytes, form: str, error: Exception) -> RejectedImage:
    """Truncated when the container says that its data go on, or the decoder ran out of them; else corrupt."""
    text = str(error).lower()
    starved = "truncat" in text or isinstance(error, EOFError) or "requires a buffer" in text
    reason = "truncated" if starved or _ends_early(data, form) else "corrupt"
    return RejectedImage(reason, f"{form} of {len(data)} bytes: {error or type(error).__name__}")


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


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its pictures: resizing here, on the CPU; normalisation on the device, by the model."""

    size: int
    """Pixels of the square input."""
    resize: Literal["short_edge_crop", "square"]
    """Short edge to `short_edge` and the centre cropped, or the whole picture squeezed into the square."""
    short_edge: int
    """Pixels before the crop; equals `size` for square."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    """Of RGB in 0..1."""
    std: tuple[float, float, float]


INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode_side(consumers: Iterable[Preprocess], *, at_least: int = 0) -> int:
    """The `min_side` of `inspect_image` that leaves every consumer enough pixels."""
    return max([at_least, *(how.short_edge for how in consumers)])


def preprocess(picture: Image.Image, how: Preprocess) -> np.ndarray:
    """Resize and crop as torchvision does on PIL images.

    Args:
        picture: RGB.

    Returns:
        (3, size, size) uint8, contiguous; the model normalises it by `mean` and `std`.
    """
    filter_ = INTERPOLATION[how.interpolation]
    if how.resize == "square":
        resized = picture.resize((how.size, how.size), filter_)
    else:
        short = min(picture.size)
        width, height = (max(how.size, int(how.short_edge * side / short)) for side in picture.size)
        resized = picture.resize((width, height), filter_)
        left, top = round((width - how.size) / 2), round((height - how.size) / 2)
        resized = resized.crop((left, top, left + how.size, top + how.size))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
