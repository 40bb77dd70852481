"""Every format of pictures at every depth, whole and with faults beside the pixels: verdicts, and pixels as OpenCV has.

The files are made by the byte writers of `encoders` or, where a format needs an encoder, by Pillow and its plug-ins.
What a file must look like follows from the samples that were written. OpenCV reads the same file, where it knows the
format and the kind, and must agree; faults are put in only after that, and must change nothing.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.errors import ConfigError
from curate.ops.images.bounds import PIL_PIXELS
from curate.ops.images.decoders import has_decoder
from curate.ops.images.depth import SignificantBits
from curate.ops.images.inspect import ImageLimits, inspect_image

SIZE = (61, 47)
"""Odd, so that rows end within a byte, and end in padding."""
ANY_PICTURE = ImageLimits(min_side=1, max_aspect=1e9, min_luma_std=0, min_smoothness=-1, max_pixels=PIL_PIXELS)


def exif(orientation: int) -> bytes:
    """An EXIF block that tells an orientation."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 274, 3, 1, orientation, 0, 0)


@dataclass(frozen=True)
class Case:
    """A file, and what it is."""

    form: str
    kind: str
    data: bytes
    wanted: np.ndarray | None = None
    """(H, W, 3) uint8 that it shows; None: it is rejected."""
    reject: str | None = None
    fault: str = ""
    near: int = 1
    """Largest difference that is right; 0 where 8 bits are stored without loss."""
    bits: SignificantBits = "auto"
    opencv: bool = True
    """Whether OpenCV reads this kind rightly."""

    @property
    def name(self) -> str:
        """Format, kind and fault."""
        return " ".join(filter(None, (self.form, self.kind, self.fault)))


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: Case
    found: str
    """Empty: as it must be; else what is wrong."""
    compared: bool
    """Whether OpenCV read the file too."""

    @property
    def group(self) -> str:
        """Under what it is counted: the format, or that it is not read."""
        return self.case.form if self.case.reject is None else "not read"


def check(case: Case) -> Outcome:
    """Inspect a file as a run does, and compare verdict and pixels."""
    seen = inspect_image(case.data, ANY_PICTURE, significant_bits=case.bits)
    if seen.reject != case.reject:
        return Outcome(case, f"{seen.reject or 'accepted'} ({seen.detail}), not {case.reject or 'accepted'}", False)
    if case.wanted is None or seen.picture is None:
        return Outcome(case, "", False)
    worst = _distance(np.asarray(seen.picture), case.wanted)
    if worst > case.near:
        return Outcome(case, f"differs by {worst} of 255 from what was written", False)
    second = _read_by_opencv(case.data) if case.opencv and not case.fault else None
    if second is not None and _distance(np.asarray(seen.picture), second) > max(1, case.near):
        return Outcome(case, f"differs by {_distance(np.asarray(seen.picture), second)} of 255 from OpenCV", True)
    return Outcome(case, "", second is not None)


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found.astype(np.int64) - wanted).max())


