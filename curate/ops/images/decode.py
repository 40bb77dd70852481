"""From encoded bytes to an upright RGB picture, decoded once, at the size its consumers need; and what is wrong with
bytes that give none.

The content tells the format (`formats`), and the one decoder of that format gets the image without what does not decide
about its pixels (`containers`). Pillow reads 8 bits a sample, and 16 of gray alone. Of colors of 16 bits it keeps the
high bytes; where the low ones matter, the image is decoded a second time with the order of bytes turned round.

A decoder works in memory of its own choosing and as long as it likes. What is decoded here is therefore bounded from
outside, in a process of its own: see `decoding`, by which everything else decodes.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from curate.errors import foreign_text, pip_install
from curate.ops.images import bands, containers, formats
from curate.ops.images.bounds import Bounds
from curate.ops.images.containers import Essence
from curate.ops.images.decoders import has_decoder
from curate.ops.images.depth import SignificantBits

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

    @property
    def limit(self) -> str | None:
        """The setting that would let it be decoded; None: none of those of memory and time."""
        if self.reason == "too_slow":
            return "max_seconds"
        return "max_decode_bytes" if self.reason == "too_large" and "bytes of memory" in self.detail else None


@dataclass(frozen=True)
class Opened:
    """An image whose header is read; its pixels are not decoded yet."""

    data: bytes
    """The bytes of the file, which tell what is wrong with it."""
    format: str
    """A key of `formats.READ`."""
    width: int
    """Pixels, as the picture is stored."""
    height: int
    essence: Essence
    image: ImageFile.ImageFile | None
    """None: the decoder opens and decodes in one, once the size is known to be allowed."""


OnHeader = Callable[[Opened, int], None]
"""Called with an image whose header is read and allowed, and with the bytes that decoding it is about to take."""


def decode_rgb(
    data: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
    on_header: OnHeader | None = None,
) -> Image.Image:
    """Decode the picture in encoded bytes, by the decoders of `formats.READ` alone; safe in threads.

    Args:
        data: the encoded image; its content decides the format.
        min_side: pixels of the short side that are needed, see `decode_upright`.
        bounds: pixels and memory that the header may ask for, checked before anything is decoded; by default those of
            `Bounds`. Nothing here holds the decoder to them, or to a time.
        significant_bits: bits that the samples of 16-bit pictures use, see `decode_upright`.
        on_header: called before anything is decoded.

    Returns:
        The first frame: RGB, upright, on white where it is transparent.

    Raises:
        RejectedImage: the data are no picture, damaged, of a kind that is not read, or too large to be honest.
        MemoryError: there is no memory for the picture.
    """
    bounds = bounds or Bounds()
    opened = open_image(data)
    check_pixels(opened, bounds.max_pixels)
    needed = check_memory(opened, min_side, bounds.max_decode_bytes, significant_bits=significant_bits)
    if on_header is not None:
        on_header(opened, needed)
    return decode_upright(opened, min_side, significant_bits=significant_bits)[0]


def open_image(data: bytes) -> Opened:
    """Read the header of an image; its pixels are not decoded yet.

    Raises:
        RejectedImage: the data are empty, no picture, of a kind that is not read, damaged, or of more pixels than
            Pillow opens.
    """
    if not data:
        raise RejectedImage("empty", "0 bytes")
    known = formats.sniff(data)
    if known is None:
        raise RejectedImage("not_an_image", f"starts with {data[:16]!r}, as no known image format does")
    if known not in formats.READ:
        raise RejectedImage("unsupported", f"{known}: not read; convert it to JPEG or PNG")
    if not has_decoder(known):
        extra = formats.READ[known].extra
        how = f"bring its decoder with: {pip_install(extra)}" if extra else "this Pillow was built without its decoder"
        raise RejectedImage("unsupported", f"{known}: {how}")
    essence = containers.essence(known, data)
    if essence.refused is not None:
        raise RejectedImage("unsupported", f"{essence.refused}: not read; convert it to JPEG or PNG")
    try:
        if essence.size is not None:
            return Opened(data, known, *essence.size, essence, None)
        image = _open(essence)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedImage("too_large", foreign_text(error)) from error
    except Exception as error:  # parsers of hostile headers raise nearly anything
        raise _reject(data, known, error) from error
    return Opened(data, known, image.width, image.height, essence, image)


_OWN_ORDER = {"F;32BF": "F;32NF", "I;16BS": "I;16NS", "I;32BS": "I;32NS", "RGBX;16N": "RGBX;16L"}
"""What libtiff gives where Pillow says the file's order of bytes, or names one that its older versions do not know."""


