"""Pictures and encoded bytes that the tests of this folder share."""

import io
import re
import struct
import zlib
from importlib import resources

import numpy as np
from PIL import Image

from curate.ops.images.inspect import ImageLimits

LIMITS = ImageLimits()


def photo_bytes(name="birds/heron.jpg"):
    return resources.files("curate").joinpath("samples/photos", name).read_bytes()


def photo(name="birds/heron.jpg"):
    return Image.open(io.BytesIO(photo_bytes(name))).convert("RGB")


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(image):
    return np.asarray(image).astype(np.int64)


def gradient(size=(96, 64)):
    """Smooth, colourful, unlike its mirror images."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 200, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def scan_bomb(scans: int = 150_000, side: int = 2000) -> bytes:
    """A progressive JPEG of one color, of which one scan of a few bytes comes again and again."""
    data = encode(Image.new("RGB", (side, side), "teal"), "JPEG", progressive=True)
    found = re.finditer(rb"\xff\xda(?:[^\xff]|\xff\0)*", data)
    scan = min((match for match in found), key=lambda match: len(match[0]))
    return data[: scan.start()] + scan[0] * scans + data[scan.start() :]


def comment_bomb(size: int = 20 << 20) -> bytes:
    """A PPM file with a comment that Pillow reads letter by letter."""
    return b"P6\n#" + b"x" * size + b"\n2 2 255\n" + bytes(12)
