"""Formats of pictures by the first bytes of a file: those that are read, and those that are known by name only.

This is the one list of formats. From it follow what Pillow is allowed to open, which suffixes announce an image, which
files count as images in spite of their suffix, and what the reject of a file that is not read says. The content alone
decides the format; a name is looked at only while a folder is listed.

Each decoder is one more way in for a hostile file. So the formats that start programs (EPS, WMF), those that no crawl
holds and those whose decoders set no bounds stay closed, and are told as `unsupported` with their name.
"""

import re
from typing import NamedTuple


class Format(NamedTuple):
    """A format whose pictures are read."""

    suffixes: tuple[str, ...]
    """Suffixes that announce it."""
    extra: str | None = None
    """The extra of this package that brings its decoder; None: Pillow has it."""


EXTRA = "formats"
"""The extra that brings the decoders of HEIC and JPEG XL."""

READ = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    "PNG": Format((".png", ".apng")),
    "WEBP": Format((".webp",)),
    "GIF": Format((".gif",)),
    "BMP": Format((".bmp", ".dib")),
    "TIFF": Format((".tif", ".tiff")),
    "PPM": Format((".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    "JPEG2000": Format((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
    "TGA": Format((".tga",)),
    "ICO": Format((".ico", ".cur")),
    "PCX": Format((".pcx",)),
    "SGI": Format((".sgi", ".rgb", ".rgba", ".bw")),
    "QOI": Format((".qoi",)),
    "AVIF": Format((".avif", ".avifs")),
    "HEIF": Format((".heic", ".heif", ".hif", ".heics", ".heifs"), EXTRA),
    "JXL": Format((".jxl",), EXTRA),
}
"""What is read, by the name that the column `format` has."""

SUFFIXES = frozenset(suffix for form in READ.values() for suffix in form.suffixes)
"""Suffixes that announce an image."""

HEAD_BYTES = 64
"""Bytes from the beginning of a file that `begins_as_image` looks at."""

_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"MM*\0", "TIFF"),
    (b"II\0*", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"qoif", "QOI"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"8BPS", "PSD (Photoshop)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"DDS ", "DDS"),
    (b"SIMPLE  =", "FITS"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"gimp xcf", "XCF (GIMP)"),
    (b"icns", "ICNS"),
    (b"AT&TFORM", "DjVu"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM in color"),
    (b"\x8aMNG", "MNG"),
    (b"\x8bJNG", "JNG"),
    (b"\x97JB2", "JBIG2"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"/* XPM */", "XPM"),
    (b"NRRD000", "NRRD"),
    (b"IIRO", "raw picture of a camera (ORF)"),
    (b"IIRS", "raw picture of a camera (ORF)"),
    (b"MMOR", "raw picture of a camera (ORF)"),
    (b"IIU\0", "raw picture of a camera (RW2)"),
    (b"FUJIFILMCCD-RAW", "raw picture of a camera (RAF)"),
    (b"FOVb", "raw picture of a camera (X3F)"),
    (b"\0MRM", "raw picture of a camera (MRW)"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"\0\0\x01\xba", "MPEG video"),
    (b"\0\0\x01\xb3", "MPEG video"),
    (b"FLV\x01", "FLV video"),
)
"""First bytes of the formats that are told by them alone; see `sniff` for the others."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_DIB_DEPTHS = {bytes([depth, 0]) for depth in (1, 4, 8, 16, 24, 32)}
_PPM = re.compile(rb"P[1-6f]\s+(?:#|\d|$)")
_SVG = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE\s+svg|<(?:\w+:)?svg)", re.IGNORECASE)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes of a file claim.

    Returns:
        A key of `READ`, else the name of a format that is not read; None: no known one.
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "AVI video"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:2] == b"BM":  # two letters also begin words: the header's own length tells
        return "BMP" if int.from_bytes(data[14:18], "little") in _BMP_HEADERS else None
    if _PPM.match(data):
        return "PPM"
    known = next((name for magic, name in _MAGIC if data.startswith(magic)), None)
    return known or _by_structure(data)


def begins_as_image(head: bytes) -> bool:
    """Whether the first HEAD_BYTES bytes of a file are those of a picture that is read.

    A file whose suffix says something else is asked, so letters that may begin a text do not suffice: PPM and TGA do
    not count here.
    """
    known = sniff(head)
    if known in ("PPM", "TGA") or known not in READ:
        return False
    if known == "BMP":
        return head[6:10] == b"\0\0\0\0"  # the reserved fields
    return known != "JPEG" or head[2:3] == b"\xff"


def _iso_media(data: bytes) -> str:
    """What a file of ISO boxes is, by its brands: the major one first, then those it is compatible with."""
    end = min(max(int.from_bytes(data[:4], "big"), 16), 256)
    major, brands = data[8:12], [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    if major == b"crx ":
        return "raw picture of a camera (CR3)"
    if major in _HEIF_BRANDS:
        return "HEIF"
    if major in (b"avif", b"avis"):
        return "AVIF"
    if major in (b"mif1", b"msf1", b"miaf"):  # a picture of whatever codec
        return "HEIF" if _HEIF_BRANDS & set(brands) or not {b"avif", b"avis"} & set(brands) else "AVIF"
    return "MP4 or other ISO video"


def _by_structure(data: bytes) -> str | None:
    """Formats without a telling magic number, by fields that must agree."""
    if _is_icon(data):
        return "ICO"
    if data[:2] == b"\x01\xda" and data[2:3] in (b"\0", b"\1") and data[3:4] in (b"\1", b"\2") and data[4:5] == b"\0":
        return "SGI"
    if data[:1] == b"\n" and data[1:2] in b"\0\2\3\4\5" and data[2:3] == b"\1" and data[3:4] in b"\1\2\4\x08":
        return "PCX" if len(data) > 66 or len(data) == HEAD_BYTES else None
    if data[40:44] == b" EMF" and data[:4] == b"\1\0\0\0":
        return "EMF"
    if data[:4] == b"(\0\0\0" and data[12:14] == b"\1\0" and data[14:16] in _DIB_DEPTHS:
        return "DIB, a bitmap without its file header"
    if data[128:132] == b"DICM":
        return "DICOM"
    if _SVG.match(data) and re.search(rb"<(?:\w+:)?svg[\s>]", data[:4096], re.IGNORECASE):
        return "SVG"
    return "TGA" if _is_targa(data) else None


def _is_icon(data: bytes) -> bool:
    """Icons and cursors: reserved zeros, type 1 or 2, and a first entry that is possible."""
    if data[:2] != b"\0\0" or data[2:4] not in (b"\1\0", b"\2\0") or len(data) < 22:
        return False
    count, offset = int.from_bytes(data[4:6], "little"), int.from_bytes(data[18:22], "little")
    return 0 < count <= 4096 and data[9] == 0 and offset >= 6 + 16 * count


def _is_targa(data: bytes) -> bool:
    """TGA has no magic number at its beginning: every field of its header must be one that programs write."""
    if len(data) < 18:
        return False
    has_map, kind, depth, descriptor = data[1], data[2], data[16], data[17]
    width, height = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    if not width or not height or descriptor & 0xC0:
        return False
    if kind in (1, 9):
        return has_map == 1 and data[7] in (15, 16, 24, 32) and data[5:7] != b"\0\0" and depth == 8
    if has_map or any(data[3:8]):
        return False
    depths = {2: (15, 16, 24, 32), 10: (15, 16, 24, 32), 3: (8, 16), 11: (8, 16)}
    return depth in depths.get(kind, ()) and descriptor & 15 in (0, 1, 8)