def _open(essence: Essence) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(essence.data), formats=(essence.form,))
    assert isinstance(image, ImageFile.ImageFile)
    if essence.form == "TIFF":
        image.tile = [_with_rawmode(t, _OWN_ORDER.get(_args(t)[0], "")) if t[0] == "libtiff" else t for t in image.tile]
    return image


def _args(tile: Any) -> tuple[Any, ...]:
    """What the decoder of a tile is told; first, in most formats, how pixels are stored."""
    return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    """The tile with pixels stored in another way; as it is where `rawmode` is empty."""
    if not rawmode:
        return tile
    return tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)


def check_pixels(image: Opened, max_pixels: int) -> None:
    """Refuse an image whose header claims more pixels than are allowed, before any is decoded.

    Raises:
        RejectedImage: it does.
    """
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height}"
        raise RejectedImage("too_large", f"{size} = {pixels} pixels, at most {max_pixels} are allowed")


def check_memory(
    opened: Opened, min_side: int | None, max_decode_bytes: int, *, significant_bits: SignificantBits = "auto"
) -> int:
    """Refuse an image whose header asks for more memory than is allowed, before any of it is taken.

    Returns:
        Bytes that decoding it is about to take, see `bytes_to_decode`.

    Raises:
        RejectedImage: they are too many.
    """
    needed = bytes_to_decode(opened, min_side, significant_bits=significant_bits)
    if needed > max_decode_bytes:
        mode = "" if opened.image is None else f" of mode {opened.image.mode}"
        raise RejectedImage(
            "too_large",
            f"decoding {opened.width} x {opened.height} pixels{mode} takes {needed} bytes of memory, at most "
            f"{max_decode_bytes} are allowed",
        )
    return needed


CODEC_BYTES = {"WEBP": 13, "AVIF": 3, "HEIF": 2, "JXL": 6}
"""Bytes a pixel that the decoder of a format takes beside the picture, as measured; WebP holds the canvas of an
animation twice."""
JPEG2000_BYTES = 5.4
"""Bytes that JPEG 2000 takes for each sample of a tile, which has whole numbers of 32 bits."""
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes a pixel in Pillow's memory; 4 in every other mode, of fewer samples too."""


def bytes_to_decode(opened: Opened, min_side: int | None, *, significant_bits: SignificantBits = "auto") -> int:
    """Bytes that decoding an image takes, as far as its header tells: the pixels as they are decoded, what the decoder
    holds beside them, and the picture that is made of them. The bytes of the file are not counted."""
    image, pixels = opened.image, opened.width * opened.height
    if image is None:
        stored, decoded = 4, pixels
    else:
        scale = _draft_scale(opened, min_side)
        stored, decoded = _STORED_BYTES.get(image.mode, 4), pixels // scale**2
    beside = CODEC_BYTES.get(opened.format, 0) * pixels
    if image is not None and opened.format == "JPEG2000":
        tile = containers.jpeg2000_tile(opened.data) or (opened.width, opened.height)
        beside = int(JPEG2000_BYTES * len(image.getbands()) * min(pixels, tile[0] * tile[1]))
    if image is not None and opened.format == "JPEG" and "progressive" in image.info:
        beside += _coefficients(image, pixels)
    if opened.essence.planes:
        decoded, stored = pixels, 2 * len(opened.essence.planes)
    elif image is not None:
        wide = _SixteenBits(image, opened, _rawmode(image))
        stored *= 2 if wide.is_colored and wide.matter(significant_bits) else 1
    short = min(opened.width, opened.height)
    made = pixels // max(1, short // min_side) ** 2 if min_side else pixels
    converted = 4 * made if image is not None and (image.mode != "RGB" or opened.essence.planes) else 0
    return stored * decoded + beside + converted


