"""Blurring parts of an encoded picture, and writing it again in its own format with all else as it was.

The pixels change within the boxes alone; what a lossy format loses when it is written again comes on top, and is least
for a JPEG with the tables of the file itself. More than pixels shows a face: the thumbnail in an EXIF block, previews
in the notes of a camera's maker, thumbnails in XMP, further frames of an animation, further pictures of an MPO. None of
these is written.

Source: Yang et al. 2022, A Study of Face Obfuscation in ImageNet, arXiv:2103.06191: a Gaussian that grows with the box;
Oquab et al. 2023, DINOv2, arXiv:2304.07193, blurs the faces of its data.
"""

import io
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin
from pydantic import Field

from curate.config import Settings
from curate.errors import foreign_text
from curate.ops.images.bounds import ACCEPTED
from curate.ops.images.decode import (
    OnHeader,
    Opened,
    RejectedImage,
    check_memory,
    decode_rgb,
    is_wide,
    load_stored,
    open_image,
)
from curate.ops.images.formats import sniff
from curate.ops.images.repair import EXIF_MARK, png_chunk, png_chunks

KEPT_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")
"""Formats that a picture is written in again; of all others PNG."""
LOSSY_QUALITY = 95
"""Of WebP and AVIF, where the setting says `same`: their files do not tell with which quality they were made."""
MAX_SIGMA = 16.0
"""Pixels of the Gaussian; for a larger one the part is reduced first, so that a large face takes no longer."""
COLOR_NOTES = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP")
"""Chunks of a PNG that tell what its colors mean."""
MAKER_NOTE = 0x927C
"""EXIF tag of what a camera's maker alone understands; often it holds previews."""


class Blur(Settings):
    """How faces are blurred in the pictures that are written."""

    least: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Confidence of the detector from which on a box is blurred, 0..1."""
    enlarged: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Share of its width and height by which a box is enlarged."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Standard deviation of the Gaussian, as a share of the box's diagonal."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | Literal["same"] = "same"
    """Quality of JPEG, WebP and AVIF files that are written again, 1..100. same: of JPEG the tables of the file itself,
    so that blocks without a face change by rounding alone; of the others 95."""
    exif: Literal["keep", "drop"] = "keep"
    """What becomes of the EXIF block of such a picture. keep: it stays without thumbnail and maker's notes; drop: its
    orientation alone stays."""


Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of width and height of the upright picture, 0..1."""


class Blurred(NamedTuple):
    """A picture that was written again."""

    data: bytes
    note: str
    """Its format, and what could not be kept."""


def blur_boxes(data: bytes, boxes: Sequence[Box], how: Blur, *, on_header: OnHeader | None = None) -> Blurred:
    """The picture with parts of it blurred; an animation becomes its first frame.

    Nothing here holds decoders to memory and time: `decoding.blur_picture` does.

    Args:
        data: the encoded image.
        boxes: the parts, before they are enlarged.
        how: how they are blurred, and the picture written.
        on_header: called before anything is decoded.

    Raises:
        RejectedImage: the picture does not decode.
        MemoryError: there is no memory for it.
    """
    opened = open_image(data)
    needed = 3 * check_memory(opened, None, ACCEPTED.max_decode_bytes)  # the picture, its copy, and what is written
    if on_header is not None:
        on_header(opened, needed)
    if opened.format not in KEPT_FORMATS or opened.essence.planes:
        pixels = np.array(decode_rgb(data, bounds=ACCEPTED))
        _blur_all(pixels, boxes, how)
        return Blurred(_saved(Image.fromarray(pixels), "PNG"), f"PNG, was {opened.format}")
    if is_wide(opened):
        return _blur_wide(opened, boxes, how)
    stored, orientation = load_stored(opened)
    options, note = _metadata(data, orientation, how)
    image = _without_palette(stored)
    pixels = np.array(image)
    _blur_all(_upright(pixels, orientation), boxes, how, alpha=image.mode in ("LA", "RGBA"))
    written = Image.fromarray(pixels, None if image.mode.startswith("I;16") else image.mode)
    options |= _encoding(stored, opened, how)
    return Blurred(_saved(written, opened.format, **options), f"{opened.format}{note}")


