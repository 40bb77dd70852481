"""From encoded bytes to an upright RGB picture, decoded once, at the size its consumers need; and what is wrong with
bytes that give none.

The content tells the format (`formats`), and the one decoder of that format gets the image without what does not decide
about its pixels (`containers`). Pillow reads 8 bits a sample, and 16 of gray alone. Of colors of 16 bits it keeps the
high bytes; where the low ones matter, the image is decoded a second time with the order of bytes turned round.
"""

import io
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from curate.errors import foreign_text, pip_install
from curate.ops.images import containers, formats
from curate.ops.images.containers import Essence
from curate.ops.images.decoders import has_decoder
from curate.ops.images.depth import SignificantBits

PIL_PIXELS = 178_956_970
"""Most pixels that Pillow opens, twice its own MAX_IMAGE_PIXELS; a higher limit of ours would have no effect."""

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


def decode_rgb(
    data: bytes,
    *,
    min_side: int | None = None,
    max_pixels: int = PIL_PIXELS,
    significant_bits: SignificantBits = "auto",
) -> Image.Image:
    """Decode the picture in encoded bytes of any origin, by the decoders of `formats.READ` alone; safe in threads.

    Args:
        data: the encoded image; its content decides the format.
        min_side: pixels of the short side that are needed, see `decode_upright`.
        max_pixels: width x height in the header, checked before anything is decoded.
        significant_bits: bits that the samples of 16-bit pictures use, see `decode_upright`.

    Returns:
        The first frame: RGB, upright, on white where it is transparent.

    Raises:
        RejectedImage: the data are no picture, damaged, of a kind that is not read, or too large to be honest.
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
    """
    opened = open_image(data)
    check_pixels(opened, max_pixels)
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
    except MemoryError:
        raise
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
        MemoryError: the machine has no memory for the picture.
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
            shown, orientation, size = wide.narrow(significant_bits), 1, wide.samples.shape[1::-1]
        else:
            image.load()
            orientation = _orientation(image, opened.essence)
            if image.format in ("TIFF", "JXL"):  # the decoder turns these itself, while it loads
                size = image.size
            shown = wide.narrow(significant_bits) if wide.matter(significant_bits) else image
        picture = _to_rgb(shown, opened)
    except RejectedImage:
        raise
    except MemoryError:
        raise
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject(opened.data, opened.format, error) from error
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


def _to_rgb(image: Image.Image, opened: Opened) -> Image.Image:
    """8-bit RGB of any mode but those of 16 bits; transparent pixels become white, as on a page."""
    if image.mode in ("I", "F"):
        image = Image.fromarray(_to_bytes(np.asarray(image).astype(np.float64)))
    if image.has_transparency_data:
        image = _on_white(image, opened)
    if opened.essence.inverted:
        image = ImageChops.invert(image.convert("L"))
    mask = opened.essence.mask
    if mask is not None:
        image = _masked(image.convert("RGB"), mask)
    if image.mode == "CMYK" and opened.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy


