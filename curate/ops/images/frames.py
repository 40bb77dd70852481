"""Number of frames of an animation, read from the structure of the file: no frame is decoded."""

import struct
from collections.abc import Iterator

from curate.ops.images.formats import sniff

MAX_DEPTH = 8
"""Boxes of ISO files that lie within each other."""
_HOLDS_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def count_frames(data: bytes) -> int:
    """Frames of a GIF, PNG (APNG), WebP or AVIF; 1 of all other formats, and where the structure is not understood.

    Pages of a TIFF and further pictures of an MPO are no frames.
    """
    match sniff(data):
        case "GIF":
            return max(1, _gif_frames(data))
        case "PNG":
            return max(1, _png_frames(data))
        case "WEBP":
            return max(1, sum(kind == b"ANMF" for kind in _riff_chunks(data)))
        case "AVIF":
            return max(1, *_sample_counts(data, 0, len(data), MAX_DEPTH), 0)
    return 1


def _gif_frames(data: bytes) -> int:
    """Image descriptors; extensions between them are passed over."""
    frames, at = 0, 13
    if len(data) < at:
        return 0
    at += _color_table(data[10])
    while at + 1 < len(data) and data[at] in b"!,":
        if data[at] == 0x2C:
            if at + 10 > len(data):
                break
            frames += 1
            at += 11 + _color_table(data[at + 9])  # the descriptor, its color table, the least size of a code
        else:
            at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return frames


def _color_table(flags: int) -> int:
    """Bytes of the color table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png_frames(data: bytes) -> int:
    """What the animation control chunk says, which stands in front of the pixels."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL" and at + 12 <= len(data):
            return int.from_bytes(data[at + 8 : at + 12], "big")
        if kind == b"IDAT":
            break
        at += 12 + length
    return 1


def _riff_chunks(data: bytes) -> Iterator[bytes]:
    """Kinds of the chunks of a WebP."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind
        at += 8 + length + length % 2


def _sample_counts(data: bytes, at: int, end: int, depth: int) -> Iterator[int]:
    """Samples of each track of an ISO file: its table of sizes (`stsz`) counts them."""
    while at + 8 <= end and depth:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        stop = end if length == 0 else at + length
        if stop < at + head or stop > end:
            return
        if kind == b"stsz" and at + head + 12 <= stop:
            yield int.from_bytes(data[at + head + 8 : at + head + 12], "big")
        if kind in _HOLDS_BOXES:
            yield from _sample_counts(data, at + head, stop, depth - 1)
        at = stop