def enlarge(box: Box, by: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels of a picture of that width and height, which they do not leave.

    Args:
        by: share of width and height that is added, half of it on each side.
    """
    found = []
    for low, high, length in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        more = (high - low) * by / 2
        found.append((max(0, int(np.floor((low - more) * length))), min(length, int(np.ceil((high + more) * length)))))
    (left, right), (top, bottom) = found
    return left, top, right, bottom


def _blur_all(pixels: np.ndarray, boxes: Sequence[Box], how: Blur, *, alpha: bool = False) -> None:
    """Blur parts of (H, W) or (H, W, C) pixels of 8 or 16 bits in place; what is transparent stays so."""
    colors = pixels[..., :-1] if alpha else pixels
    for box in boxes:
        left, top, right, bottom = enlarge(box, how.enlarged, (pixels.shape[1], pixels.shape[0]))
        if left < right and top < bottom:
            sigma = max(1.0, how.strength * float(np.hypot(right - left, bottom - top)))
            part = np.ascontiguousarray(colors[top:bottom, left:right])
            colors[top:bottom, left:right] = _gaussian(part, sigma).reshape(part.shape)


def _gaussian(part: np.ndarray, sigma: float) -> np.ndarray:
    """Only what lies within the part mixes, so that nothing of it is left at its edge."""
    height, width = part.shape[:2]
    factor = max(1.0, sigma / MAX_SIGMA)
    if factor > 1:
        small = (max(1, round(width / factor)), max(1, round(height / factor)))
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(part, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR_EXACT) if factor > 1 else blurred


_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
"""By EXIF orientation, the upright picture as a view of the stored one."""


def _upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    return _UPRIGHT[orientation](stored) if orientation in _UPRIGHT else stored


def _without_palette(image: Image.Image) -> Image.Image:
    """Colors in place of numbers of colors, since blurring needs colors between them; transparency in a channel."""
    clear = "transparency" in image.info
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P" or (clear and image.mode in ("L", "RGB")):
        return image.convert("RGBA" if clear else "RGB")
    return image


def _blur_wide(opened: Opened, boxes: Sequence[Box], how: Blur) -> Blurred:
    """A PNG of colors of 16 bits, of which Pillow reads 8."""
    orientation = load_stored(opened)[1]
    options, note = _metadata(opened.data, orientation, how)
    pixels = cv2.imdecode(np.frombuffer(opened.essence.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise RejectedImage("unsupported", f"{opened.format} of 16 bits that OpenCV does not read")
    _blur_all(_upright(pixels, orientation), boxes, how, alpha=pixels.shape[-1] == 4)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    block = options.get("exif", b"").removeprefix(EXIF_MARK)
    return Blurred(_with_notes(data, opened.data, block), f"{opened.format}{note}")


def _with_notes(png: bytes, original: bytes, block: bytes) -> bytes:
    """A PNG with the notes on color of another one, and a block of EXIF, behind its header."""
    notes = [original[at:after] for kind, at, after in png_chunks(original) if kind in COLOR_NOTES]
    if block:
        notes.append(png_chunk(b"eXIf", block))
    head = next(after for _, _, after in png_chunks(png))
    return b"".join([png[:head], *notes, png[head:]])


def _metadata(data: bytes, orientation: int, how: Blur) -> tuple[dict[str, Any], str]:
    """EXIF and color profile as Pillow saves them, and what to note where they cannot be kept."""
    options: dict[str, Any] = {}
    exif, note = Image.Exif(), ""
    try:
        image = Image.open(io.BytesIO(data), formats=(str(sniff(data)),))
        if image.info.get("icc_profile"):
            options["icc_profile"] = image.info["icc_profile"]
        if how.exif == "keep":
            exif = _without_pictures(image.getexif())
    except Exception as error:  # parsers of hostile metadata raise nearly anything
        note = f", without its EXIF block, which is damaged: {foreign_text(error)}"
    exif.pop(ExifTags.Base.Orientation, None)
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    if len(exif) or exif.get_ifd(ExifTags.IFD.Exif) or exif.get_ifd(ExifTags.IFD.GPSInfo):
        options["exif"] = exif.tobytes()
    return options, note


def _without_pictures(found: Image.Exif) -> Image.Exif:
    """The same without thumbnail and maker's notes, which may show what is blurred."""
    kept = Image.Exif()
    for tag, value in found.items():
        if tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            kept[tag] = value
    for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        inner = {tag: value for tag, value in found.get_ifd(ifd).items() if tag != MAKER_NOTE}
        if inner:
            kept[ifd] = inner
    kept.tobytes()  # raises where a value cannot be written
    return kept


def _encoding(stored: Image.Image, opened: Opened, how: Blur) -> dict[str, Any]:
    """Options of the encoder, as the file was made where it tells."""
    same = how.jpeg_quality == "same"
    quality = LOSSY_QUALITY if same else how.jpeg_quality
    if opened.format == "JPEG":
        sampling = JpegImagePlugin.get_sampling(stored)
        kept: dict[str, Any] = {} if sampling < 0 else {"subsampling": sampling}
        kept["progressive"] = "progressive" in stored.info
        tables = getattr(stored, "quantization", None)
        return kept | ({"qtables": tables} if same and tables else {"quality": quality})
    if opened.format == "WEBP":
        return {"lossless": True, "exact": True} if b"VP8L" in opened.data[:64] else {"quality": quality}
    return {"quality": quality} if opened.format == "AVIF" else {}


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
