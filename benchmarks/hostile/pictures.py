"""Hostile pictures: every readable format with every general fault, and the faults that a format alone can have."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.faulty import draw_picture
from benchmarks.formats import exif
from benchmarks.hostile.case import ACCEPTED, ANY, DAMAGED, GOOD, REFUSED, Picture, rng_of
from curate.ops.images.decoders import has_decoder

Make = Callable[[np.random.Generator], bytes]

HUGE_SIDE = 9_400
"""Square of it: 88 million pixels, which is within the default of `max_pixels`."""
BOMB = 64 << 20
"""Bytes that a compressed note expands to."""


def pictures(seed: int) -> Iterator[Picture]:
    """All of them."""
    for form, make in FORMATS.items():
        if _name_of(form) not in ("AVIF", "HEIF", "JXL") or has_decoder(_name_of(form)):
            yield from _with_general_faults(form, make, seed)
    for special in (_notes, _pngs, _jpegs, _gifs, _tiffs, _simple, _boxes, _no_pictures, _large):
        yield from special(seed)


# -- formats ----------------------------------------


def _drawn(rng: np.random.Generator, mode: str = "RGB") -> Image.Image:
    return Image.open(io.BytesIO(draw_picture(rng))).convert(mode)


def _saved(form: str, mode: str = "RGB", **options: object) -> Make:
    def make(rng: np.random.Generator) -> bytes:
        file = io.BytesIO()
        _drawn(rng, mode).save(file, form, **options)
        return file.getvalue()

    return make


def _written(writer: Callable[[np.ndarray], bytes], mode: str = "RGB") -> Make:
    def make(rng: np.random.Generator) -> bytes:
        samples = np.asarray(_drawn(rng, mode)).astype(np.uint32)
        return writer(samples if samples.ndim == 3 else samples[:, :, None])

    return make


def _heif(rng: np.random.Generator) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return _saved("HEIF")(rng)


def _jxl(rng: np.random.Generator) -> bytes:
    import pillow_jxl  # noqa: F401  (registers itself)

    return _saved("JXL")(rng)


FORMATS: dict[str, Make] = {
    "JPEG baseline": _saved("JPEG"),
    "JPEG progressive": _saved("JPEG", progressive=True),
    "JPEG gray": _saved("JPEG", "L"),
    "JPEG CMYK": _saved("JPEG", "CMYK"),
    "PNG RGB": _saved("PNG"),
    "PNG RGBA": _saved("PNG", "RGBA"),
    "PNG palette": _saved("PNG", "P"),
    "PNG gray16": _written(lambda samples: enc.png(samples * 257, 16), "L"),
    "PNG interlaced": _written(lambda samples: enc.png(samples, 8, interlaced=True)),
    "WEBP lossy": _saved("WEBP"),
    "WEBP lossless": _saved("WEBP", lossless=True),
    "GIF": _saved("GIF", "P"),
    "TIFF raw": _saved("TIFF"),
    "TIFF LZW": _saved("TIFF", compression="tiff_lzw"),
    "TIFF deflate": _saved("TIFF", compression="tiff_adobe_deflate"),
    "TIFF packbits": _saved("TIFF", compression="packbits"),
    "TIFF JPEG": _saved("TIFF", compression="jpeg"),
    "TIFF CMYK": _saved("TIFF", "CMYK", compression="tiff_lzw"),
    "TIFF float": _saved("TIFF", "F", compression="tiff_adobe_deflate"),
    "BMP": _saved("BMP"),
    "PPM": _saved("PPM"),
    "PGM": _saved("PPM", "L"),
    "TGA": _saved("TGA"),
    "TGA runs": _saved("TGA", compression="tga_rle"),
    "ICO": _saved("ICO", "RGBA", sizes=[(96, 72)]),
    "PCX": _saved("PCX"),
    "SGI": _saved("SGI"),
    "QOI": _written(enc.qoi),
    "JPEG2000": _saved("JPEG2000"),
    "JPEG2000 stream": _saved("JPEG2000", no_jp2=True),
    "AVIF": _saved("AVIF"),
    "HEIF": _heif,
    "JXL": _jxl,
}
"""Makers of whole pictures; the first word is the name in `curate.ops.images.formats.READ`, but for PGM."""


def _name_of(form: str) -> str:
    return form.split(maxsplit=1)[0]


# -- faults that every format can have ----------------------------------------

_CUTS = {"cut at a third": (1, 3), "cut at two thirds": (2, 3)}
_LENIENT = frozenset({"AVIF", "HEIF", "JXL", "JPEG2000", "ICO"})
"""Formats whose decoders may say this or that of bytes behind the picture."""


def _with_general_faults(form: str, make: Make, seed: int) -> Iterator[Picture]:
    def whole() -> bytes:
        return make(rng_of(seed, form))

    def changed(fault: str, change: Callable[[bytes, np.random.Generator], bytes]) -> Callable[[], bytes]:
        return lambda: change(make(rng_of(seed, f"{form} {fault}")), rng_of(seed, f"{fault} {form}"))

    yield Picture(form, whole, GOOD | {"noise"} if form == "TIFF float" else GOOD)
    for fault, (part, of) in _CUTS.items():
        # Of a TIFF whose directory is cut off, or of an icon, too little is left to say more.
        yield Picture(f"{form} {fault}", changed(fault, partial(_cut, part=part, of=of)), REFUSED)
    fault = "without its last byte"
    yield Picture(f"{form} {fault}", changed(fault, lambda data, rng: data[:-1]), DAMAGED | {ACCEPTED})
    yield Picture(f"{form} header flipped", changed("header flipped", partial(_flip, low=2, high=40)), ANY)
    yield Picture(f"{form} body flipped", changed("body flipped", partial(_flip, low=100, high=1 << 30)), ANY)
    yield Picture(f"{form} 64 kB zeroed", changed("zeroed", _zeroed), ANY)
    behind = ANY if _name_of(form) in _LENIENT else GOOD
    yield Picture(f"{form} twice", changed("twice", lambda data, rng: data + data), behind)
    long = 1 << 20 if form in ("JPEG baseline", "PNG RGB", "GIF", "WEBP lossy") else 1 << 14
    garbage = changed("garbage behind", lambda data, rng: data + rng.bytes(long))
    yield Picture(f"{form} garbage behind", garbage, behind)
    example = whole()
    for name, size in SIZES.items():
        if _resized(form, example, size) is not None:
            yield Picture(f"{form} {name}", partial(_resized_again, form, make, size, seed), REFUSED - {"empty"})


def _cut(data: bytes, rng: np.random.Generator, *, part: int, of: int) -> bytes:
    return data[: len(data) * part // of]


def _flip(data: bytes, rng: np.random.Generator, *, low: int, high: int) -> bytes:
    at = int(rng.integers(min(low, len(data) - 2), min(high, len(data))))
    return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]


def _zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    start = len(data) // 2
    return data[:start] + bytes(min(64 << 10, len(data) - start - 2)) + data[-2:]


# -- sizes that the header claims ----------------------------------------

SIZES = {"65535 x 65535": (65535, 65535), "2^31-1 square": (2**31 - 1, 2**31 - 1), "0 x 0": (0, 0), "-1 x -1": (-1, -1)}


def _resized_again(form: str, make: Make, size: tuple[int, int], seed: int) -> bytes:
    data = _resized(form, make(rng_of(seed, f"{form} {size}")), size)
    assert data is not None
    return data


def _resized(form: str, data: bytes, size: tuple[int, int]) -> bytes | None:
    """The file with another size in its header; None: the header cannot say it."""
    width, height = size
    signed = form == "BMP"
    if min(size) < 0 and not signed and form not in ("PPM", "PGM"):
        return None
    try:
        match _name_of(form):
            case "PNG":
                head = data[12:16] + struct.pack(">II", width, height) + data[24:29]
                return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
            case "JPEG":
                mark = data.index(b"\xff\xc2" if "progressive" in form else b"\xff\xc0")
                return _put(data, mark + 5, struct.pack(">HH", height, width))
            case "GIF":
                frame = data.index(b",\0\0\0\0", 13) + 5
                return _put(_put(data, 6, struct.pack("<HH", *size)), frame, struct.pack("<HH", *size))
            case "BMP":
                return _put(data, 18, struct.pack("<ii", *size))
            case "TGA":
                return _put(data, 12, struct.pack("<HH", *size))
            case "QOI":
                return _put(data, 4, struct.pack(">II", *size))
            case "SGI":
                return _put(data, 6, struct.pack(">HH", *size))
            case "PCX":
                return _put(data, 8, struct.pack("<HH", width - 1 if width else 0, height - 1 if height else 0))
            case "PPM" | "PGM":
                magic, _, largest, pixels = data.split(b"\n", 3)
                return b"\n".join([magic, b"%d %d" % size, largest, pixels])
            case "TIFF":
                return with_tags(data, {256: width, 257: height})
            case "JPEG2000":
                mark = data.index(b"\xff\x4f\xff\x51") + 2
                return _put(data, mark + 6, struct.pack(">II", *size))
            case "WEBP":
                return _webp_of(data, size)
            case "AVIF" | "HEIF":
                return _put(data, data.index(b"ispe") + 8, struct.pack(">II", *size))
    except struct.error:
        return None
    return None


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _webp_of(data: bytes, size: tuple[int, int]) -> bytes | None:
    if max(size) > 65535 or min(size) < 1:
        return None
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little") & ~0x0FFFFFFF
        return _put(data, 21, (bits | 0x3FFF | 0x3FFF << 14).to_bytes(4, "little"))
    return _put(data, 26, struct.pack("<HH", 0x3FFF, 0x3FFF))


def with_tags(tiff: bytes, values: dict[int, int]) -> bytes:
    """A TIFF of Pillow's with other values in tags of one number; they become unsigned and 32 bits long."""
    order = "<" if tiff[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}I", tiff, 4)[0]
    found = bytearray(tiff)
    for place in range(struct.unpack_from(f"{order}H", tiff, at)[0]):
        entry = at + 2 + 12 * place
        tag = struct.unpack_from(f"{order}H", tiff, entry)[0]
        if tag in values:
            struct.pack_into(f"{order}HII", found, entry + 2, 4, 1, values[tag])
    return bytes(found)


