"""Repairing the metadata of a JPEG, PNG or WebP without touching its pixels.

A broken EXIF block is taken away. Where the picture would then lie another way (the block was readable enough to turn
it, or XMP says something else), a block with nothing but the orientation takes its place. Whether a repair is one is
not argued but checked: the pixels must be equal, upright and in full, and the reader must be content; otherwise there
is none. All of it happens to few pictures, so it need not be fast.
"""

import struct
import zlib
from collections.abc import Callable, Iterator

from curate.ops.images.decode import RejectedImage, decode_rgb

EXIF_MARK = b"Exif\0\0"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
EXIF_TEXTS = (b"Raw profile type exif\0", b"exif\0", b"xmp\0")
"""Keywords of PNG texts that Pillow takes for EXIF or XMP data."""
WEBP_HAS_EXIF = 0x08
"""Bit of the flags in a WebP's `VP8X` chunk."""


def repair_metadata(data: bytes, *, is_readable: Callable[[bytes], bool]) -> bytes | None:
    """The same picture with metadata on which no reader dies; None: that cannot be had without touching the pixels."""
    try:
        picture = decode_rgb(data)
        for orientation in (None, *range(1, 9)):
            mended = _with_orientation(data, orientation)
            if mended is not None and is_readable(mended):
                found = decode_rgb(mended)
                if (found.size, found.tobytes()) == (picture.size, picture.tobytes()):
                    return mended
    except RejectedImage:
        pass
    return None


def ends_with_pixels(data: bytes) -> bool:
    """Whether nothing but the end mark follows the pixels of a PNG."""
    try:
        kinds = [kind for kind, _, _ in png_chunks(data)]
    except struct.error:
        return False
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return behind[-1:] == [b"IEND"] and set(behind[:-1]) == {b"IDAT"}


def _with_orientation(data: bytes, orientation: int | None) -> bytes | None:
    """The file with an EXIF block that holds this orientation alone, or without one; None: its format is not known."""
    block = b"" if orientation is None else _exif_block(orientation)
    try:
        if data.startswith(b"\xff\xd8"):
            return _mend_jpeg(data, block)
        if data.startswith(PNG_SIGNATURE):
            return _mend_png(data, block)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _mend_webp(data, block)
    except (struct.error, IndexError):  # a length that leads past the end
        pass
    return None


def _exif_block(orientation: int) -> bytes:
    """A TIFF header and one directory with one entry."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def _mend_jpeg(data: bytes, block: bytes) -> bytes:
    """EXIF lies in APP1 segments in front of the first scan."""
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(EXIF_MARK) + len(block)) + EXIF_MARK + block if block else b""
    kept, at = [data[:2], segment], 2
    while data[at : at + 1] == b"\xff" and data[at + 1] not in (0xD9, 0xDA):
        marker = data[at + 1]
        alone = marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7  # a fill byte, or a mark without a length
        length = (1 if marker == 0xFF else 2) if alone else 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker != 0xE1 or not data.startswith(EXIF_MARK, at + 4):
            kept.append(data[at : at + length])
        at += length
    return b"".join([*kept, data[at:]])


def _mend_png(data: bytes, block: bytes) -> bytes:
    """EXIF lies in a chunk of its own, or as hexadecimal text; a wrong checksum of a side note goes with its chunk."""
    kept, after = [PNG_SIGNATURE], len(data)
    for kind, at, after in png_chunks(data):
        chunk, body = data[at:after], data[at + 8 : after - 4]
        is_exif = kind == b"eXIf" or (kind in TEXT_CHUNKS and body.startswith(EXIF_TEXTS))
        is_side_note = kind[:1].islower() and kind != b"tRNS"
        is_wrong = zlib.crc32(kind + body) != int.from_bytes(chunk[-4:], "big")
        if not is_exif and not (is_side_note and is_wrong):
            kept.append(chunk)
        if kind == b"IHDR" and block:
            kept.append(png_chunk(b"eXIf", block))
    return b"".join([*kept, data[after:]])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to the end mark."""
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def _mend_webp(data: bytes, block: bytes) -> bytes:
    """EXIF lies in a chunk of its own, which a flag in the first chunk announces."""
    kept, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        if kind == b"VP8X":
            flags = chunk[8] if block else chunk[8] & ~WEBP_HAS_EXIF  # without it, no reader looked at the block
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind != b"EXIF":
            kept.append(chunk)
        at += 8 + length + length % 2
    if block:
        kept.append(struct.pack("<4sI", b"EXIF", len(block)) + block + b"\0" * (len(block) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
