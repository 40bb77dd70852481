"""What of an encoded image decides about its pixels; the rest of the file never does.

A file carries more than its picture: texts, profiles, thumbnails, further pages. Pillow reads these notes while it
opens a file, and a broken one makes it refuse the picture (a wrong checksum of a comment, a color profile of 2 MB) or
misread it (a text named `transparency`). Its own way out, `LOAD_TRUNCATED_IMAGES`, is one switch for the whole process
that accepts damaged pixels too. So each container is walked here, and rebuilt of what the pixels need and nothing else;
compressed pixels are copied, never decoded. Where a container is irregular, the rest of it stays as it is, so that the
decoder judges it.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

MAX_NOTE_BYTES = 1 << 20
"""Bytes of a note (EXIF, XMP) that are looked at for the orientation."""


DAMAGE = (struct.error, LookupError, ArithmeticError, ValueError)
"""What reading the fields of a damaged container raises."""


class Essence(NamedTuple):
    """An image without what does not decide about its pixels."""

    data: bytes
    """What the decoder gets."""
    form: str
    """Its format; another one than that of the file where a picture is taken out of its container (icons)."""
    notes: tuple[bytes, ...] | None = None
    """EXIF and XMP blocks, which tell the orientation; None: the decoder knows them."""
    bits: int | None = None
    """Bits of 16-bit samples that are used, as the container declares them."""
    size: tuple[int, int] | None = None
    """Width and height, where they must be known before the decoder opens the image."""
    mask: tuple[int, int, bytes] | None = None
    """(width, height, 1 bit a pixel, rows of whole 32 bits from the bottom): where an icon shows nothing."""
    planes: tuple[bytes, ...] = ()
    """Gray pictures of 16 bits a sample, one for each sample, where the decoder would misread them as one picture."""
    inverted: bool = False
    """Whether the samples as the decoder has them are light where the picture is dark."""
    refused: str | None = None
    """The kind of picture that this is, where it is one that is not read."""


def essence(form: str, data: bytes) -> Essence:
    """What of an image of a format (a key of `formats.READ`) decides about its pixels."""
    walk = _WALKS.get(form)
    if walk is None:
        return Essence(data, form)
    try:
        return walk(data)
    except DAMAGE:  # a field is cut or missing: the decoder says what is wrong
        return Essence(data, form)


def orientation_in(notes: tuple[bytes, ...]) -> int:
    """The orientation, 1..8, in EXIF and XMP blocks, the first that tells one; 1: none does."""
    for note in notes:
        found = _orientation_of_exif(note) or _orientation_of_xmp(note)
        if found:
            return found
    return 1


def _orientation_of_exif(note: bytes) -> int | None:
    """From a block that is laid out as a TIFF file; a damaged one tells nothing."""
    try:
        tags = {tag: (kind, value) for tag, kind, _, value in _Tiff(note).first_directory()}
        kind, value = tags[_ORIENTATION]
        number = struct.unpack_from(_Tiff(note).order + ("H" if kind == _SHORT else "I"), value)[0]
    except DAMAGE:
        return None
    return number if 1 <= number <= 8 else None


def _orientation_of_xmp(note: bytes) -> int | None:
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", note[:MAX_NOTE_BYTES])
    return int(found[1]) if found else None


# -- PNG ----------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Essence:
    """Critical chunks and an intact tRNS; an animation becomes its default image, the first frame."""
    kept: list[bytes | memoryview] = [data[:8]]
    view, exif, xmp, used, refused = memoryview(data), [], [], None, None
    depth, color, at = data[24], data[25], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        if kind == b"CgBI":
            refused = "PNG as applications of iOS hold it (CgBI)"
        if not kind[0] & 0x20:  # critical
            kept.append(view[at:end])
        elif kind in _PNG_NOTES and zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"):
            content = data[at + 8 : end - 4]
            if kind == b"tRNS":
                kept += _png_transparency(content, depth, color)
            elif kind == b"sBIT":
                used = max(content[: 1 if color in (0, 4) else 3], default=0)
            elif kind == b"eXIf":
                exif.append(content.removeprefix(b"Exif\0\0"))
            else:
                xmp.append(_png_text(kind, content))
        at = end
        if kind == b"IEND":
            at = len(data)
    kept.append(view[at:])
    bits = used if depth == 16 and used and 8 <= used < 16 else None
    return Essence(b"".join(kept), "PNG", (*exif, *xmp), bits, refused=refused)


_PNG_NOTES = {b"tRNS", b"sBIT", b"eXIf", b"iTXt", b"zTXt"}


def _png_transparency(content: bytes, depth: int, color: int) -> list[bytes]:
    """The chunk as Pillow must get it; none where its length is wrong.

    Pillow widens gray of 2 and 4 bits to 8 and compares the declared value with that, so the value is widened too.
    """
    if color == 0 and len(content) == 2 and depth in (2, 4):
        content = (int.from_bytes(content, "big") % (1 << depth) * (255 // ((1 << depth) - 1))).to_bytes(2, "big")
    if len(content) == {0: 2, 2: 6}.get(color) or (color == 3 and 0 < len(content) <= 256):
        body = b"tRNS" + content
        return [struct.pack(">I", len(content)), body, struct.pack(">I", zlib.crc32(body))]
    return []


def _png_text(kind: bytes, content: bytes) -> bytes:
    """The note in a text chunk: XMP, or EXIF as ImageMagick writes it; b"": none, or too long."""
    keyword, _, rest = content[: 4 * MAX_NOTE_BYTES].partition(b"\0")
    if kind == b"iTXt" and keyword == b"XML:com.adobe.xmp":
        text = rest[2:].split(b"\0", 2)[-1]
        return _inflate(text) if rest[:1] == b"\1" else text
    if kind == b"zTXt" and keyword == b"Raw profile type exif":
        lines = _inflate(rest[1:]).split(b"\n")[3:]
        return bytes.fromhex(b"".join(lines).decode("latin-1")).removeprefix(b"Exif\0\0")
    return b""


def _inflate(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, MAX_NOTE_BYTES)
    except zlib.error:
        return b""


# -- JPEG ---------------------------------------------------------------------------------------------------------

_JPEG_KINDS = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xCB: "lossless JPEG",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "hierarchical JPEG",
    0xF7: "JPEG-LS",
}
"""Frames (SOF) that libjpeg does not decode."""


def _jpeg(data: bytes) -> Essence:
    """All but comments and application segments; of these the JFIF and Adobe ones stay, which tell the color space."""
    kept: list[bytes | memoryview] = [data[:2]]
    view, exif, xmp, refused, at = memoryview(data), [], [], None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0x00, 0x01, 0xDA) or 0xD0 <= marker <= 0xD9 or end > len(data) or end < at + 4:
            break
        content = data[at + 4 : min(end, at + 48)]
        if marker == 0xE1:
            if content.startswith(b"Exif\0\0"):
                exif.append(data[at + 10 : end])
            elif content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp.append(data[at + 33 : end])
        elif marker in _JPEG_KINDS:
            refused = _JPEG_KINDS[marker]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            refused = refused or _jpeg_frame(content)
        if _jpeg_needs(marker, content):
            kept.append(view[at:end])
        at = end
    kept.append(view[at:])
    return Essence(b"".join(kept), "JPEG", (*exif, *xmp), refused=refused)


def _jpeg_needs(marker: int, content: bytes) -> bool:
    if marker == 0xE0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == 0xEE:
        return content.startswith(b"Adobe") and len(content) >= 12
    return marker != 0xFE and not 0xE0 <= marker <= 0xEF


def _jpeg_frame(content: bytes) -> str | None:
    """What about a frame header is not read: other depths than 8 bits, other than 1, 3 or 4 components."""
    precision, components = content[0], content[5]
    if precision in (12, 16):
        return f"JPEG of {precision} bits a sample"
    return None if components in (1, 3, 4) or precision != 8 else f"JPEG of {components} components"


# -- GIF, WebP, JPEG 2000, AVIF and HEIF --------------------------------------------------------------------------


def _gif(data: bytes) -> Essence:
    """Header, color table, and the first frame with the extension that tells its transparency."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept = [data[:at]]
    while data[at : at + 1] == b"!":
        end = _gif_blocks(data, at + 2)
        if end is None:
            break
        if data[at + 1] == 0xF9 and data[at + 2] == 4 and end == at + 8:
            kept.append(data[at:end])
        at = end
    frame_end = None
    if data[at : at + 1] == b",":
        table = 3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0
        frame_end = _gif_blocks(data, at + 11 + table)
    kept.append(data[at:frame_end])
    if frame_end is not None:
        kept.append(b";")
    return Essence(b"".join(kept), "GIF")