# -- notes beside the pixels ----------------------------------------


def _notes(seed: int) -> Iterator[Picture]:
    """EXIF blocks and profiles: whatever they hold, the pixels are good."""
    loop = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 274, 3, 1, 8)
    pointer = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x8769, 4, 1, 8, 8)
    counts = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x010E, 2, 0xFFFFFFFF, 26, 0)
    many = struct.pack("<2sHIH", b"II", 42, 8, 65535) + struct.pack("<HHII", 274, 3, 1, 6) * 5000
    blocks = {
        "orientation 99": exif(99),
        "that loops": loop + struct.pack("<I", 8),
        "whose directory is its own": pointer,
        "of 2^32 letters": counts,
        "of 65,535 entries": many[:60_000],
        "of garbage": rng_of(seed, "exif").bytes(50_000),
        "empty": b"",
    }
    for name, block in blocks.items():
        for form, writer in _EXIF.items():
            yield Picture(f"{form} EXIF {name}", partial(_noted, form, writer, block, f"EXIF {name}", seed), GOOD)
    profile = rng_of(seed, "profile").bytes(64_000)
    for name, block in {"garbage": profile, "empty": b"", "header alone": b"\0\0\xff\xff" * 32}.items():
        for form, writer in _PROFILES.items():
            yield Picture(f"{form} profile {name}", partial(_noted, form, writer, block, f"profile {name}", seed), GOOD)


