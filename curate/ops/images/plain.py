"""Whether an image costs little to decode whatever its data are, as its header and its few pieces show.

A picture that is decoded in another process costs a third of a millisecond more: nothing beside the decoding of a large
one, but a seventh of all that inspecting a small JPEG takes. Most pictures of the web are small JPEG and PNG files, by
the two decoders that the whole world uses. Of these the header bounds both memory and time, if it is a frame that every
decoder knows, few scans go over the pixels, and the file is no rain of tiny segments.
"""

MAX_PIXELS = 4 << 20
MAX_BYTES = 4 << 20
MAX_SCANS = 16
"""Start-of-scan marks in a JPEG; progressive ones have ten, and thumbnails have their own."""
MAX_SEGMENTS = 64
"""Of a JPEG in front of its first scan."""
MAX_CHUNKS = 768
"""Of a PNG; most programs write 8 KiB or more into one."""


def is_plain(data: bytes) -> bool:
    """Whether an image is a small JPEG or PNG that decodes in little time and memory, or fails to."""
    if len(data) > MAX_BYTES:
        return False
    if data.startswith(b"\xff\xd8\xff"):
        return _is_plain_jpeg(data)
    return data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") and _is_plain_png(data)


def _is_plain_jpeg(data: bytes) -> bool:
    """One frame, sequential or progressive, by Huffman codes, of 1, 3 or 4 components."""
    at, frames, pixels = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 10 > len(data):
            return False
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            return frames == 1 and 0 < pixels <= MAX_PIXELS and data.count(b"\xff\xda") <= MAX_SCANS
        if marker in (0xC0, 0xC1, 0xC2):
            frames += 1
            pixels = int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        elif not (marker in (0xC4, 0xDB, 0xDD, 0xFE) or 0xE0 <= marker <= 0xEF) or length < 2:
            return False
        at += 2 + length
    return False


def _is_plain_png(data: bytes) -> bool:
    """Whole chunks up to the end mark, and not too many of them."""
    pixels, at = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big"), 8
    if not 0 < pixels <= MAX_PIXELS:
        return False
    for _ in range(MAX_CHUNKS):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        length = int.from_bytes(data[at : at + 4], "big")
        at += 12 + length
        if at > len(data):
            return False
    return False