def _coefficients(image: ImageFile.ImageFile, pixels: int) -> int:
    """Bytes of the coefficients of a progressive JPEG, all of which are held until the last scan."""
    sampling = [(h, v) for _, h, v, _ in getattr(image, "layer", ())]
    across, down = (max((pair[i] for pair in sampling), default=1) for i in (0, 1))
    return 2 * sum(pixels * h * v // (across * down) for h, v in sampling)


def decode_upright(
    opened: Opened, min_side: int | None, *, significant_bits: SignificantBits = "auto"
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode the first frame of an opened image.

    Args:
        opened: as `open_image` gives it; it can be decoded once.
        min_side: pixels of the short side that the consumers of the picture need; larger images are reduced
            while they are decoded (JPEG) or right after, by a whole factor that leaves at least this many.
            None: full size.
        significant_bits: bits that the 16-bit samples of PNG and TIFF files use: 12 scales 0..4095 to 0..255. A
            picture with a larger sample has 16 bits whatever is said here. `auto`: as the file declares.

    Returns:
        An RGB picture, upright, on white where it is transparent; and the upright (width, height) of the full image.

    Raises:
        RejectedImage: the data are damaged, or of a kind that is not read.
        MemoryError: there is no memory for the picture.
    """
    size = (opened.width, opened.height)
    try:
        image = _open(opened.essence) if opened.image is None else opened.image
        if opened.image is None and image.width * image.height > size[0] * size[1]:
            raise ValueError(f"{image.size} pixels where the header says {size}")
        if min_side is not None and opened.format == "JPEG":
            _draft(image, min_side)
        rawmode = _rawmode(image)
        wide = _SixteenBits(image, opened, rawmode)
        if opened.essence.planes:
            orientation = 1
            size = wide.size
        else:
            image.load()
            orientation = _orientation(image, opened.essence)
            if image.format in ("TIFF", "JXL"):  # the decoder turns these itself, while it loads
                size = image.size
        picture = _reduced_rgb(image, opened, wide, min_side, significant_bits)
    except RejectedImage:
        raise
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject(opened.data, opened.format, error) from error
    if orientation in TRANSPOSE:
        picture = picture.transpose(TRANSPOSE[orientation])
    return picture, (size[1], size[0]) if orientation >= 5 else size


def load_stored(opened: Opened) -> tuple[Image.Image, int]:
    """Decode the first frame of an opened image as it is stored, and the orientation that is still to be undone, 1..8.

    It may have any mode of Pillow's. The image can be decoded once.

    Raises:
        RejectedImage: the data are damaged, or of a kind that is not read.
        MemoryError: there is no memory for the picture.
    """
    try:
        image = _open(opened.essence) if opened.image is None else opened.image
        if image.width * image.height > opened.width * opened.height:
            raise ValueError(f"{image.size} pixels where the header says {(opened.width, opened.height)}")
        image.load()
        return image, _orientation(image, opened.essence)
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject(opened.data, opened.format, error) from error


def is_wide(opened: Opened) -> bool:
    """Whether its colors have 16 bits, of which Pillow decodes 8."""
    image = opened.image
    return image is not None and _SixteenBits(image, opened, _rawmode(image)).is_colored


def _reduced_rgb(
    image: ImageFile.ImageFile,
    opened: Opened,
    wide: "_SixteenBits",
    min_side: int | None,
    significant_bits: SignificantBits,
) -> Image.Image:
    """The decoded picture as RGB of 8 bits, reduced by the whole factor that leaves `min_side` pixels."""
    is_wide = bool(opened.essence.planes) or wide.matter(significant_bits)
    rows = wide.narrow(significant_bits) if is_wide else bands.rows_of(image)
    factor = max(1, min(rows.size) // min_side) if min_side else 1
    if not is_wide and not bands.must_convert(image, opened.essence):
        return image.reduce(factor) if factor > 1 else image
    how = bands.Conversion.of(rows, opened.format, opened.data, opened.essence)
    return bands.reduce_rows(rows, factor, how.to_rgb)


def _draft(image: Image.Image, min_side: int) -> None:
    """Ask the JPEG decoder for 1/2, 1/4 or 1/8 of the size where the short side keeps `min_side` pixels."""
    short = min(image.size)
    if short >= 2 * min_side:
        image.draft(None, (image.width * min_side // short, image.height * min_side // short))


def _draft_scale(opened: Opened, min_side: int | None) -> int:
    """1, 2, 4 or 8: by what `_draft` will divide the sides."""
    times = min(opened.width, opened.height) // min_side if min_side and opened.format == "JPEG" else 1
    return next(scale for scale in (8, 4, 2, 1) if times >= scale or scale == 1)


def _orientation(image: Image.Image, essence: Essence) -> int:
    """The orientation that is still to be undone, 1..8; a broken note leaves the picture as it lies."""
    if essence.notes is not None:
        return containers.orientation_in(essence.notes)
    if essence.form == "JXL" and not getattr(image, "jpeg", False):
        return 1  # its codestream tells, and is obeyed; a JPEG in its disguise comes as it was
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a picture with a damaged side note is still a picture
        return 1
    return value if isinstance(value, int) and value in TRANSPOSE else 1


# -- samples of more than 8 bits ----------------------------------------------------------------------------------

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}
"""The order of bytes that gives the low byte of each sample where this one gives the high byte.

Machines that this runs on have their own order N as L: little-endian.
"""


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the pixels are stored, by Pillow's name, such as `RGB;16B`; empty: unknown."""
    found = {next(iter(_args(tile))) for tile in image.tile if tile.args}
    return str(found.pop()) if len(found) == 1 else ""


@dataclass(frozen=True)
class _SixteenBits:
    """The 16-bit samples of a picture, if it has such."""

    image: ImageFile.ImageFile
    """Opened, and loaded before `samples` are asked for unless its planes lie apart."""
    opened: Opened
    rawmode: str

    @property
    def _kind(self) -> str:
        """What Pillow decodes to 8 bits a sample, of which `samples` has all 16: RGB, RGBX, RGBA, CMYK, LA; else ""."""
        kind, _, order = self.rawmode.partition(";16")
        return kind if order in _OTHER_ORDER and kind in ("RGB", "RGBX", "RGBA", "CMYK", "LA") else ""

    @property
    def is_colored(self) -> bool:
        """Whether the picture is decoded a second time for its low bytes."""
        return bool(self._kind)

    def exist(self) -> bool:
        """Whether there are any."""
        return bool(self.opened.essence.planes or self.image.mode.startswith("I;16") or self._kind)

    def matter(self, significant_bits: SignificantBits) -> bool:
        """Whether the picture that Pillow has of them is not right to 1 of 255."""
        if not self._kind:
            return self.exist()
        fewer = (self._declared(significant_bits) or 16) < 16
        return fewer or "transparency" in self.image.info or self._kind in ("RGBA", "LA")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._planes[0].size if self.opened.essence.planes else self.image.size

    @cached_property
    def _planes(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(plane), formats=("TIFF",)) for plane in self.opened.essence.planes]

    @cached_property
    def _low_bytes(self) -> Image.Image:
        """The picture with the other byte of each sample."""
        again = _open(self.opened.essence)
        order = self.rawmode.partition(";16")[2]
        other = "RGBA" if self._kind == "LA" else f"{self._kind};16{_OTHER_ORDER[order]}"
        again.tile = [_with_rawmode(tile, other) for tile in again.tile]
        again.load()
        return again

    def samples(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W, C) uint16, the samples of some rows."""

        def of(image: Image.Image) -> np.ndarray:
            return np.asarray(bands.rows_of(image).band(top, bottom)).astype(np.uint16)

        if self._planes:
            return np.stack([of(plane) for plane in self._planes], axis=2)
        if not self._kind:
            return of(self.image)[:, :, None]
        low = of(self._low_bytes)
        if self._kind == "LA":  # as RGBA: the four bytes of gray and alpha as they stand
            return low[:, :, 0::2] << 8 | low[:, :, 1::2]
        return of(self.image) << 8 | low

    def highest(self) -> int:
        """The largest sample."""
        return max(int(self.samples(*span).max(initial=0)) for span in bands.spans(self.size))

    def narrow(self, significant_bits: SignificantBits) -> bands.Rows:
        """The picture of 8 bits a sample; a color that is declared transparent is white."""
        full = (1 << self._used_bits(self._declared(significant_bits))) - 1
        channels = self.samples(0, 1).shape[2]
        mode = {1: "L", 2: "LA"}.get(channels, self.image.mode)
        return bands.Rows(self.size, mode, lambda top, bottom: self._narrow(top, bottom, full, mode))

    def _narrow(self, top: int, bottom: int, full: int, mode: str) -> Image.Image:
        samples = self.samples(top, bottom)
        channels = samples.shape[2]
        narrow = ((samples.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
        transparent = self.image.info.get("transparency")
        if transparent is not None and channels in (1, 3):
            hidden = (samples == np.asarray(transparent)).all(axis=2, keepdims=True)
            narrow = np.where(hidden, 255, narrow).astype(np.uint8)
        return Image.fromarray(narrow[:, :, 0] if channels == 1 else narrow, mode)

    def _declared(self, significant_bits: SignificantBits) -> int | None:
        return self.opened.essence.bits if significant_bits == "auto" else significant_bits

    def _used_bits(self, declared: int | None) -> int:
        """Bits to scale by: those declared or set, unless a sample needs more.

        A PNG that declares 12 bits (sBIT) should have scaled them to 16 already, by shifting: its dark pictures then
        hold multiples of 16, or 1 above, and stay as they are.
        """
        if declared is None or self.highest() >= 1 << declared:
            return 16
        scaled = self.opened.format == "PNG" and declared == self.opened.essence.bits
        every = (self.samples(*span) % (1 << 16 - declared) > 1 for span in bands.spans(self.size))
        return 16 if scaled and not any(odd.any() for odd in every) else declared


def sixteen_bits_used(data: bytes) -> int | None:
    """Bits that the largest 16-bit sample of a PNG or TIFF needs; None: its samples are others.

    Raises:
        RejectedImage: the image does not decode.
    """
    opened = open_image(data)
    if opened.format not in ("PNG", "TIFF") or opened.image is None:
        return None
    wide = _SixteenBits(opened.image, opened, _rawmode(opened.image))
    if not wide.exist():
        return None
    try:
        if not opened.essence.planes:
            opened.image.load()
        return wide.highest().bit_length()
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject(data, opened.format, error) from error


_OF_MEMORY = re.compile(
    r"out.?of.?memory|insufficient memory|memory allocation|cannot allocate|MemoryError", re.IGNORECASE
)
"""What decoders say that got no memory; few raise the error that Python has for it."""


def _reject(data: bytes, form: str, error: Exception) -> RejectedImage:
    """The reject for data that do not decode: unsupported where they are whole, of a kind that Pillow does not read;
    truncated where the container says that its data go on, or where the decoder ran out of them; else corrupt.

    Raises:
        MemoryError: there was no memory for them.
    """
    if isinstance(error, MemoryError) or _OF_MEMORY.search(str(error)):
        raise MemoryError(foreign_text(error)) from error
    kind = _kind_not_read(data, form, error)
    if kind is not None:
        return RejectedImage("unsupported", f"{kind}: not read; convert it to JPEG or PNG")
    text = str(error).lower()
    ran_out = "truncat" in text or isinstance(error, EOFError) or "requires a buffer" in text
    reason = "truncated" if ran_out or _ends_early(data, form) else "corrupt"
    return RejectedImage(reason, f"{form} of {len(data)} bytes: {_what_failed(error)}")


def _kind_not_read(data: bytes, form: str, error: Exception) -> str | None:
    """What kind of TIFF or BMP the data are, where Pillow knows no such kind; None: something is wrong with them."""
    if form == "TIFF":
        unopened = isinstance(error, UnidentifiedImageError | KeyError)
        kind = containers.describe_tiff(data)
        return kind if kind and (unopened or containers.is_unknown_compression(data)) else None
    if form == "BMP" and str(error).startswith("Unsupported BMP") and not _ends_early(data, form):
        return str(error).removeprefix("Unsupported ")
    return None


def _what_failed(error: Exception) -> str:
    """The decoder's complaint; Pillow's own word for data that no decoder opens names an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "its header is not understood"
    return foreign_text(error) or type(error).__name__


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
        case "AVIF" | "HEIF":
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
