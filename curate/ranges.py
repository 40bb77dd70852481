"""Files of object stores, read by ranges: the bytes that are wanted, in few requests, and hardly any others.

A request to an object store costs as much time as a megabyte or more, and each has its price, so neighbors are fetched
together. But files of fsspec read ahead by blocks of a fixed size, up to 50 MB, whoever asks for what: a thumbnail in
an archive costs as much as a thousand, and each opening asks for the length first. What is read here is known better:

    Parquet      the end of the file in one request, which needs no length; small files are in it as a whole. Then
                 ranges of column chunks, which Arrow puts together (`pre_buffer`)
    archives     the places of the wanted members are known from the catalog: `plan_blocks` puts neighbors together
    others       a whole file in one request, see `curate.filesystems.read_object`
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from curate.counting import note

BLOCK_BYTES = 8 << 20
"""Bytes that are fetched together at most, unless one range alone is longer."""
HOLE_BYTES = 16 << 10
"""Unwanted bytes that a block may hold in any case."""
HOLE_SHARE = 1 / 8
"""Unwanted bytes that a block may hold, as a share of the wanted ones."""

Span = tuple[int, int]
"""First byte of a range, and the one behind its last."""


def plan_blocks(spans: Iterable[Span]) -> list[Span]:
    """Ranges that cover the spans, few of them and with few bytes between.

    Args:
        spans: in any order; they may overlap.
    """
    blocks: list[Span] = []
    wanted = 0
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        first, last = blocks[-1] if blocks else (start, start)
        new = max(0, stop - max(start, last))
        if blocks and not new:
            continue
        holes = max(start, last) - first - wanted
        if blocks and stop - first <= BLOCK_BYTES and holes <= max(HOLE_BYTES, wanted * HOLE_SHARE):
            blocks[-1] = (first, stop)
            wanted += new
        else:
            blocks.append((max(start, last), stop))
            wanted = new
    return blocks


class RangeFile:
    """A file of an object store for reading; what is read twice is fetched twice, but for the newest block and the end.

    Nothing is asked for before the first read, so that a file that is not there is found out then.
    """

    closed = False

    def __init__(self, filesystem: Any, path: str, *, suffixes: bool, blocks: Sequence[Span] = ()) -> None:
        """A file of an fsspec file system.

        Args:
            suffixes: whether the store gives the last bytes of a file of which the length is not known.
            blocks: ascending ranges, each of which is fetched as a whole when some of it is read.
        """
        self._fs, self._path, self._suffixes = filesystem, path, suffixes
        self._blocks, self._starts = blocks, [start for start, _ in blocks]
        self._place = 0
        self._size: int | None = None
        self._held: tuple[int, bytes] = (0, b"")
        """The newest block: where it begins, and its bytes."""
        self._end = b""
        """The last bytes of the file, as far as they were fetched."""
        note(opens=1)

    def read(self, size: int | None = -1) -> bytes:
        start = self._place
        stop = self.size if size is None or size < 0 else start + size
        if self._size is not None:
            stop = min(stop, self._size)
        data = self._read(start, stop) if start < stop else b""
        self._place += len(data)
        return data

    def _read(self, start: int, stop: int) -> bytes:
        for first, held in self._known():
            if first <= start and stop <= first + len(held):
                return held[start - first : stop - first]
        block = bisect_right(self._starts, start) - 1
        if block >= 0 and stop <= self._blocks[block][1]:
            self._held = (0, b"")  # before the next one, so that two are never held
            first, last = self._blocks[block]
            self._held = (first, self._fetch(first, last))
            return self._held[1][start - first : stop - first]
        return self._fetch(start, stop)

    def _known(self) -> Iterator[tuple[int, bytes]]:
        """What was fetched before, with the place where it begins."""
        yield self._held
        if self._size is not None:
            yield self._size - len(self._end), self._end

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        data: bytes = self._fs.cat_file(self._path, start=start, end=stop)
        return data

    def begin(self) -> Self:
        """Fetch the first block, or ask for the length, so that a file that is not there is known now."""
        if self._blocks:
            first, last = self._blocks[0]
            self._held = (first, self._fetch(first, last))
            return self
        self._size = self.size
        return self

    def read_tail(self, size: int) -> tuple[bytes, int | None]:
        """The last `size` bytes, all where there are fewer, and the length of the file; None: not known by that."""
        if not self._suffixes or self._size is not None:
            first = max(0, self.size - size)
            self._end = self._fetch(first, self.size) if first < self.size else b""
        else:
            self._end = self._fetch(-size, None)
            if len(self._end) < size:
                self._size = len(self._end)
        return self._end, self._size

    @property
    def size(self) -> int:
        """Bytes of the file, asked for where no read has told."""
        if self._size is None:
            self._size = int(self._fs.size(self._path))
        return self._size

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place if whence == 0 else place + (self._place if whence == 1 else self.size)
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        """Let go of what is held."""
        self._held, self._end = (0, b""), b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