def _on_white(image: Image.Image, opened: Opened) -> Image.Image:
    """A picture with transparency, laid on white.

    Bitmaps, icons and TGA files of 32 bits a pixel mostly mean three colors and a byte that nobody set: where it is 0
    all over, every viewer shows the picture as opaque.
    """
    layered = image.convert("RGBA")
    padded = opened.format in ("BMP", "ICO", "TGA")
    if padded and (
        layered.getchannel("A").getextrema() == (0, 0) or (opened.format == "TGA" and not opened.data[17] & 15)
    ):
        return layered.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _masked(picture: Image.Image, mask: tuple[int, int, bytes]) -> Image.Image:
    """An icon on white where its mask shows nothing; a mask that is cut or of another size hides nothing."""
    width, height, bits = mask
    stride = (width + 31) // 32 * 4
    if picture.size != (width, height) or len(bits) < stride * height:
        return picture
    hidden = Image.frombytes("1", (width, height), bits, "raw", "1", stride, -1)
    picture.paste("white", mask=hidden)
    return picture


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

    def exist(self) -> bool:
        """Whether there are any."""
        return bool(self.opened.essence.planes or self.image.mode.startswith("I;16") or self._kind)

    def matter(self, significant_bits: SignificantBits) -> bool:
        """Whether the picture that Pillow has of them is not right to 1 of 255."""
        if not self._kind:
            return self.exist()
        fewer = (self._declared(significant_bits) or 16) < 16
        return fewer or "transparency" in self.image.info or self._kind in ("RGBA", "LA")

    @cached_property
    def samples(self) -> np.ndarray:
        """(H, W, C) uint16."""
        if self.opened.essence.planes:
            planes = [Image.open(io.BytesIO(plane), formats=("TIFF",)) for plane in self.opened.essence.planes]
            return np.stack([np.asarray(plane).astype(np.uint16) for plane in planes], axis=2)
        if not self._kind:
            return np.asarray(self.image).astype(np.uint16)[:, :, None]
        again = _open(self.opened.essence)
        order = self.rawmode.partition(";16")[2]
        other = "RGBA" if self._kind == "LA" else f"{self._kind};16{_OTHER_ORDER[order]}"
        again.tile = [_with_rawmode(tile, other) for tile in again.tile]
        again.load()
        if self._kind == "LA":  # as RGBA: the four bytes of gray and alpha as they stand
            pairs = np.asarray(again).astype(np.uint16)
            return pairs[:, :, 0::2] << 8 | pairs[:, :, 1::2]
        return np.asarray(self.image).astype(np.uint16) << 8 | np.asarray(again)

    def narrow(self, significant_bits: SignificantBits) -> Image.Image:
        """The picture of 8 bits a sample; a color that is declared transparent is white."""
        samples = self.samples
        channels = samples.shape[2]
        full = (1 << self._used_bits(self._declared(significant_bits))) - 1
        narrow = ((samples.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
        transparent = self.image.info.get("transparency")
        if transparent is not None and channels in (1, 3):
            hidden = (samples == np.asarray(transparent)).all(axis=2, keepdims=True)
            narrow = np.where(hidden, 255, narrow).astype(np.uint8)
        if channels == 1:
            return Image.fromarray(narrow[:, :, 0])
        return Image.fromarray(narrow, "LA" if channels == 2 else self.image.mode)

    def _declared(self, significant_bits: SignificantBits) -> int | None:
        return self.opened.essence.bits if significant_bits == "auto" else significant_bits

    def _used_bits(self, declared: int | None) -> int:
        """Bits to scale by: those declared or set, unless a sample needs more.

        A PNG that declares 12 bits (sBIT) should have scaled them to 16 already, by shifting: its dark pictures then
        hold multiples of 16, or 1 above, and stay as they are.
        """
        if declared is None or int(self.samples.max(initial=0)) >= 1 << declared:
            return 16
        scaled = self.opened.format == "PNG" and declared == self.opened.essence.bits
        if scaled and not (self.samples % (1 << 16 - declared) > 1).any():
            return 16
        return declared


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
        return int(wide.samples.max(initial=0)).bit_length()
    except MemoryError:
        raise
    except Exception as error:  # decoders of hostile data raise nearly anything
        raise _reject(data, opened.format, error) from error


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """(H, W) float64 of unknown range -> uint8: the full scale is 1, 255 or 65535 where the values fit, else
    their own range; NaN becomes black."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scale = next((full for full in (1.0, 255.0, 65535.0) if low >= 0 and high <= full), None)
    if scale is None:
        finite, scale = finite - low, high - low
    return np.rint(finite * (255.0 / scale)).astype(np.uint8)


def _reject(data: bytes, form: str, error: Exception) -> RejectedImage:
    """The reject for data that do not decode: unsupported where they are whole, of a kind that Pillow does not read;
    truncated where the container says that its data go on, or where the decoder ran out of them; else corrupt."""
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
