"""Headers of an archive on an object store, read without the members between them.

An archive has no table of contents: each header tells where the next one lies, so finding the members of a gigabyte
means to read it, or to ask for ten thousand small ranges one after the other. What is better depends on the members,
and the headers tell: where they are small, all bytes are fetched in large blocks, and most of those would have been
fetched anyway; where they are large, ranges just long enough for the headers and small members that follow each other.
"""

from typing import Any

STREAM_BYTES = 32 << 10
"""Mean bytes of members below which all bytes are fetched."""
RECENT = 16
"""Members that this mean is about."""
BLOCK_BYTES = 1 << 20
"""Bytes that are then fetched at once."""
LEAST_BYTES, MOST_BYTES = 1 << 10, 64 << 10
"""Bytes of a range for headers: it grows where it did not reach, and shrinks to what was read of the last ones."""


class HeaderFile:
    """A file for reading forwards, of which most is jumped over."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._place = self._first = self._end = 0
        self._held = b""
        """The bytes from `_first` on."""
        self._range = LEAST_BYTES
        self._jumps, self._mean = 0, 0.0
        """Of the bytes that were jumped over; recent jumps count more."""

    def read(self, size: int) -> bytes:
        """As of a file; no more than what is left."""
        start = self._place
        if start > self._end:
            self._jumps += 1
            self._mean += (start - self._end - self._mean) / min(self._jumps, RECENT)
        if not self._first <= start <= start + size <= self._first + len(self._held):
            self._fetch(start, size)
        data = self._held[start - self._first : start - self._first + size]
        self._place = self._end = start + len(data)
        return data

    def _fetch(self, start: int, size: int) -> None:
        used, behind = self._end - self._first, start - (self._first + len(self._held))
        if self._held and 0 <= behind < self._range:  # it did not reach
            self._range = min(MOST_BYTES, 2 * self._range)
        elif self._held:
            self._range = min(MOST_BYTES, max(LEAST_BYTES, used, self._range - (self._range >> 3)))
        wanted = BLOCK_BYTES if self._mean < STREAM_BYTES and self._held else self._range
        self._file.seek(start)
        self._first, self._held = start, self._file.read(max(size, wanted))

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = self._file.seek(0, 2) + place if whence == 2 else place + (self._place if whence == 1 else 0)
        return self._place

    def tell(self) -> int:
        return self._place
