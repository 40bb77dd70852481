"""Byte writers of image files, plain and with faults in what decides no pixel; they ask no decoder under test.

Samples are (H, W, C) arrays of unsigned numbers; C is 1 (gray or index), 2 (gray, alpha), 3 (RGB) or 4 (RGBA, CMYK).
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

PNG_COLOR = {1: 0, 2: 4, 3: 2, 4: 6}
"""Color type by number of samples."""


def packed(samples: np.ndarray, depth: int, *, pad: int = 1) -> list[bytes]:
    """Rows as bytes, first row first; samples of `depth` bits, big-endian, rows padded to `pad` bytes."""
    rows = []
    for row in samples.reshape(len(samples), -1):
        if depth >= 8:
            data = row.astype(f">u{depth // 8}").tobytes() if depth in (8, 16, 32) else _pack_bits(row, depth)
        else:
            data = _pack_bits(row, depth)
        rows.append(data + bytes(-len(data) % pad))
    return rows


def _pack_bits(row: np.ndarray, depth: int) -> bytes:
    bits = (row[:, None].astype(np.uint32) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def chunk(kind: bytes, content: bytes, *, right: bool = True) -> bytes:
    """A chunk of PNG; not `right`: with a wrong checksum."""
    crc = zlib.crc32(kind + content) ^ (0 if right else 0xDEAD)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(
    samples: np.ndarray,
    depth: int,
    *,
    palette: np.ndarray | None = None,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG; its rows are unfiltered and filtered by Sub and Up in turn.

    Args:
        interlaced: by Adam7.
        palette: (N, 3) uint8; samples are then indices.
        before: chunks between header (and palette) and pixels.
        after: chunks behind the pixels.
    """
    height, width, channels = samples.shape
    color = 3 if palette is not None else PNG_COLOR[channels]
    step = max(1, depth * channels // 8)
    passes = [samples[y::down, x::across] for x, y, across, down in ADAM7] if interlaced else [samples]
    filtered = [_filtered(packed(one, depth), step) for one in passes if one.size]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    table = [] if palette is None else [chunk(b"PLTE", palette.astype(np.uint8).tobytes())]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(filtered), 1))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *table, *before, pixels, *after, chunk(b"IEND", b"")]
    return b"".join(parts)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps between its columns and rows."""


def _filtered(rows: list[bytes], step: int) -> bytes:
    filtered, above = b"", bytes(len(rows[0]))
    for number, row in enumerate(rows):
        base = (bytes(len(row)), bytes(step) + row[:-step], above)[number % 3]
        delta = (np.frombuffer(row, np.uint8) - np.frombuffer(base[: len(row)], np.uint8)).tobytes()
        filtered, above = filtered + bytes([number % 3]) + delta, row
    return filtered


Tag = tuple[int, int, int, bytes]
"""(tag, type, count, value): the bytes of the value as the file has them."""


def tiff(
    samples: np.ndarray,
    depth: int,
    *,
    photometric: int,
    order: str = "<",
    sample_format: int = 1,
    planar: bool = False,
    deflate: bool = False,
    big: bool = False,
    palette: np.ndarray | None = None,
    extra: int | None = None,
    tags: Sequence[Tag] = (),
) -> bytes:
    """A TIFF of one strip (planar: one for each sample), as BigTIFF where `big`.

    Args:
        depth: bits of a sample; 32 with `sample_format` 3 is float32.
        order: `<` or `>`.
        palette: (2**depth, 3) uint16.
        extra: what the last sample is: 0 nothing, 1 premultiplied alpha, 2 alpha.
        tags: further tags, also broken ones, which go as they are.
    """
    height, width, channels = samples.shape
    planes = [samples[:, :, c : c + 1] for c in range(channels)] if planar else [samples]
    strips = []
    for plane in planes:
        if sample_format == 3:
            strip = plane.astype(f"{order}f4").tobytes()
        elif depth in (16, 32):
            strip = plane.astype(f"{order}{'i' if sample_format == 2 else 'u'}{depth // 8}").tobytes()
        else:
            strip = b"".join(packed(plane, depth))
        strips.append(zlib.compress(strip, 1) if deflate else strip)
    body, starts, begin = b"", [], 16 if big else 8
    for strip in strips:
        starts.append(begin + len(body))
        body += strip + bytes(len(strip) % 2)
    entries: list[Tag] = [
        _shorts(order, 256, [width]),
        _shorts(order, 257, [height]),
        _shorts(order, 258, [depth] * channels),
        _shorts(order, 259, [8 if deflate else 1]),
        _shorts(order, 262, [photometric]),
        _longs(order, 273, starts),
        _shorts(order, 277, [channels]),
        _shorts(order, 278, [height]),
        _longs(order, 279, [len(strip) for strip in strips]),
        _shorts(order, 284, [2 if planar else 1]),
        _shorts(order, 339, [sample_format] * channels),
    ]
    if palette is not None:
        entries.append(_shorts(order, 320, palette.T.ravel().tolist()))
    if extra is not None:
        entries.append(_shorts(order, 338, [extra]))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + ("HHQ" if big else "I"), *([8, 0] if big else []), begin + len(body))
    return head + body + _directory(order, [*entries, *tags], begin + len(body), big=big)


def _shorts(order: str, tag: int, values: Sequence[int]) -> Tag:
    return tag, 3, len(values), struct.pack(f"{order}{len(values)}H", *values)


def _longs(order: str, tag: int, values: Sequence[int]) -> Tag:
    return tag, 4, len(values), struct.pack(f"{order}{len(values)}I", *values)


def _directory(order: str, entries: Sequence[Tag], at: int, *, big: bool) -> bytes:
    number, pointer, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    table, behind = b"", b""
    free = at + struct.calcsize(order + number) + (4 + 2 * room) * len(entries) + room
    for tag, kind, count, value in sorted(entries):
        if len(value) > room:
            stored, behind = struct.pack(order + pointer, free + len(behind)), behind + value + bytes(len(value) % 2)
        else:
            stored = value.ljust(room, b"\0")
        table += struct.pack(order + "HH" + pointer, tag, kind, count) + stored
    return struct.pack(order + number, len(entries)) + table + bytes(room) + behind


def bmp(samples: np.ndarray, bits: int, *, palette: np.ndarray | None = None, fields: bool = False) -> bytes:
    """A bitmap; 32 bits: BGRA, and with `fields` a header that says so (BITMAPV4HEADER)."""
    height, width, channels = samples.shape
    if bits >= 24:
        turned = samples[:, :, [2, 1, 0, 3][:channels]]
        rows = packed(turned, 8, pad=4)
    else:
        rows = packed(samples, bits, pad=4)
    pixels = b"".join(reversed(rows))
    table = b"" if palette is None else np.pad(palette[:, ::-1].astype(np.uint8), ((0, 0), (0, 1))).tobytes()
    size = 108 if fields else 40
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, 3 if fields else 0, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(68, b"\0") if fields else b""
    start = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + table + pixels


def tga(samples: np.ndarray, *, runs: bool = False, alpha_bits: int = 0, down: bool = False) -> bytes:
    """A TGA of gray, BGR or BGRA, plain or run-length encoded, the last row first or (`down`) the first one."""
    height, width, channels = samples.shape
    kind = (3 if channels == 1 else 2) + (8 if runs else 0)
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, width, height, 8 * channels, alpha_bits | down << 5)
    stored = samples[:, :, [2, 1, 0, 3][:channels]] if channels > 1 else samples
    rows = stored if down else stored[::-1]
    if not runs:
        return head + rows.astype(np.uint8).tobytes()
    return head + b"".join(_tga_packets(row) for row in rows.astype(np.uint8))


def _tga_packets(row: np.ndarray) -> bytes:
    found, at = b"", 0
    while at < len(row):
        run = 1
        while at + run < len(row) and run < 128 and (row[at + run] == row[at]).all():
            run += 1
        found += bytes([127 + run] if run > 1 else [0]) + row[at].tobytes()
        at += run
    return found


def ico(pictures: Sequence[tuple[int, bytes]]) -> bytes:
    """An icon of (side, PNG or `icon_bitmap`) pictures."""
    at, table, body = 6 + 16 * len(pictures), b"", b""
    for side, data in pictures:
        table += struct.pack("<BBBBHHII", side % 256, side % 256, 0, 0, 1, 32, len(data), at + len(body))
        body += data
    return struct.pack("<HHH", 0, 1, len(pictures)) + table + body


def icon_bitmap(samples: np.ndarray, hidden: np.ndarray) -> bytes:
    """A picture of an icon: a bitmap of 24 or 32 bits without its file header, and the mask of what is `hidden`."""
    bitmap = bytearray(bmp(samples, 8 * samples.shape[2])[14:])
    bitmap[8:12] = struct.pack("<i", 2 * len(samples))
    return bytes(bitmap) + b"".join(reversed(packed(hidden[:, :, None].astype(np.uint8), 1, pad=4)))


def qoi(samples: np.ndarray) -> bytes:
    """A QOI of RGB or RGBA, every pixel as it stands."""
    height, width, channels = samples.shape
    op = np.full((height * width, 1), 0xFE if channels == 3 else 0xFF, np.uint8)
    pixels = np.concatenate([op, samples.reshape(-1, channels).astype(np.uint8)], axis=1)
    return b"qoif" + struct.pack(">IIBB", width, height, channels, 0) + pixels.tobytes() + b"\0" * 7 + b"\1"


def ppm(samples: np.ndarray, largest: int) -> bytes:
    """A binary PGM or PPM whose samples go to `largest`; 1: a PBM, in which ones are black."""
    height, width, channels = samples.shape
    if largest == 1:
        return b"P4\n%d %d\n" % (width, height) + b"".join(packed(1 - samples, 1))
    head = b"P%d\n# made here\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, largest)
    return head + b"".join(packed(samples, 16 if largest > 255 else 8))


def sgi(samples: np.ndarray, depth: int = 8) -> bytes:
    """An SGI picture, not compressed."""
    height, width, channels = samples.shape
    head = struct.pack(">HBBHHHHII", 474, 0, depth // 8, 2 if channels == 1 else 3, width, height, channels, 0, 255)
    planes = [b"".join(reversed(packed(samples[:, :, c : c + 1], depth))) for c in range(channels)]
    return head.ljust(512, b"\0") + b"".join(planes)


def pcx(samples: np.ndarray) -> bytes:
    """A PCX of gray-free RGB: three planes a row, run-length encoded without runs."""
    height, width, channels = samples.shape
    line = width + width % 2
    head = struct.pack("<BBBBHHHHHH", 10, 5, 1, 8, 0, 0, width - 1, height - 1, 72, 72)
    head = head.ljust(64, b"\0") + struct.pack("<BBHH", 0, channels, line, 1)
    padded = np.pad(samples, ((0, 0), (0, line - width), (0, 0))).transpose(0, 2, 1).astype(np.uint8)
    values = padded.ravel()
    doubled = np.stack([np.full_like(values, 0xC1), values], axis=1)
    return head.ljust(128, b"\0") + doubled[np.stack([values >= 0xC0, np.ones(len(values), bool)], axis=1)].tobytes()


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with a further segment behind its first mark."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def with_riff_chunk(webp: bytes, kind: bytes, content: bytes, size: tuple[int, int], *, flag: int) -> bytes:
    """A WebP of one picture with a further chunk behind it, and the header that this needs."""
    head = struct.pack("<4sIB3x", b"VP8X", 10, flag)
    head += (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    last = struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)
    body = b"WEBP" + head + webp[12:] + last
    return b"RIFF" + struct.pack("<I", len(body)) + body