def _gif_blocks(data: bytes, at: int) -> int | None:
    """Where a chain of blocks that begins at `at` ends; None: it is cut."""
    while at < len(data):
        length, at = data[at], at + 1 + data[at]
        if length == 0:
            return at
    return None


def _webp(data: bytes) -> Essence:
    """The chunks of pixels; profile and metadata go, and their flags with them."""
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data) or data[12:16] != b"VP8X":  # cut, or nothing but pixels
        return Essence(data, "WEBP", (), size=_webp_size(data))
    kept: list[bytes] = []
    notes, at = [], 12
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        after = at + 8 + length + length % 2
        if kind == b"VP8X":
            kept.append(data[at : at + 8] + bytes([data[at + 8] & 0x12]) + data[at + 9 : after])
        elif kind in (b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"):
            kept.append(data[at:after])
        elif kind in (b"EXIF", b"XMP ") and after <= end + 1:
            notes.append(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at = after
    body = b"WEBP" + b"".join(kept)
    return Essence(b"RIFF" + struct.pack("<I", len(body)) + body, "WEBP", tuple(notes), size=_webp_size(data))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, since the decoder takes memory for all pixels when it opens the file; None: not told.

    Source: RFC 9649, WebP Image Format.
    """
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L" if data[20] == 0x2F:
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _jpeg2000(data: bytes) -> Essence:
    """The boxes of header and pixels; a bare codestream stays as it is."""
    if not data.startswith(b"\0\0\0\x0cjP  "):
        return Essence(data, "JPEG2000")
    kept = []
    for kind, at, end in _boxes(data):
        if kind in (b"jP  ", b"ftyp", b"jp2h", b"jp2c"):
            kept.append(data[at:end])
    return Essence(b"".join(kept), "JPEG2000")


def jpeg2000_tile(data: bytes) -> tuple[int, int] | None:
    """Width and height of a tile, which is decoded as a whole; None: not told.

    Source: ISO/IEC 15444-1, SIZ marker segment, the first one of a codestream.
    """
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 30:
        return None
    width, height = struct.unpack_from(">II", data, at + 24)
    return width, height


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin, end) of the boxes of an ISO file; the last one may lead past the end of the data."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        end = len(data) if length == 0 else at + length
        if end < at + 8:
            raise ValueError("a box shorter than its head")
        yield kind, at, end
        at = end


def _heif(data: bytes) -> Essence:
    """EXIF items are hidden from the decoder: in these containers properties tell the orientation, EXIF must not."""
    meta = next(((at, end) for kind, at, end in _boxes(data) if kind == b"meta"), None)
    if meta is None:
        return Essence(data, "HEIF")
    changed = bytearray(data)
    for found in re.finditer(rb"infe\x02.......Exif|infe\x03.......Exif", data[meta[0] : meta[1]], re.DOTALL):
        changed[meta[0] + found.end() - 4 : meta[0] + found.end()] = b"none"
    return Essence(bytes(changed), "HEIF")


def _avif(data: bytes) -> Essence:
    return _heif(data)._replace(form="AVIF")


# -- TIFF ---------------------------------------------------------------------------------------------------------

_SHORT, _LONG = 3, 4
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""
_ORIENTATION, _SUB_DIRECTORIES, _MAX_SAMPLE, _S_MAX_SAMPLE, _DNG_VERSION = 274, 330, 281, 341, 50706
_DEPTH, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 258, 259, 262, 277, 284, 338, 339
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_MOST_NUMBERS = 1 << 20
_Entry = tuple[int, int, int, bytes]
"""Tag, type, count, and the value or its offset as it stands."""
_DECISIVE = {
    *(
        254,
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        274,
        277,
        278,
        279,
        284,
        292,
        293,
        317,
        318,
        319,
        320,
        322,
        323,
        324,
        325,
    ),
    *(332, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
"""Tags that decide about pixels: layout, compression, colors."""
_RAW_PHOTOMETRIC = {32803: "color filter array", 34892: "linear raw"}
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34676, 34677, 34925, 50000, 50001}


class _Tiff:
    """Directories of a TIFF file or of a block laid out as one.

    Raises:
        ValueError: it is none.
        struct.error: a directory leads past the end of the data.
    """

    def __init__(self, data: bytes) -> None:
        if data[:2] not in (b"II", b"MM") or len(data) < 8:
            raise ValueError("no TIFF header")
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        self.big = 43 in data[2:4]
        self.offset_at, self.offset_code = (8, "Q") if self.big else (4, "I")
        self._count_code, self._entry_code, self._entry_bytes = ("Q", "HHQ8s", 20) if self.big else ("H", "HHI4s", 12)

    def first_directory(self) -> list[_Entry]:
        """The entries of the first page."""
        (offset,) = struct.unpack_from(self.order + self.offset_code, self.data, self.offset_at)
        return self.directory(offset)

    def directory(self, offset: int) -> list[_Entry]:
        """The entries of the directory at an offset."""
        (count,) = struct.unpack_from(self.order + self._count_code, self.data, offset)
        start = offset + struct.calcsize(self.order + self._count_code)
        if count > 4096:
            raise ValueError("too many tags")
        code = self.order + self._entry_code
        return [struct.unpack_from(code, self.data, start + n * self._entry_bytes) for n in range(count)]

    def numbers(self, entry: _Entry) -> tuple[int, ...]:
        """The whole numbers of an entry; empty: it holds others, far too many, or they lie past the end."""
        _, kind, count, value = entry
        code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if code is None or not 0 < count <= _MOST_NUMBERS:
            return ()
        if count * _SIZES[kind] > len(value):
            (offset,) = struct.unpack(self.order + self.offset_code, value)
            value = self.data[offset : offset + count * _SIZES[kind]]
        if len(value) < count * _SIZES[kind]:
            return ()
        return struct.unpack_from(f"{self.order}{count}{code}", value)

    def entry(self, tag: int, numbers: tuple[int, ...]) -> "_Numbers":
        """An entry of whole numbers of 32 bits, or of 16 where a reader asks for these."""
        return tag, numbers

    def with_directory(self, entries: "Sequence[_Entry | _Numbers]") -> bytes:
        """The file as a classic TIFF with a first page of these entries, and no other page.

        Pillow does not read files above 4 GB laid out big-endian (BigTIFF); images are far shorter, so classic offsets
        do for all.
        """
        at = len(self.data) + len(self.data) % 2
        head = self.data[:2] + struct.pack(self.order + "HI", 42, at)
        packed = [self._packed(entry) for entry in sorted(entries, key=lambda entry: entry[0])]
        free = at + 2 + 12 * len(packed) + 4
        table, behind = struct.pack(self.order + "H", len(packed)), b""
        for tag, kind, count, value in packed:
            if len(value) > 4:
                stored = struct.pack(self.order + "I", free + len(behind))
                behind += value + bytes(len(value) % 2)
            else:
                stored = value.ljust(4, b"\0")
            table += struct.pack(self.order + "HHI", tag, kind, count) + stored
        return b"".join([head, self.data[8:], bytes(at - len(self.data)), table, bytes(4), behind])

    def _packed(self, entry: "_Entry | _Numbers") -> _Entry:
        """Tag, type, count, and all bytes of the value."""
        if len(entry) == 4:
            tag, kind, count, value = entry
            length = count * _SIZES[kind]
            if length > len(value):
                (offset,) = struct.unpack(self.order + self.offset_code, value)
                value = self.data[offset : offset + length]
            if kind not in (13, 16, 18):
                return tag, kind, count, value[:length]
            entry = tag, self.numbers(entry)
        tag, numbers = entry
        code, kind = ("H", _SHORT) if max(numbers, default=0) < 1 << 16 else ("I", _LONG)
        return tag, kind, len(numbers), struct.pack(f"{self.order}{len(numbers)}{code}", *numbers)


_Numbers = tuple[int, tuple[int, ...]]
"""Tag and whole numbers."""


def _tiff(data: bytes) -> Essence:
    """The first page with the tags that decide about pixels."""
    tiff = _Tiff(data)
    entries = tiff.first_directory()
    tags = {entry[0]: entry for entry in entries}
    refused = _raw_kind(tiff, tags)
    kept = [entry for entry in tags.values() if entry[0] in _DECISIVE and entry[1] in _SIZES]
    turned = tiff.numbers(tags[_ORIENTATION]) if _ORIENTATION in tags else ()
    if not (len(turned) == 1 and 1 <= turned[0] <= 8):
        kept = [entry for entry in kept if entry[0] != _ORIENTATION]
    depth = tiff.numbers(tags[_DEPTH])[:1] if _DEPTH in tags else (1,)
    # Pillow ignores that zero is white where samples are wider than 8 bits.
    inverted = depth > (8,) and _PHOTOMETRIC in tags and tiff.numbers(tags[_PHOTOMETRIC]) == (0,)
    if inverted:
        kept = [
            (_PHOTOMETRIC, _SHORT, 1, struct.pack(tiff.order + "H", 1).ljust(8, b"\0"))
            if entry[0] == _PHOTOMETRIC
            else entry
            for entry in kept
        ]
    planes: tuple[bytes, ...] = ()
    if depth == (16,) and _PLANAR in tags and tiff.numbers(tags[_PLANAR]) == (2,):
        planes, refused = _planes(tiff, kept), refused or _premultiplied(tiff, tags)
    return Essence(
        tiff.with_directory(kept),
        "TIFF",
        bits=_tiff_bits(tiff, tags),
        inverted=inverted,
        planes=planes,
        refused=refused,
    )


def _premultiplied(tiff: _Tiff, tags: dict[int, _Entry]) -> str | None:
    extra = tiff.numbers(tags[_EXTRA]) if _EXTRA in tags else ()
    return "TIFF of 16-bit samples that lie apart, with premultiplied alpha" if 1 in extra else None


def _planes(tiff: _Tiff, entries: list[_Entry]) -> tuple[bytes, ...]:
    """The samples of a picture that lie apart, each plane as a gray picture of its own.

    Pillow takes such planes for 8 bits a sample where they are not compressed, and keeps the high bytes where they are.
    """
    tags = {entry[0]: tiff.numbers(entry) for entry in entries}
    starts, lengths = (_STRIPS, _STRIP_BYTES) if _STRIPS in tags else (_TILES, _TILE_BYTES)
    num_planes = tags[_SAMPLES][0]
    num_blocks = len(tags[starts]) // num_planes
    blocks = [tiff.data[at : at + n] for at, n in zip(tags[starts], tags[lengths], strict=True)]
    if tags.get(_EXTRA, ())[-1:] == (0,):  # the last sample means nothing
        num_planes -= 1
    found = []
    for number in range(num_planes):
        mine = blocks[number * num_blocks : (number + 1) * num_blocks]
        places = accumulate((len(block) + len(block) % 2 for block in mine[:-1]), initial=16)
        body = b"".join(block + bytes(len(block) % 2) for block in mine)
        plane = _Tiff(tiff.data[:2] + (b"*\0" if tiff.order == "<" else b"\0*") + bytes(12) + body)
        changed: list[_Numbers] = [
            (_PHOTOMETRIC, (1,)),
            (_SAMPLES, (1,)),
            (_DEPTH, (16,)),
            (_PLANAR, (1,)),
            (_FORMAT, (1,)),
        ]
        changed += [(starts, tuple(places)), (lengths, tuple(len(block) for block in mine))]
        left_out = {_EXTRA, *(tag for tag, _ in changed)}
        others = [plane.entry(tag, numbers) for tag, numbers in tags.items() if tag not in left_out and numbers]
        found.append(plane.with_directory([*others, *(plane.entry(tag, numbers) for tag, numbers in changed)]))
    return tuple(found)


def _tiff_bits(tiff: _Tiff, tags: dict[int, _Entry]) -> int | None:
    """Bits of a sample that are used: 12 where samples are packed so, else by the largest value that they may have."""
    depth = tiff.numbers(tags[258])[:1] if 258 in tags else ()
    if depth == (12,):
        return 12
    for tag in (_S_MAX_SAMPLE, _MAX_SAMPLE):
        largest = max(tiff.numbers(tags[tag]), default=0) if tag in tags else 0
        bits = largest.bit_length()
        if depth == (16,) and 8 <= bits < 16 and largest == (1 << bits) - 1:
            return bits
    return None


def _raw_kind(tiff: _Tiff, tags: dict[int, _Entry]) -> str | None:
    """What kind of raw picture a file is; its first page is then a thumbnail, or no picture to look at."""
    if _DNG_VERSION in tags:
        return "raw picture of a camera (DNG)"
    if tiff.data[8:10] == b"CR":
        return "raw picture of a camera (CR2)"
    inside = tiff.numbers(tags[_SUB_DIRECTORIES]) if _SUB_DIRECTORIES in tags else ()
    pages = [tags]
    for offset in inside[:16]:
        try:
            pages.append({entry[0]: entry for entry in tiff.directory(offset)})
        except DAMAGE:
            continue
    photometric = {number for page in pages if 262 in page for number in tiff.numbers(page[262])}
    if photometric & _RAW_PHOTOMETRIC.keys():
        return "raw picture of a camera"
    return None


def describe_tiff(data: bytes) -> str | None:
    """What kind of TIFF a file is whose pixels are all there; None: they are not, or the file is damaged."""
    try:
        tiff = _Tiff(data)
        tags = {entry[0]: tiff.numbers(entry) for entry in tiff.first_directory()}
    except DAMAGE:
        return None
    starts, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    if not (tags.get(256) and tags.get(257) and starts and len(starts) == len(lengths)):
        return None
    if any(start + length > len(data) for start, length in zip(starts, lengths, strict=True)):
        return None
    depths, samples = tags.get(258) or (1,), (tags.get(277) or (1,))[0]
    kind = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
    words = kind.get((tags.get(339) or (1,))[0], "untyped")
    compression, photometric = (tags.get(259) or (1,))[0], (tags.get(262) or (0,))[0]
    return (
        f"TIFF of {samples} {words} samples of {'/'.join(str(d) for d in sorted(set(depths)))} bits, "
        f"photometric {photometric}, compression {compression}"
    )


def is_unknown_compression(data: bytes) -> bool:
    """Whether a TIFF is compressed by a method that Pillow does not know."""
    try:
        tiff = _Tiff(data)
        tags = {entry[0]: tiff.numbers(entry) for entry in tiff.first_directory()}
    except DAMAGE:
        return False
    return (tags.get(_COMPRESSION) or (1,))[0] not in _TIFF_COMPRESSIONS


# -- icons, JPEG XL -----------------------------------------------------------------------------------------------


def _ico(data: bytes) -> Essence:
    """The largest picture of an icon or cursor, of equal ones that with most bits: a PNG, or a bitmap and its mask."""
    count = int.from_bytes(data[4:6], "little")
    entries = []
    for number in range(count):
        width, height, _, _, _, bits, length, offset = struct.unpack_from("<BBBBHHII", data, 6 + 16 * number)
        entries.append(((width or 256) * (height or 256), bits, -number, offset, length))
    *_, offset, length = max(entries)
    inner = data[offset : offset + length]
    if inner.startswith(b"\x89PNG"):
        return _png(inner)
    header, width, height, _, depth, _ = struct.unpack_from("<IiiHHI", inner)
    if header != 40 or height < 0 or height % 2 or depth not in (1, 4, 8, 16, 24, 32) or width < 1:
        raise ValueError("no bitmap of an icon")
    colors = (int.from_bytes(inner[32:36], "little") or 1 << depth) if depth <= 8 else 0
    pixels_at = header + 4 * colors
    mask_at = pixels_at + (width * depth + 31) // 32 * 4 * (height // 2)
    bitmap = bytearray(inner[:mask_at])
    bitmap[8:12] = struct.pack("<i", height // 2)
    if depth == 32:  # with fields, so that the fourth byte of a pixel is read as alpha
        fields = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        bitmap[:40] = struct.pack("<I", 56) + bitmap[4:16] + struct.pack("<I", 3) + bitmap[20:40] + fields
        pixels_at += 16
    head = b"BM" + struct.pack("<IHHI", 14 + len(bitmap), 0, 0, 14 + pixels_at)
    mask = inner[mask_at : mask_at + (width + 31) // 32 * 4 * (height // 2)]
    return Essence(head + bytes(bitmap), "BMP", (), mask=(width, height // 2, mask))


def _jxl(data: bytes) -> Essence:
    """Width and height, which the decoder tells only together with all pixels."""
    stream = data
    if data[:2] != b"\xff\x0a":
        parts = [(kind, data[at + 8 : end]) for kind, at, end in _boxes(data) if kind in (b"jxlc", b"jxlp")]
        kind, stream = parts[0]
        stream = stream[4:] if kind == b"jxlp" else stream
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no codestream")
    return Essence(data, "JXL", size=_jxl_size(int.from_bytes(stream[2:16], "little")))


def _jxl_size(bits: int) -> tuple[int, int]:
    """Source: ISO/IEC 18181-1, SizeHeader; fields of the codestream begin with their least bit."""

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    def side() -> int:
        return take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = (take(5) + 1) * 8 if small else side()
    ratio = take(3)
    if ratio == 0:
        return (take(5) + 1) * 8 if small else side(), height
    up, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * up // down, height


_WALKS: dict[str, Callable[[bytes], Essence]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": _webp,
    "JPEG2000": _jpeg2000,
    "AVIF": _avif,
    "HEIF": _heif,
    "TIFF": _tiff,
    "ICO": _ico,
    "JXL": _jxl,
}