def _noted(form: str, writer: Callable[[bytes, bytes], bytes], block: bytes, name: str, seed: int) -> bytes:
    return writer(_saved(form)(rng_of(seed, f"{form} {name}")), block)


def _jpeg_exif(data: bytes, block: bytes) -> bytes:
    return enc.with_segment(data, 0xE1, b"Exif\0\0" + block)


def _png_before_pixels(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


def _webp_with(kind: bytes, flag: int, data: bytes, block: bytes) -> bytes:
    return enc.with_riff_chunk(data, kind, block, (160, 120), flag=flag)


_EXIF: dict[str, Callable[[bytes, bytes], bytes]] = {
    "JPEG": _jpeg_exif,
    "PNG": lambda data, block: _png_before_pixels(data, enc.chunk(b"eXIf", block)),
    "WEBP": partial(_webp_with, b"EXIF", 8),
}
_PROFILES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "JPEG": lambda data, block: enc.with_segment(data, 0xE2, b"ICC_PROFILE\0\1\1" + block),
    "PNG": lambda data, block: _png_before_pixels(data, enc.chunk(b"iCCP", b"x\0\0" + zlib.compress(block))),
    "WEBP": partial(_webp_with, b"ICCP", 32),
}


# -- PNG ----------------------------------------


def _zeros(number: int) -> bytes:
    """A zlib stream that expands to so many zeros; without holding them."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(number >> 20)]
    return b"".join([*parts, packer.compress(bytes(number & (1 << 20) - 1)), packer.flush()])


def _png_of(
    width: int, height: int, *, depth: int = 8, color: int = 2, before: tuple[bytes, ...] = (), stream: bytes = b""
) -> bytes:
    """A PNG of zeros, of any size."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    stream = stream or _zeros(height * (1 + (width * bits + 7) // 8))
    parts = [enc.chunk(b"IHDR", header), *before, enc.chunk(b"IDAT", stream), enc.chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _pngs(seed: int) -> Iterator[Picture]:
    def of(name: str, change: Callable[[bytes], bytes], verdicts: frozenset[str] = GOOD, **how: bool) -> Picture:
        return Picture(f"PNG {name}", lambda: change(_saved("PNG")(rng_of(seed, f"PNG {name}"))), verdicts, **how)

    def before(*chunks: Callable[[], bytes]) -> Callable[[bytes], bytes]:
        return lambda data: _png_before_pixels(data, *(make() for make in chunks))

    chunk = enc.chunk
    yield of("zTXt bomb", before(lambda: chunk(b"zTXt", b"a\0\0" + _zeros(BOMB))))
    yield of("iTXt bomb", before(lambda: chunk(b"iTXt", b"a\0\1\0\0\0" + _zeros(BOMB))))
    yield of("iCCP bomb", before(lambda: chunk(b"iCCP", b"a\0\0" + _zeros(BOMB))))
    yield of("40 zTXt bombs", before(lambda: chunk(b"zTXt", b"a\0\0" + _zeros(BOMB // 8)) * 40))
    yield of("10,000 notes", before(lambda: chunk(b"tEXt", b"k\0v") * 10_000))
    yield of("100,000 empty chunks", before(lambda: chunk(b"abCd", b"") * 100_000))
    yield of("note of 2 MB", before(lambda: chunk(b"tEXt", b"k\0" + bytes(2 << 20))))
    yield of("note with a wrong checksum", before(lambda: chunk(b"tEXt", b"k\0v", right=False)))
    yield of("header with a wrong checksum", lambda data: _put(data, 29, b"\0\0\0\0"), ANY)
    yield of("length of 2^31", lambda data: _put(data, 33, b"\x80\0\0\0"), ANY)
    yield of("length of 2^32-1", lambda data: _put(data, 33, b"\xff\xff\xff\xff"), ANY)
    yield of("first chunk no header", lambda data: data[:8] + data[33:], REFUSED)
    yield of("two headers", lambda data: data[:33] + data[8:], ANY)
    yield of("animation of 2^31 frames", before(lambda: chunk(b"acTL", struct.pack(">II", 2**31, 0))), ANY)
    for name, form in {"bit depth 3": (3, 2), "color type 9": (8, 9), "bit depth 255": (255, 0)}.items():
        yield of(name, partial(_with_form, form=form), REFUSED)
    yield of("palette missing", partial(_with_form, form=(8, 3)), ANY)
    yield Picture("PNG pixels that go on for 64 MB", lambda: _png_of(100, 100, stream=_zeros(BOMB)), ANY)
    empty = b"".join([chunk(b"IDAT", b"")] * 20_000)
    yield of("20,000 empty IDAT", lambda data: _png_before_pixels(data, empty), ANY)
    yield Picture("PNG one pixel wide and 10^6 high", lambda: _png_of(1, 10**6), ANY)
    yield Picture("PNG unknown compression", lambda: _png_of(64, 64, stream=b"\x09\x99" + bytes(100)), REFUSED)


def _with_form(data: bytes, *, form: tuple[int, int]) -> bytes:
    head = data[12:24] + bytes(form) + data[26:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


# -- JPEG ----------------------------------------


def _jpegs(seed: int) -> Iterator[Picture]:
    def of(name: str, change: Callable[[bytes], bytes], verdicts: frozenset[str] = ANY, **how: bool) -> Picture:
        return Picture(f"JPEG {name}", lambda: change(_saved("JPEG")(rng_of(seed, f"JPEG {name}"))), verdicts, **how)

    def segments(marker: int, content: bytes, number: int) -> Callable[[bytes], bytes]:
        segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        return lambda data: data[:2] + segment * number + data[2:]

    yield of("60,000 empty APP1", segments(0xE1, b"", 60_000), ANY)
    yield of("20,000 EXIF blocks", segments(0xE1, b"Exif\0\0" + exif(3), 20_000), ANY)
    yield of("50 profiles of 64 kB", segments(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000), 50), GOOD)
    yield of("100,000 comments", segments(0xFE, b"a", 100_000), ANY)
    yield of("1 MB of fill bytes", lambda data: data[:2] + b"\xff" * (1 << 20) + data[2:], ANY)
    yield of("MPF index of garbage", segments(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + bytes(200), 1), ANY)
    yield of("segment of length 0", lambda data: data[:2] + b"\xff\xe5\0\0" + data[2:], ANY)
    yield of("SOF twice", lambda data: _doubled(data, b"\xff\xc0"), ANY)
    yield of("5,000 Huffman tables", lambda data: _doubled(data, b"\xff\xc4", 5_000), ANY)
    yield of("arithmetic coding", lambda data: data.replace(b"\xff\xc0", b"\xff\xc9", 1), ANY)
    yield of("lossless", lambda data: data.replace(b"\xff\xc0", b"\xff\xc3", 1), REFUSED)
    yield of("12 bits", lambda data: _put(data, data.index(b"\xff\xc0") + 4, b"\x0c"), REFUSED)
    yield of("255 components", lambda data: _put(data, data.index(b"\xff\xc0") + 9, b"\xff"), REFUSED)
    yield of("sampling factors of 15", lambda data: _put(data, data.index(b"\xff\xc0") + 11, b"\xff"), REFUSED)
    yield of("a million restart marks", lambda data: data[:-2000] + b"\xff\xd0" * 10**6 + b"\xff\xd9")
    yield of("two marks alone", lambda data: b"\xff\xd8\xff\xd9", REFUSED)
    yield of("no tables", lambda data: b"\xff\xd8" + data[data.index(b"\xff\xc0") :], REFUSED)
    for scans in (300, 5_000):
        yield Picture(f"JPEG of {scans} scans over 36 megapixels", partial(_scans, scans, seed), ANY, alone=True)
    yield Picture("JPEG of 4,000 scans over 0.3 megapixels", partial(_scans, 4_000, seed, (640, 480)), ANY, alone=True)


def _doubled(data: bytes, mark: bytes, times: int = 2) -> bytes:
    at = data.index(mark)
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + data[at:end] * times + data[end:]


def _scans(number: int, seed: int, size: tuple[int, int] = (6000, 6000)) -> bytes:
    """A progressive JPEG whose last scan comes again and again; each one goes over all of a large picture."""
    data = _saved("JPEG", "L", progressive=True)(rng_of(seed, "scans"))
    mark = data.index(b"\xff\xc2")
    data = _put(data, mark + 5, struct.pack(">HH", size[1], size[0]))
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * number + b"\xff\xd9"


# -- GIF ----------------------------------------


def _gifs(seed: int) -> Iterator[Picture]:
    whole = _saved("GIF", "P")(rng_of(seed, "GIF frames"))
    start = 13 + 3 * (2 << (whole[10] & 7))
    head, frame = whole[:start], whole[start:-1]
    small = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    yield Picture("GIF of 10,000 frames", lambda: head + frame + small * 10_000 + b";", GOOD)
    yield Picture("GIF of small frames on a canvas of 2^32 pixels", lambda: _canvas(whole, 65535), REFUSED)
    yield Picture("GIF of a small frame on a large canvas", lambda: _canvas(whole, 9000), ANY)
    yield Picture(
        "GIF with a frame outside", lambda: _put(whole, whole.index(b",\0\0\0\0", 13) + 1, b"\xf0\xff\xf0\xff"), ANY
    )
    yield Picture("GIF without a frame", lambda: head + b";", REFUSED)
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 4_000 + b"\0"
    yield Picture("GIF with a comment of 1 MB", lambda: head + comment + frame + b";", GOOD)
    yield Picture("GIF with 50,000 comments", lambda: head + b"!\xfe\1c\0" * 50_000 + frame + b";", GOOD)
    yield Picture("GIF with 100,000 unknown blocks", lambda: head + b"!\x42\0" * 100_000 + frame + b";", ANY)
    yield Picture(
        "GIF of LZW codes without end",
        lambda: head + b",\0\0\0\0\xa0\0\x78\0\0\x08" + (b"\xff" + b"\0" * 255) * 4000,
        ANY,
    )
    yield Picture("GIF of code size 255", lambda: head + b",\0\0\0\0\xa0\0\x78\0\0\xff\1\0\0;", REFUSED | {"uniform"})


def _canvas(gif: bytes, side: int) -> bytes:
    return _put(gif, 6, struct.pack("<HH", side, side))


# -- TIFF ----------------------------------------

_Entry = tuple[int, int, int, int]
"""(tag, type, count, value or offset)."""


def _tiff_of(entries: list[_Entry], *, behind: bytes = b"", next_at: int = 0) -> bytes:
    """A TIFF of one directory at its beginning; `behind` begins at byte 8 + 2 + 12 * entries + 4."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + struct.pack("<I", next_at) + behind


def _picture_tags(
    width: int, height: int, *, bits: int, channels: int = 1, form: int = 1, packing: int = 8
) -> list[_Entry]:
    return [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, packing),
        (262, 3, 1, 1 if channels == 1 else 2), (277, 3, 1, channels), (278, 4, 1, height), (339, 3, 1, form),
    ]  # fmt: skip


def _tiff_strip(width: int, height: int, stream: bytes, **how: int) -> bytes:
    entries = _picture_tags(width, height, **how)  # type: ignore[arg-type]
    at = 8 + 2 + 12 * (len(entries) + 2) + 4
    return _tiff_of([*entries, (273, 4, 1, at), (279, 4, 1, len(stream))], behind=stream)


def _tiffs(seed: int) -> Iterator[Picture]:
    def of(name: str, change: Callable[[bytes], bytes], verdicts: frozenset[str] = REFUSED) -> Picture:
        make = _saved("TIFF", compression="tiff_adobe_deflate")
        return Picture(f"TIFF {name}", lambda: change(make(rng_of(seed, f"TIFF {name}"))), verdicts)

    gray = _picture_tags(64, 64, bits=8, packing=1)
    yield Picture("TIFF next directory is its own", lambda: _tiff_of(gray, next_at=8, behind=bytes(4096)), ANY)
    yield Picture("TIFF directory outside", lambda: struct.pack("<2sHI", b"II", 42, 0xFFFFFFF0), REFUSED)
    yield Picture("TIFF big, directory at 2^63", lambda: struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63), REFUSED)
    yield Picture("TIFF of 65,535 entries", lambda: _tiff_of(gray * 8191), ANY)
    yield Picture("TIFF of no entries", lambda: _tiff_of([]), REFUSED)
    for tag, name in {
        258: "bits",
        273: "strips",
        279: "strip lengths",
        324: "tiles",
        320: "colors",
        34675: "profile",
    }.items():
        entry = (tag, 4, 2**32 - 1, 8)
        rest = [one for one in gray if one[0] != tag]
        yield Picture(f"TIFF of 2^32-1 {name}", partial(_tiff_of, [*rest, entry], behind=bytes(4096)), ANY)
    tiled = [*gray, (322, 4, 1, 2**31 - 16), (323, 4, 1, 2**31 - 16), (324, 4, 1, 200), (325, 4, 1, 4096)]
    yield Picture("TIFF of tiles of 2^31 pixels", lambda: _tiff_of(tiled, behind=bytes(8192)), ANY)
    tiny = [
        *_picture_tags(9000, 9000, bits=8, packing=1),
        (322, 4, 1, 1),
        (323, 4, 1, 1),
        (324, 4, 1, 8),
        (325, 4, 1, 1),
    ]
    yield Picture("TIFF of tiles of 1 pixel", lambda: _tiff_of(tiny, behind=bytes(8192)), ANY)
    yield of("65,535 samples", lambda data: with_tags(data, {277: 65535}))
    yield of("rows a strip 0", lambda data: with_tags(data, {278: 0}), ANY)
    yield of("strip far outside", lambda data: with_tags(data, {273: 0xFFFFFF00}))
    yield of("strip of 2^32-1 bytes", lambda data: with_tags(data, {279: 2**32 - 1}), ANY)
    yield of("strip at its own header", lambda data: with_tags(data, {273: 0}))
    yield of("compression 65535", lambda data: with_tags(data, {259: 65535}))
    yield of("bits 65535", lambda data: with_tags(data, {258: 65535}), ANY)
    yield of("photometric 65535", lambda data: with_tags(data, {262: 65535}), ANY)
    yield of("fax instead of deflate", lambda data: with_tags(data, {259: 4}), ANY)
    yield of("JPEG instead of deflate", lambda data: with_tags(data, {259: 7}), ANY)
    yield Picture("TIFF of 5,000 pages", lambda: _pages(5_000), ANY)
    side = 8_000
    for bits, form, name in (
        (32, 3, "float32"),
        (64, 3, "float64"),
        (64, 6, "complex64"),
        (32, 1, "uint32"),
        (32, 2, "int32"),
    ):
        stream = partial(_zeros, side * side * bits // 8)
        make = partial(_made_of_zeros, side, side, stream, bits=bits, form=form)
        yield Picture(f"TIFF of 64 megapixels of {name}", make, REFUSED | {ACCEPTED, "uniform"}, alone=True)


def _made_of_zeros(width: int, height: int, stream: Callable[[], bytes], **how: int) -> bytes:
    return _tiff_strip(width, height, stream(), **how)


def _pages(number: int) -> bytes:
    gray = [*_picture_tags(64, 64, bits=8, packing=1), (273, 4, 1, 8), (279, 4, 1, 4096)]
    length = 2 + 12 * len(gray) + 4
    table = struct.pack("<H", len(gray)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(gray))
    places = [8 + 4096 + length * page for page in range(number)]
    links = [*places[1:], 0]
    return (
        struct.pack("<2sHI", b"II", 42, places[0])
        + bytes(range(256)) * 16
        + b"".join(table + struct.pack("<I", at) for at in links)
    )


# -- formats of few rules ----------------------------------------


def _simple(seed: int) -> Iterator[Picture]:
    pixels = np.asarray(_drawn(rng_of(seed, "PPM comments"))).tobytes()
    yield Picture(
        "PPM with 4 MB of comments", lambda: b"P6\n" + b"#\n" * (2 << 20) + b"160 120\n255\n" + pixels, ANY, alone=True
    )
    yield Picture(
        "PPM with a comment of 4 MB",
        lambda: b"P6\n#" + b"c" * (4 << 20) + b"\n160 120\n255\n" + pixels,
        ANY,
        alone=True,
    )
    yield Picture(
        "PPM with 4 MB of blanks", lambda: b"P6\n" + b" " * (4 << 20) + b"160 120\n255\n" + pixels, ANY, alone=True
    )
    yield Picture(
        "PPM in letters, a comment at each number", lambda: b"P3\n900 900\n255\n" + b"1 #\n" * 600_000, ANY, alone=True
    )
    yield Picture("PPM in letters with a number of 1 MB", lambda: b"P3\n64 64\n255\n" + b"7" * (1 << 20), REFUSED)
    yield Picture("PPM of width 10^400", lambda: b"P6\n" + b"9" * 400 + b" 1\n255\n", REFUSED)
    yield Picture("PPM of width NaN", lambda: b"P6\nnan inf\n255\n" + pixels, REFUSED)
    for largest in (0, 65536, -1):
        yield Picture(f"PPM of maximum {largest}", partial(_ppm_of, largest, pixels), REFUSED)
    yield Picture("PFM of scale 0", lambda: b"Pf\n64 64\n0\n" + bytes(64 * 64 * 4), ANY)
    yield Picture("PFM of scale NaN", lambda: b"Pf\n64 64\nnan\n" + bytes(64 * 64 * 4), ANY)
    yield Picture("PFM of NaN", lambda: b"Pf\n64 64\n-1\n" + b"\0\0\xc0\x7f" * 64 * 64, ANY)
    yield Picture("PFM of infinities", lambda: b"Pf\n64 64\n-1\n" + b"\0\0\x80\x7f\0\0\x80\xff" * 32 * 64, ANY)
    yield Picture(
        "QOI of runs for 88 megapixels", lambda: _qoi_runs(HUGE_SIDE), REFUSED | {ACCEPTED, "uniform"}, alone=True
    )
    yield Picture(
        "TGA of runs for 88 megapixels", lambda: _tga_runs(HUGE_SIDE), REFUSED | {ACCEPTED, "uniform"}, alone=True
    )
    icons = b"".join(struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 60, 65558) for _ in range(4096))
    yield Picture("ICO of 4,096 entries", lambda: struct.pack("<HHH", 0, 1, 4096) + icons + bytes(200), REFUSED)
    bomb = partial(_png_of, 30_000, 30_000, stream=_zeros(1 << 20))
    yield Picture("ICO of a PNG of 900 megapixels", lambda: enc.ico([(0, bomb())]), REFUSED)
    yield Picture("BMP with 2^31 colors", lambda: _put(_saved("BMP")(rng_of(seed, "BMP")), 46, b"\0\0\0\x80"), ANY)
    yield Picture("BMP of runs that never end", _bmp_runs, ANY)
    yield Picture(
        "BMP whose pixels begin at 2^32-1", lambda: _put(_saved("BMP")(rng_of(seed, "BMP")), 10, b"\xff" * 4), ANY
    )
    yield Picture("PCX with lines of 65,535", lambda: _put(_saved("PCX")(rng_of(seed, "PCX")), 66, b"\xff\xff"), ANY)
    yield Picture("SGI with a table of runs outside", lambda: _put(_saved("SGI")(rng_of(seed, "SGI")), 2, b"\1"), ANY)


def _ppm_of(largest: int, pixels: bytes) -> bytes:
    return b"P6\n160 120\n%d\n" % largest + pixels


def _qoi_runs(side: int) -> bytes:
    return b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + b"\xfd" * (side * side // 62 + 1) + b"\0" * 7 + b"\1"


def _tga_runs(side: int) -> bytes:
    head = struct.pack("<BBBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 0, side, side, 32, 8)
    return head + b"\xffABCD" * (side * side // 128 + 1)


def _bmp_runs() -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0)
    body = head + bytes(1024) + b"\0\2\0\0" * 500_000
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 1024) + body


# -- formats of boxes ----------------------------------------


def _boxes(seed: int) -> Iterator[Picture]:
    frames = partial(_animated_webp, seed)
    yield Picture("WEBP of 300 frames", frames, GOOD)
    webp = _saved("WEBP", lossless=True)(rng_of(seed, "WEBP canvas"))
    canvas = b"VP8X" + struct.pack("<IB3x", 10, 0) + b"\xff\xff\xff" * 2
    body = b"WEBP" + canvas + webp[12:]
    yield Picture("WEBP of a canvas of 2^48 pixels", lambda: b"RIFF" + struct.pack("<I", len(body)) + body, REFUSED)
    yield Picture("WEBP of length 2^32-1", lambda: _put(webp, 4, b"\xff" * 4), REFUSED)
    yield Picture("WEBP of length 0", lambda: _put(webp, 4, b"\0" * 4), ANY)
    yield Picture("WEBP with 50,000 unknown chunks", lambda: _riff(webp[12:] + b"abcd\0\0\0\0" * 50_000), ANY)
    for form in ("AVIF", "HEIF"):
        if not has_decoder(form):
            continue
        data = FORMATS[form](rng_of(seed, f"{form} boxes"))
        meta = data.index(b"meta") - 4
        yield Picture(f"{form} box of length 1", partial(_put, data, meta, b"\0\0\0\1"), REFUSED)
        yield Picture(f"{form} box of length 0", partial(_put, data, meta, b"\0\0\0\0"), ANY)
        yield Picture(f"{form} box of length 2^32-1", partial(_put, data, meta, b"\xff" * 4), REFUSED)
        at = data.index(b"iloc")
        yield Picture(f"{form} pixels far outside", partial(_put, data, at + 12, b"\xff" * 8), ANY)
        yield Picture(f"{form} 20,000 free boxes", partial(_free_boxes, data, meta), ANY)
    stream = FORMATS["JPEG2000 stream"](rng_of(seed, "JPEG2000 tiles"))
    at = stream.index(b"\xff\x51") + 2
    yield Picture("JPEG2000 of tiles of 1 pixel", lambda: _put(stream, at + 20, struct.pack(">II", 1, 1)), ANY)
    sized = _put(stream, at + 4, struct.pack(">IIIIII", 9000, 9000, 0, 0, 1, 1))
    yield Picture("JPEG2000 of 81 million tiles", lambda: sized, ANY, alone=True)
    yield Picture("JPEG2000 of 16,384 components", lambda: _put(stream, at + 34, b"\x40\0"), REFUSED)
    if b"\xff\x52" in stream:
        levels = stream.index(b"\xff\x52") + 9
        yield Picture("JPEG2000 of 255 levels", lambda: _put(stream, levels, b"\xff"), ANY)
    large = _put(
        _put(stream, at + 4, struct.pack(">II", HUGE_SIDE, HUGE_SIDE)),
        at + 20,
        struct.pack(">II", HUGE_SIDE, HUGE_SIDE),
    )
    yield Picture("JPEG2000 of 88 megapixels in 10 kB", lambda: large, REFUSED | {ACCEPTED, "uniform"}, alone=True)
    boxed = FORMATS["JPEG2000"](rng_of(seed, "JPEG2000 boxes"))
    yield Picture("JPEG2000 box of length 0", lambda: _put(boxed, 12, b"\0\0\0\0"), ANY)
    yield Picture("JPEG2000 box of length 2", lambda: _put(boxed, 12, b"\0\0\0\2"), ANY)


def _riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _free_boxes(data: bytes, at: int) -> bytes:
    return data[:at] + b"\0\0\0\x08free" * 20_000 + data[at:]


def _animated_webp(seed: int) -> bytes:
    file, picture = io.BytesIO(), _drawn(rng_of(seed, "WEBP frames"))
    frames = [picture.point(lambda value, k=k: (value + k) % 256) for k in range(1, 12)]
    picture.save(file, "WEBP", save_all=True, append_images=frames * 27, duration=10)
    return file.getvalue()


# -- no pictures ----------------------------------------


def _no_pictures(seed: int) -> Iterator[Picture]:
    no_image, unsupported = frozenset({"not_an_image"}), frozenset({"unsupported"})
    jpeg, gif, png = (_saved(form, "P" if form == "GIF" else "RGB") for form in ("JPEG", "GIF", "PNG"))
    yield Picture("empty", lambda: b"", frozenset({"empty"}))
    for byte in (b"\0", b"\xff", b"\x89", b"G", b"B", b"P"):
        yield Picture(f"one byte {byte.hex()}", partial(bytes, byte), no_image | DAMAGED)
    for magic in (
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        b"P6\n",
        b"\0\0\0\x0cjP  ",
        b"qoif",
        b"\xff\x0a",
        b"\xff\x4f\xff\x51",
    ):
        yield Picture(f"magic alone {magic.hex()}", partial(bytes, magic), REFUSED)
    page = b"<!DOCTYPE html><script>hostile()</script>" * 50
    yield Picture("HTML", lambda: page, no_image)
    yield Picture("text", lambda: b"no picture at all, but words\n" * 99, no_image)
    yield Picture("1 MB of zeros", lambda: bytes(1 << 20), no_image)
    yield Picture("1 MB of noise", lambda: rng_of(seed, "noise").bytes(1 << 20), no_image)
    yield Picture("program", lambda: b"\x7fELF\2\1\1" + bytes(4096), no_image)
    yield Picture("script", lambda: b"#!/bin/sh\ntouch /tmp/hostile\n", no_image)
    yield Picture("pickle", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", no_image)
    yield Picture("zip", lambda: b"PK\3\4" + bytes(200), no_image)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield Picture("SVG that names a file", lambda: svg, unsupported)
    entities = (
        b"<?xml version='1.0'?><!DOCTYPE svg ["
        + b"".join(b"<!ENTITY l%d '%s'>" % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
        + b"]><svg>&l9;</svg>"
    )
    yield Picture("SVG of a billion laughs", lambda: entities, unsupported)
    yield Picture("PDF", lambda: b"%PDF-1.7\n" + bytes(300), unsupported)
    yield Picture("PostScript that writes", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(/tmp/hostile)(w)file\n", unsupported)
    yield Picture("JPEG behind a PDF", lambda: b"%PDF-1.7\n" + jpeg(rng_of(seed, "PDF")), unsupported)
    yield Picture(
        "zip behind a JPEG", lambda: jpeg(rng_of(seed, "zip")) + b"PK\3\4" + bytes(500) + b"PK\5\6" + bytes(18), GOOD
    )
    yield Picture(
        "script in the comment of a JPEG", lambda: enc.with_segment(jpeg(rng_of(seed, "c")), 0xFE, page), GOOD
    )
    yield Picture("page behind a PNG", lambda: png(rng_of(seed, "page")) + page, GOOD)
    yield Picture("page behind a GIF", lambda: gif(rng_of(seed, "gif page")) + page, GOOD)
    yield Picture("GIF that is a script", lambda: b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)//;", REFUSED)
    yield Picture("video", lambda: b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(999), unsupported)
    yield Picture("raw picture of a camera", lambda: b"FUJIFILMCCD-RAW 0201" + bytes(999), unsupported)
    yield Picture("bitmap of a word", lambda: b"BM is how this text begins, and it is no bitmap at all", no_image)


# -- as large as is allowed ----------------------------------------


def _large(seed: int) -> Iterator[Picture]:
    """Pictures within `max_pixels`, in each mode, in some kB: two at once must fit into memory."""
    some = REFUSED | {ACCEPTED, "uniform"}
    side = HUGE_SIDE
    kinds = {"gray": (8, 0), "RGB": (8, 2), "RGBA": (8, 6), "gray16": (16, 0), "RGB16": (16, 2), "RGBA16": (16, 6)}
    for name, (depth, color) in kinds.items():
        make = partial(_png_of, side, side if depth == 8 else side // 2, depth=depth, color=color)
        yield Picture(f"large PNG {name}", make, some, alone=depth == 16)
    clear = enc.chunk(b"tRNS", b"\0\0\0\0\0\0")
    yield Picture("large PNG RGB with a clear color", lambda: _png_of(side, side, before=(clear,)), some)
    for mode in ("L", "RGB", "CMYK"):
        for form in ("baseline", "progressive"):
            yield Picture(f"large JPEG {mode} {form}", partial(_large_jpeg, mode, form, side, seed), some)
    gray16 = partial(_made_of_zeros, side, side, partial(_zeros, side * side * 2), bits=16)
    yield Picture("large TIFF gray16", gray16, some, alone=True)
    yield Picture("large GIF", lambda: _large_gif(side, seed), some)


def _large_jpeg(mode: str, form: str, side: int, seed: int) -> bytes:
    data = _saved("JPEG", mode, progressive=form == "progressive")(rng_of(seed, f"large {mode}"))
    mark = data.index(b"\xff\xc2" if form == "progressive" else b"\xff\xc0")
    return _put(data, mark + 5, struct.pack(">HH", side, side))


def _large_gif(side: int, seed: int) -> bytes:
    data = _saved("GIF", "P")(rng_of(seed, "large GIF"))
    frame = data.index(b",\0\0\0\0", 13) + 5
    return _put(_put(data, 6, struct.pack("<HH", side, side)), frame, struct.pack("<HH", side, side))