def _read_by_opencv(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 on white, as OpenCV has it; None: it does not read the file.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    if find_spec("cv2") is None:
        raise ConfigError("OpenCV is not installed; bring it with: pip install opencv-python-headless")
    import cv2  # of the extra `dev`

    try:
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if read is None or read.dtype not in (np.uint8, np.uint16, np.float32):
        return None
    values = read.astype(np.float64) * {np.uint8: 1, np.uint16: 1 / 257, np.float32: 255}[read.dtype.type]
    if values.ndim == 2:
        values = values[:, :, None]
    colors = values[:, :, :3][:, :, ::-1] if values.shape[2] >= 3 else values[:, :, :1].repeat(3, axis=2)
    alpha = values[:, :, -1:] / 255 if values.shape[2] in (2, 4) else 1.0
    return np.rint(colors * alpha + 255 * (1 - alpha)).astype(np.uint8)


# -- pictures -----------------------------------------------------------------------------------------------------


def samples(channels: int, depth: int, *, seed: int = 0) -> np.ndarray:
    """(H, W, C) smooth samples that span 0..2**depth - 1."""
    width, height = SIZE
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [0.5 + 0.5 * np.sin(3 * across * (c + 1 + seed) + 2 * down + c) for c in range(channels)]
    waves = [(wave - wave.min()) / np.ptp(wave) for wave in waves]
    return np.rint(np.stack(waves, axis=2) * ((1 << depth) - 1)).astype(np.uint32)


def shown(values: np.ndarray, largest: int) -> np.ndarray:
    """(H, W, 3) uint8 that samples of 1 to 4 channels show: gray or RGB, a 2nd or 4th channel as alpha on white."""
    scaled = values.astype(np.float64) / largest * 255
    channels = values.shape[2]
    colors = scaled[:, :, :3] if channels >= 3 else scaled[:, :, :1].repeat(3, axis=2)
    alpha = scaled[:, :, -1:] / 255 if channels in (2, 4) else 1.0
    return np.rint(colors * alpha + 255 * (1 - alpha)).astype(np.uint8)


def palette_of(depth: int) -> np.ndarray:
    """(2**depth, 3) uint8 colors, none of them gray."""
    steps = np.arange(1 << depth) * 255 // ((1 << depth) - 1)
    return np.stack([steps, 255 - steps, steps // 2 + 40], axis=1).astype(np.uint8)


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    """A file of Pillow's."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


# -- files that are whole -----------------------------------------------------------------------------------------


def png_cases() -> Iterator[Case]:
    """Every color type at every depth, and one declared transparent color."""
    names = {1: "gray", 2: "gray+alpha", 3: "RGB", 4: "RGBA"}
    for channels, depth in [(1, d) for d in (1, 2, 4, 8, 16)] + [(c, d) for c in (2, 3, 4) for d in (8, 16)]:
        stored = samples(channels, depth)
        wanted = shown(stored, (1 << depth) - 1)
        kind = f"{names[channels]}{depth}"
        near = 0 if depth < 16 and channels in (1, 3) else 1
        yield Case("PNG", kind, enc.png(stored, depth), wanted, near=near, opencv=channels != 2)
        file = enc.png(stored, depth, interlaced=True)
        yield Case("PNG", f"{kind} interlaced", file, wanted, near=near, opencv=channels != 2)
        if channels in (1, 3):
            clear = stored[3, 5]
            note = enc.chunk(b"tRNS", clear.astype(">u2").tobytes())
            hidden = np.where((stored == clear).all(axis=2, keepdims=True), 255, wanted).astype(np.uint8)
            yield Case("PNG", f"{kind}+tRNS", enc.png(stored, depth, before=[note]), hidden, near=near, opencv=False)
    for depth in (1, 2, 4, 8):
        stored, colors = samples(1, depth), palette_of(depth)
        wanted = colors[stored[:, :, 0]]
        yield Case("PNG", f"palette{depth}", enc.png(stored, depth, palette=colors), wanted, near=0)
        note = enc.chunk(b"tRNS", b"\0")
        hidden = np.where(stored == 0, 255, wanted).astype(np.uint8)
        yield Case("PNG", f"palette{depth}+tRNS", enc.png(stored, depth, palette=colors, before=[note]), hidden, near=0)


def tiff_cases() -> Iterator[Case]:
    """Gray, palette and colors in both byte orders, plain and deflated, samples together and apart."""
    for order in "<>":
        for deflate in (False, True):
            yield from (replace(c, kind=f"{c.kind} {order}{'z' * deflate}") for c in _tiff_kinds(order, deflate))


def _tiff_kinds(order: str, deflate: bool) -> Iterator[Case]:
    def made(stored: np.ndarray, depth: int, photometric: int, **how: object) -> bytes:
        return enc.tiff(stored, depth, photometric=photometric, order=order, deflate=deflate, **how)  # type: ignore[arg-type]

    for depth in (1, 2, 4, 8, 16):
        stored, full = samples(1, depth), (1 << depth) - 1
        near = 0 if depth < 16 else 1
        known = depth in (1, 8, 16)
        yield Case("TIFF", f"gray{depth}", made(stored, depth, 1), shown(stored, full), near=near, opencv=known)
        yield Case(
            "TIFF", f"white-is-zero{depth}", made(full - stored, depth, 0), shown(stored, full), near=near, opencv=False
        )
    ramp = samples(1, 16) / np.float32(65535)
    wanted = np.rint(ramp * 255).astype(np.uint8).repeat(3, axis=2)
    yield Case("TIFF", "gray32F", made(ramp, 32, 1, sample_format=3), wanted)
    for depth in (4, 8):
        stored, colors = samples(1, depth), palette_of(depth)
        file = made(stored, depth, 3, palette=colors.astype(np.uint16) * 257)
        yield Case("TIFF", f"palette{depth}", file, colors[stored[:, :, 0]], near=0, opencv=depth == 8)
    for depth in (8, 16):
        full, near = (1 << depth) - 1, 0 if depth == 8 else 1
        stored = samples(3, depth)
        yield Case("TIFF", f"RGB{depth}", made(stored, depth, 2), shown(stored, full), near=near)
        file = made(stored, depth, 2, planar=True)
        yield Case("TIFF", f"RGB{depth} planar", file, shown(stored, full), near=near, opencv=False)
        stored = samples(4, depth)
        yield Case("TIFF", f"RGBA{depth}", made(stored, depth, 2, extra=2), shown(stored, full), opencv=False)
        yield Case("TIFF", f"RGBX{depth}", made(stored, depth, 2, extra=0), shown(stored[:, :, :3], full), opencv=False)
        inks = stored / full
        wanted = np.rint(255 * (1 - inks[:, :, :3]) * (1 - inks[:, :, 3:])).astype(np.uint8)
        yield Case("TIFF", f"CMYK{depth}", made(stored, depth, 5), wanted, near=2, opencv=False)


def wide_cases() -> Iterator[Case]:
    """16-bit samples of which 10 or 12 bits are used: as set, as declared, and never by a picture's own maximum."""
    for bits in (8, 10, 12):
        for channels in (1, 3):
            stored = samples(channels, bits)
            wanted, dark = shown(stored, (1 << bits) - 1), shown(stored, 65535)
            limit = struct.pack("<H", (1 << bits) - 1) * channels
            files = {
                "PNG": enc.png(stored, 16),
                "TIFF <": enc.tiff(stored, 16, photometric=1 if channels == 1 else 2),
                "TIFF >z": enc.tiff(stored, 16, photometric=1 if channels == 1 else 2, order=">", deflate=True),
                "PNG interlaced": enc.png(stored, 16, interlaced=True),
            }
            if channels == 3:
                files["TIFF planar"] = enc.tiff(stored, 16, photometric=2, planar=True)
                files["TIFF planar z"] = enc.tiff(stored, 16, photometric=2, planar=True, deflate=True)
            files |= {
                f"TIFF big {order}": enc.tiff(stored, 16, photometric=1 if channels == 1 else 2, order=order, big=True)
                for order in "<>"
            }
            for name, file in files.items():
                form, _, how = name.partition(" ")
                kind = f"{'gray' if channels == 1 else 'RGB'}16 of {bits} {how}".strip()
                yield Case(form, f"{kind} unsaid", file, dark, opencv=False)
                yield Case(form, f"{kind} set", file, wanted, bits=bits, opencv=False)
                yield (
                    Case(form, f"{kind} set too low", file, dark, bits=bits - 1, opencv=False)
                    if bits > 8
                    else Case(form, f"{kind} set to 16", file, dark, bits=16, opencv=False)
                )
            said = enc.png(stored, 16, before=[enc.chunk(b"sBIT", bytes([bits] * channels))])
            yield Case("PNG", f"{channels}x16 sBIT {bits}, not shifted", said, wanted, opencv=False)
            shifted = stored << (16 - bits) | stored >> max(0, 2 * bits - 16)
            said = enc.png(shifted, 16, before=[enc.chunk(b"sBIT", bytes([bits] * channels))])
            yield Case("PNG", f"{channels}x16 sBIT {bits}, shifted", said, shown(shifted, 65535), opencv=False)
            dim = (stored >> (bits - 4)) << (16 - bits)
            said = enc.png(dim, 16, before=[enc.chunk(b"sBIT", bytes([bits] * channels))])
            yield Case("PNG", f"{channels}x16 sBIT {bits}, shifted and dark", said, shown(dim, 65535), opencv=False)
            tags = [(281, 3, channels, limit)]
            said = enc.tiff(stored, 16, photometric=1 if channels == 1 else 2, tags=tags)
            yield Case("TIFF", f"{channels}x16 MaxSampleValue of {bits}", said, wanted, opencv=False)
    stored = samples(1, 12)[:, :60]
    yield Case("TIFF", "gray12", enc.tiff(stored, 12, photometric=1), shown(stored, 4095), opencv=False)


def simple_cases() -> Iterator[Case]:
    """Formats without ancillary data, by their byte writers."""
    gray, rgb, rgba = samples(1, 8), samples(3, 8), samples(4, 8)
    for depth in (1, 4, 8):
        stored, colors = samples(1, depth), palette_of(depth)
        yield Case("BMP", f"palette{depth}", enc.bmp(stored, depth, palette=colors), colors[stored[:, :, 0]], near=0)
    opaque, clear = (np.concatenate([rgb, np.full_like(gray, a)], axis=2) for a in (255, 0))
    yield Case("BMP", "BGR24", enc.bmp(rgb, 24), shown(rgb, 255), near=0)
    yield Case("BMP", "BGRX32, X 0", enc.bmp(clear, 32), shown(rgb, 255), near=0, opencv=False)
    yield Case("BMP", "BGRA32 with fields", enc.bmp(rgba, 32, fields=True), shown(rgba, 255), opencv=False)
    yield Case("BMP", "BGRA32, alpha 0", enc.bmp(clear, 32, fields=True), shown(rgb, 255), near=0, opencv=False)
    yield Case("BMP", "BGRA32, alpha 255", enc.bmp(opaque, 32, fields=True), shown(rgb, 255), near=0)
    for runs in (False, True):
        for down in (False, True):
            how = f"{' runs' * runs}{' down' * down}"
            yield Case("TGA", f"gray{how}", enc.tga(gray, runs=runs, down=down), shown(gray, 255), near=0)
            yield Case("TGA", f"BGR{how}", enc.tga(rgb, runs=runs, down=down), shown(rgb, 255), near=0)
            file = enc.tga(rgba, runs=runs, down=down, alpha_bits=8)
            yield Case("TGA", f"BGRA{how}", file, shown(rgba, 255))
    yield Case("TGA", "BGRA, no alpha bits", enc.tga(rgba), shown(rgba[:, :, :3], 255), near=0)
    yield Case("TGA", "BGRA, alpha 0", enc.tga(clear, alpha_bits=8), shown(rgb, 255), near=0)
    yield Case("PPM", "PBM", enc.ppm(samples(1, 1), 1), shown(samples(1, 1), 1), near=0)
    for bits in (8, 10, 12, 16):
        full = (1 << bits) - 1
        near = 0 if bits == 8 else 1
        known = bits in (8, 16)
        yield Case(
            "PPM", f"PGM{bits}", enc.ppm(samples(1, bits), full), shown(samples(1, bits), full), near=near, opencv=known
        )
        yield Case(
            "PPM", f"PPM{bits}", enc.ppm(samples(3, bits), full), shown(samples(3, bits), full), near=near, opencv=known
        )
    yield Case("QOI", "RGB", enc.qoi(rgb), shown(rgb, 255), near=0)
    yield Case("QOI", "RGBA", enc.qoi(rgba), shown(rgba, 255))
    yield Case("SGI", "gray8", enc.sgi(gray), shown(gray, 255), near=0)
    yield Case("SGI", "RGB8", enc.sgi(rgb), shown(rgb, 255), near=0)
    yield Case("SGI", "RGB16", enc.sgi(samples(3, 16), 16), shown(samples(3, 16), 65535))
    yield Case("PCX", "RGB8", enc.pcx(rgb), shown(rgb, 255), near=0)


def icon_cases() -> Iterator[Case]:
    """The largest picture of an icon: a bitmap with its mask, or a PNG."""
    side = 45
    rgb, gray = samples(3, 8)[:side, :side], samples(1, 8)[:side, :side]
    hidden = np.zeros((side, side), bool)
    hidden[:9, 5:] = True
    masked = np.where(hidden[:, :, None], 255, shown(rgb, 255)).astype(np.uint8)
    small = (16, enc.png(samples(3, 8, seed=3)[:16, :16], 8))
    clear = np.concatenate([rgb, np.zeros_like(gray)], axis=2)
    rgba = samples(4, 8)[:side, :side]
    none = np.zeros((side, side), bool)
    yield Case("ICO", "PNG", enc.ico([small, (side, enc.png(rgb, 8))]), shown(rgb, 255), near=0, opencv=False)
    for name, picture, mask, wanted in (
        ("BGR24 with mask", rgb, hidden, masked),
        ("BGRA32", rgba, none, shown(rgba, 255)),
        ("BGRA32, alpha 0, with mask", clear, hidden, masked),
    ):
        file = enc.ico([small, (side, enc.icon_bitmap(picture, mask))])
        yield Case("ICO", name, file, wanted, opencv=False)


def encoded_cases() -> Iterator[Case]:
    """Formats that need an encoder: Pillow's, and those of the extra; lossless where they can be."""
    rgb, rgba, gray = (samples(c, 8).astype(np.uint8) for c in (3, 4, 1))
    picture, layered, flat = Image.fromarray(rgb), Image.fromarray(rgba, "RGBA"), Image.fromarray(gray[:, :, 0])
    wanted, wanted_gray = shown(rgb, 255), shown(gray, 255)
    for name, source, seen in (("RGB", picture, wanted), ("gray", flat, wanted_gray)):
        for progressive in (False, True):
            file = saved(source, "JPEG", quality=97, subsampling=0, progressive=progressive)
            yield Case("JPEG", f"{name}{' progressive' * progressive}", file, seen, near=8)
    yield Case("JPEG", "CMYK", saved(picture.convert("CMYK"), "JPEG", quality=97), wanted, near=12, opencv=False)
    yield Case(
        "JPEG", "MPO", saved(picture, "MPO", save_all=True, append_images=[picture], quality=97), wanted, near=12
    )
    yield Case("WEBP", "RGB", saved(picture, "WEBP", lossless=True), wanted, near=0)
    yield Case("WEBP", "RGBA", saved(layered, "WEBP", lossless=True, exact=True), shown(rgba, 255))
    yield Case("GIF", "gray", saved(flat, "GIF"), wanted_gray, near=0)
    wide = samples(1, 16).astype(np.uint16)[:, :, 0]
    for bare in (False, True):
        how: dict[str, object] = {"irreversible": False, "no_jp2": bare}
        kind = " codestream" * bare
        yield Case("JPEG2000", f"RGB{kind}", saved(picture, "JPEG2000", **how), wanted, near=0)
        yield Case(
            "JPEG2000", f"gray16{kind}", saved(Image.fromarray(wide), "JPEG2000", **how), shown(wide[:, :, None], 65535)
        )
        yield Case("JPEG2000", f"RGBA{kind}", saved(layered, "JPEG2000", **how), shown(rgba, 255), opencv=False)
    if has_decoder("AVIF"):
        yield Case("AVIF", "RGB", saved(picture, "AVIF", quality=100, subsampling="4:4:4"), wanted, near=6)
        yield Case("AVIF", "RGBA", saved(layered, "AVIF", quality=100, subsampling="4:4:4"), shown(rgba, 255), near=6)
    if has_decoder("HEIF"):
        how = {"quality": -1, "matrix_coefficients": 0, "chroma": 444}
        yield Case("HEIF", "RGB", saved(picture, "HEIF", **how), wanted, opencv=False)
        yield Case("HEIF", "RGBA", saved(layered, "HEIF", **how), shown(rgba, 255), opencv=False)
        yield Case("HEIF", "gray", saved(flat, "HEIF", quality=-1), wanted_gray, opencv=False)
    if has_decoder("JXL"):
        yield Case("JXL", "RGB", saved(picture, "JXL", lossless=True), wanted, near=0, opencv=False)
        yield Case("JXL", "RGBA", saved(layered, "JXL", lossless=True), shown(rgba, 255), opencv=False)
        file = saved(Image.fromarray(wide), "JXL", lossless=True)
        yield Case("JXL", "gray16", file, shown(wide[:, :, None], 65535), opencv=False)


# -- faults that decide about no pixel ----------------------------------------------------------------------------

_BOMB = zlib.compress(bytes(1 << 22))
_GARBAGE = bytes(range(7, 250)) * 3

PNG_FAULTS: dict[str, tuple[list[bytes], list[bytes]]] = {
    "wrong checksum of a text": ([enc.chunk(b"tEXt", b"Comment\0hello", right=False)], []),
    "wrong checksum of a text behind the pixels": ([], [enc.chunk(b"tEXt", b"Comment\0hello", right=False)]),
    "wrong checksum of a profile": ([enc.chunk(b"iCCP", b"x\0\0" + _BOMB, right=False)], []),
    "text of 4 MiB in 4 KiB": ([enc.chunk(b"zTXt", b"Comment\0\0" + _BOMB)], []),
    "international text of 4 MiB": ([enc.chunk(b"iTXt", b"Comment\0\1\0\0\0" + _BOMB)], []),
    "profile of 4 MiB": ([enc.chunk(b"iCCP", b"x\0\0" + _BOMB)], []),
    "profile of garbage": ([enc.chunk(b"iCCP", b"x\0\0" + _GARBAGE)], []),
    "profile of an unknown method": ([enc.chunk(b"iCCP", b"x\0\7" + _GARBAGE)], []),
    "empty profile": ([enc.chunk(b"iCCP", b"")], []),
    "short notes": ([enc.chunk(kind, b"\1") for kind in (b"gAMA", b"cHRM", b"pHYs", b"tIME")], []),
    "empty notes": ([enc.chunk(kind, b"") for kind in (b"gAMA", b"sRGB", b"sBIT", b"bKGD", b"hIST")], []),
    "EXIF of garbage": ([enc.chunk(b"eXIf", _GARBAGE)], []),
    "EXIF with a wrong checksum": ([enc.chunk(b"eXIf", exif(6), right=False)], []),
    "texts named as Pillow's own notes": (
        [enc.chunk(b"tEXt", name + b"\0" + b"7") for name in (b"transparency", b"interlace", b"exif", b"gamma")],
        [],
    ),
    "animation of nonsense": ([enc.chunk(b"acTL", b"\0"), enc.chunk(b"fcTL", b"\xff" * 26)], [enc.chunk(b"fdAT", b"")]),
    "transparency with a wrong checksum": ([enc.chunk(b"tRNS", b"\0\0", right=False)], []),
    "private chunk of garbage": ([enc.chunk(b"vpAg", _GARBAGE)], [enc.chunk(b"prVt", _GARBAGE)]),
}
"""Chunks before and behind the pixels."""

JPEG_FAULTS = {
    "EXIF of garbage": (0xE1, b"Exif\0\0" + _GARBAGE),
    "EXIF cut": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\x40\0"),
    "XMP of garbage": (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _GARBAGE),
    "profile of garbage": (0xE2, b"ICC_PROFILE\0\1\1" + _GARBAGE),
    "profile in parts that are not there": (0xE2, b"ICC_PROFILE\0\7\3" + _GARBAGE),
    "further pictures that are not there": (0xE2, b"MPF\0II*\0\x08\0\0\0" + _GARBAGE),
    "Photoshop notes of garbage": (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff" + _GARBAGE),
    "short JFIF": (0xE0, b"JFIF\0"),
    "short Adobe mark": (0xEE, b"Adobe"),
    "comment of bytes that are no text": (0xFE, _GARBAGE),
}

TIFF_FAULTS: dict[str, list[enc.Tag]] = {
    "resolution as text": [(282, 2, 4, b"abc\0"), (283, 2, 4, b"abc\0"), (296, 3, 1, b"\3\0")],
    "profile of garbage": [(34675, 7, len(_GARBAGE), _GARBAGE)],
    "XMP of garbage": [(700, 1, len(_GARBAGE), _GARBAGE)],
    "EXIF that leads nowhere": [(34665, 4, 1, b"\xf0\xff\xff\x7f")],
    "further directories that lead nowhere": [(330, 4, 1, b"\xf0\xff\xff\x7f")],
    "text that lies behind the end": [(270, 2, 1 << 20, b"\xf0\xff\xff\x7f")],
    "value of an unknown type": [(40000, 99, 5, b"\1\2\3\4")],
    "orientation as text": [(274, 2, 4, b"abc\0")],
}


def png_faults(case: Case) -> Iterator[Case]:
    """The same picture among broken chunks."""
    pixels_at = case.data.index(b"IDAT") - 4
    end_at = len(case.data) - 12
    for fault, (before, behind) in PNG_FAULTS.items():
        parts = [case.data[:pixels_at], *before, case.data[pixels_at:end_at], *behind, case.data[end_at:]]
        yield replace(case, fault=f"with {fault}", data=b"".join(parts))


def jpeg_faults(case: Case) -> Iterator[Case]:
    """The same picture among broken segments."""
    for fault, (marker, content) in JPEG_FAULTS.items():
        yield replace(case, fault=f"with {fault}", data=enc.with_segment(case.data, marker, content))


def tiff_faults() -> Iterator[Case]:
    """Pictures among broken tags."""
    for depth in (8, 16):
        for channels in (1, 3):
            stored = samples(channels, depth)
            for deflate in (False, True):
                for fault, tags in TIFF_FAULTS.items():
                    file = enc.tiff(stored, depth, photometric=1 + (channels == 3), deflate=deflate, tags=tags)
                    kind = f"{channels}x{depth}{' deflated' * deflate}"
                    yield Case("TIFF", kind, file, shown(stored, (1 << depth) - 1), fault=f"with {fault}")


def other_faults(case: Case) -> Iterator[Case]:
    """WebP, GIF, JPEG 2000 and AVIF among broken notes."""
    data = case.data
    if case.form == "WEBP" and case.kind == "RGB":
        for kind, flag in ((b"EXIF", 8), (b"XMP ", 4), (b"ICCP", 32), (b"none", 0)):
            file = enc.with_riff_chunk(data, kind, _GARBAGE, SIZE, flag=flag)
            yield replace(case, fault=f"with {kind.decode().strip()} of garbage", data=file)
            cut = file[: -len(_GARBAGE) - 5] + struct.pack("<I", 1 << 30) + _GARBAGE + b"\0"
            yield replace(case, fault=f"with {kind.decode().strip()} that ends nowhere", data=cut)
    if case.form == "GIF":
        at = 13 + (3 << (data[10] & 7) + 1)
        for name, block in (
            ("short control block", b"!\xf9\1\0\0"),
            ("comment of garbage", b"!\xfe\5\0\1\2\3\4\0"),
            ("application without a name", b"!\xff\1x\0"),
            ("unknown extension", b"!\x99\3abc\0"),
        ):
            yield replace(case, fault=f"with a {name}", data=data[:at] + block + data[at:])
    if case.form == "JPEG2000" and "codestream" not in case.kind:
        at = data.index(b"jp2c") - 4
        for kind in (b"xml ", b"uuid", b"jp2i", b"res "):
            box = struct.pack(">I4s", 8 + len(_GARBAGE), kind) + _GARBAGE
            yield replace(
                case, fault=f"with a {kind.decode().strip()} box of garbage", data=data[:at] + box + data[at:]
            )
    if case.form in ("AVIF", "HEIF", "JXL") and case.kind == "RGB":
        rgb = Image.fromarray(samples(3, 8).astype(np.uint8))
        options: dict[str, dict[str, object]] = {
            "AVIF": {"quality": 100, "subsampling": "4:4:4"},
            "HEIF": {"quality": -1, "matrix_coefficients": 0, "chroma": 444},
            "JXL": {"lossless": True, "use_container": True},
        }
        marked = saved(rgb, case.form, exif=b"Exif\0\0" + exif(1), **options[case.form])
        yield replace(case, fault="with EXIF of garbage", data=marked.replace(b"II*\0\x08", b"XX\0\0\xff"))


# -- files that are not read --------------------------------------------------------------------------------------


def refused_cases() -> Iterator[Case]:
    """Known formats and kinds that are not read, and files that are no pictures."""
    for name, head in REFUSED_HEADS.items():
        yield Case(name, "", head + bytes(200), reject="unsupported")
    stored = samples(3, 8)
    yield from _refused_tiffs(stored)
    inside = enc.bmp(stored, 24).replace(b"\x18\0\0\0\0\0", b"\x18\0\4\0\0\0", 1)
    yield Case("BMP", "JPEG inside", inside, reject="unsupported")
    yield Case("DIB", "", enc.bmp(stored, 24)[14:], reject="unsupported")
    jpeg = saved(Image.fromarray(stored.astype(np.uint8)), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    yield Case("JPEG", "lossless", jpeg[:at] + b"\xff\xc3" + jpeg[at + 2 :], reject="unsupported")
    yield Case("JPEG", "12 bits", jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :], reject="unsupported")
    for text in (b"<html>gone</html>", b"P3 is a model", b"BMW makes cars", b"\0" * 400, _GARBAGE, b"\x50\x4b\3\4zip"):
        yield Case("text or data", repr(text[:8]), text, reject="not_an_image")


REFUSED_HEADS = {
    "PSD": b"8BPS\0\1",
    "PDF": b"%PDF-1.7\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "WMF": b"\xd7\xcd\xc6\x9a\0\0",
    "EMF": b"\1\0\0\0" + bytes(36) + b" EMF",
    "DDS": b"DDS \x7c\0\0\0",
    "FITS": b"SIMPLE  =                    T",
    "DICOM": bytes(128) + b"DICM",
    "OpenEXR": b"v/1\x01\2\0\0\0",
    "Radiance": b"#?RADIANCE\n",
    "FLIF": b"FLIF",
    "BPG": b"BPG\xfb",
    "MP4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "QuickTime": b"\0\0\0\x14ftypqt  \0\0\2\0qt  ",
    "WebM": b"\x1aE\xdf\xa3\x01\0\0\0",
    "AVI": b"RIFF\xff\0\0\0AVI LIST",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "ORF": b"IIRO\x08\0\0\0",
    "RW2": b"IIU\0\x18\0\0\0",
    "RAF": b"FUJIFILMCCD-RAW 0201",
    "JPEG XR": b"II\xbc\x01\x08\0\0\0",
    "color PFM": b"PF\n8 8\n-1.0\n",
}
"""First bytes of formats that are known by name only."""


def _refused_tiffs(stored: np.ndarray) -> Iterator[Case]:
    """Camera raw, and kinds of TIFF that no decoder here reads."""
    gray = stored[:, :, :1]
    far = 100_000
    mosaic = struct.pack("<H", 1) + struct.pack("<HHIHH", 262, 3, 1, 32803, 0) + bytes(4)
    preview = enc.tiff(stored, 8, photometric=2, tags=[(330, 4, 1, struct.pack("<I", far))])
    plain = enc.tiff(stored, 8, photometric=2)
    known, unknown = (struct.pack("<HHIHH", 259, 3, 1, number, 0) for number in (1, 34712))
    for fault, file in (
        ("raw: DNG", enc.tiff(gray, 16, photometric=1, tags=[(50706, 1, 4, b"\1\4\0\0")])),
        ("raw: filter array", enc.tiff(gray, 16, photometric=32803)),
        ("raw: thumbnail before a filter array", preview.ljust(far, b"\0") + mosaic),
        ("5 samples", enc.tiff(np.concatenate([stored, stored[:, :, :2]], axis=2), 16, photometric=1)),
        ("RGB32F", enc.tiff(stored / 255, 32, photometric=2, sample_format=3)),
        ("unknown compression", plain.replace(known, unknown)),
    ):
        yield Case("TIFF", fault, file, reject="unsupported")


WHOLE: tuple[Callable[[], Iterator[Case]], ...] = (
    png_cases,
    tiff_cases,
    wide_cases,
    simple_cases,
    icon_cases,
    encoded_cases,
    refused_cases,
)


def cases() -> Iterator[Case]:
    """The whole matrix."""
    for make in WHOLE:
        for case in make():
            yield case
            if case.form == "PNG" and make is png_cases and "tRNS" not in case.kind and "interlaced" not in case.kind:
                yield from png_faults(case)
            elif case.form == "JPEG" and case.reject is None:
                yield from jpeg_faults(case)
            elif make is encoded_cases:
                yield from other_faults(case)
    yield from tiff_faults()


def bench_formats() -> tuple[list[Figure], list[str]]:
    """The matrix in figures, and what was wrong."""
    outcomes = [check(case) for case in cases()]
    total = Counter(o.group for o in outcomes)
    right = Counter(o.group for o in outcomes if not o.found)
    second = Counter(o.group for o in outcomes if o.compared)
    figures = [
        Figure(form, right[form], "right", "files", total[form], note=f"{second[form]} compared with OpenCV")
        for form in total
    ]
    missing = [form for form in ("AVIF", "HEIF", "JXL") if not has_decoder(form)]
    wrong = [f"{o.case.name}: {o.found}" for o in outcomes if o.found]
    return figures, wrong + [f"{form}: left out, its decoder is not installed" for form in missing]


def command(json: Json = False) -> None:
    """Formats x depths x faults beside the pixels: right verdicts and pixels, and OpenCV as a second reader."""
    figures, wrong = bench_formats()
    show(figures, json)
    for line in [] if json else wrong:
        print(line)
