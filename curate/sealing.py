"""Checksums of the Parquet files that we write: a wrong bit in any byte is found by whoever reads that byte.

Parquet can carry a checksum of each page, which we write too, so that others can check our files. But pages are not
all: the headers of pages, the footer and the marks at both ends have none, and a wrong bit there may give other rows
instead of an error. So a sealed file holds, between its last page and its footer, where readers of Parquet look at
nothing, a CRC-32 of each block of `BLOCK_BYTES` before it, and a SHA-256 of itself and of all that follows it:

    pages | CRC-32 of every block of the pages | MARK, bytes of the pages, bytes of a block, SHA-256 | footer | PAR1

A reader checks the SHA-256 when it opens the file, and of the blocks those that it reads: one column of a large file
costs no more than before. The place matters. Key-value metadata of the footer would be the obvious one, but libraries
copy them to what they write from the rows, so that a shard that somebody filtered would look damaged. What lies between
pages and footer is copied by nobody; a file without a seal is read unchecked, but for the checksums of its pages.
"""

import hashlib
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curate.late_files import LateFile

BLOCK_BYTES = 64 << 10
"""Bytes under one checksum: what is read at least."""
MIN_BLOCK = 4 << 10
"""A seal of smaller blocks is none of ours: it could be as large as the file."""
MARK = bytes.fromhex("63757261746520ec5ea1ed0a96d3b174")
"""Where the fixed part of a seal begins; random enough to be known again with some bits flipped."""
MAX_FLIPPED = 16
"""Bits in which a damaged mark may differ to be taken for one."""
FIXED = struct.Struct("<16sQI32s")
"""MARK, bytes of the pages, bytes of a block, SHA-256."""
MAGIC = b"PAR1"
END_BYTES = 4 + len(MAGIC)
"""After the footer: its length, and the mark of Parquet."""
TAIL_BYTES = 64 << 10
"""Bytes read at once from the end: of most files this is the whole footer, and the seal."""


DIGEST_BYTES = 4 << 20
"""Bytes read at once where a whole file is digested."""


class DamagedBytes(pa.ArrowInvalid):
    """The bytes of a file are not those that were written."""


class SealedWriter:
    """A `ParquetWriter` whose file is sealed when it is closed; equal rows give equal bytes."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, **options: Any) -> None:
        """`options` are those of `ParquetWriter`."""
        self._file = _SummingFile(file)
        self._writer = pq.ParquetWriter(self._file, schema, write_page_checksum=True, **options)

    def write_table(self, rows: pa.Table, *, row_group_size: int | None = None) -> None:
        """Write rows as row groups."""
        self._writer.write_table(rows, row_group_size=row_group_size)

    def close(self, metadata: Mapping[str, str] | None = None) -> None:
        """Write the seal and the footer, with `metadata` in it."""
        if metadata:
            self._writer.add_key_value_metadata(dict(metadata))
        self._file.hold()
        self._writer.close()
        self._file.seal()

    def abandon(self) -> None:
        """Close a file that is thrown away; after `close` nothing is left to do."""
        self._writer.close()


class _SummingFile:
    """What Arrow writes to: passes the pages on and sums them up, and holds the footer back for the seal."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._written = file, 0
        self._sums: list[int] = []
        self._tail: list[bytes] | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._tail is not None:
            self._tail.append(bytes(view))
            return len(view)
        place = 0
        while place < len(view):
            inside = (self._written + place) % BLOCK_BYTES
            piece = view[place : place + BLOCK_BYTES - inside]
            if not inside:
                self._sums.append(0)
            self._sums[-1] = zlib.crc32(piece, self._sums[-1])
            place += len(piece)
        self._file.write(view)
        self._written += len(view)
        return len(view)

    def hold(self) -> None:
        """Keep back what comes from now on."""
        self._tail = []

    def seal(self) -> None:
        """Write the seal, and what was held back."""
        assert self._tail is not None
        sums, footer = struct.pack(f"<{len(self._sums)}I", *self._sums), b"".join(self._tail)
        plain = FIXED.pack(MARK, self._written, BLOCK_BYTES, bytes(32))
        digest = hashlib.sha256(sums + plain + footer).digest()
        self._file.write(sums + FIXED.pack(MARK, self._written, BLOCK_BYTES, digest) + footer)

    def tell(self) -> int:
        return self._written + sum(map(len, self._tail or ()))

    def flush(self) -> None:
        """The file beneath is flushed by who opened it."""

    def close(self) -> None:
        """The file beneath is closed by who opened it."""


def open_parquet(file: Any, **options: Any) -> pq.ParquetFile:
    """An open file as Parquet, whose bytes are checked as they are read.

    Args:
        file: seekable, binary.
        options: those of `ParquetFile`.

    Raises:
        DamagedBytes: the footer is not the one that was written; reading raises it for damaged pages.
        ArrowInvalid: not Parquet.
    """
    seal = _find_seal(file)
    # Columns that lie side by side are fetched by one read: each one costs a store a round trip, and us whole blocks.
    options = {"pre_buffer": True} | options
    if seal is not None:
        footer = pq.read_metadata(pa.BufferReader(seal.tail))  # Arrow would read 64 KiB from the end again
        checked = _CheckedFile(file, seal)
        if len(seal.before) == seal.pages:  # all of a small file, of which a part without rows is read no further
            checked.read(seal.pages)
            checked.seek(0)
        return pq.ParquetFile(LateFile(checked), metadata=footer, **options)
    file.seek(0)
    return pq.ParquetFile(LateFile(file), page_checksum_verification=True, **options)


def is_sealed(file: Any) -> bool:
    """Whether an open Parquet file carries checksums of all its bytes.

    Raises:
        DamagedBytes: it did, and is damaged.
    """
    return _find_seal(file) is not None


def check_parquet(file: Any) -> None:
    """Read a whole open file.

    Raises:
        DamagedBytes: some byte is not the one that was written.
        ArrowInvalid: not Parquet, or pages that do not fit their checksums.
    """
    seal = _find_seal(file)
    if seal is None:
        with open_parquet(file) as parquet:
            for group in range(parquet.num_row_groups):
                parquet.read_row_group(group)
        return
    checked = _CheckedFile(file, seal)
    while checked.read(256 * BLOCK_BYTES):
        pass


def digest_parquet(file: Any) -> tuple[str, int]:
    """SHA-256 in hex of a whole open file, and its bytes, each block checked on the way where the file is sealed.

    Raises:
        DamagedBytes: some byte is not the one that was written, so that its digest would vouch for damage.
    """
    seal = _find_seal(file)
    found = file if seal is None else _CheckedFile(file, seal)
    found.seek(0)
    digest, num_bytes = hashlib.sha256(), 0
    while block := found.read(DIGEST_BYTES):
        digest.update(block)
        num_bytes += len(block)
    return digest.hexdigest(), num_bytes


def says_damage(error: BaseException) -> bool:
    """Whether an error of reading Parquet tells of wrong bytes; Arrow's own are partly `OSError` without a number."""
    plain = type(error) is OSError and error.errno is None and error.__cause__ is None
    return plain or isinstance(error, pa.ArrowInvalid)


class _Seal(NamedTuple):
    size: int
    """Bytes of the file."""
    pages: int
    """Of these, bytes before the seal."""
    block: int
    """Bytes under one checksum."""
    sums: tuple[int, ...]
    tail: bytes
    """All that follows the pages."""
    before: bytes
    """What was read with it: the end of the pages."""


def _find_seal(file: Any) -> _Seal | None:
    """The seal of a file, which has been checked with all that follows it; None: there is none.

    Raises:
        DamagedBytes: there is one, and some bit of it or of the footer has changed.
    """
    tail, size = read_tail(file, TAIL_BYTES)
    if len(tail) < END_BYTES:
        return None
    footer = int.from_bytes(tail[-END_BYTES : -len(MAGIC)], "little") + END_BYTES
    if (size is not None and footer + FIXED.size > size) or tail[-len(MAGIC) :] != MAGIC:
        if MARK in tail:
            raise DamagedBytes("its end is not the one that was written")
        return None  # no Parquet at all, or not ours
    tail = _at_least(file, tail, footer + FIXED.size)
    if footer + FIXED.size > len(tail):
        return None
    mark, pages, block, digest = FIXED.unpack_from(tail, len(tail) - footer - FIXED.size)
    if _flipped(mark) > MAX_FLIPPED:
        if MARK in tail:
            raise DamagedBytes("its footer does not begin where it was written")
        return None
    count = -(-pages // block) if block else 0
    rest = 4 * count + FIXED.size + footer
    if mark != MARK or block < MIN_BLOCK or size not in (None, pages + rest):
        raise DamagedBytes("its checksums are not those that were written")
    tail = _at_least(file, tail, rest)
    if rest > len(tail):
        raise DamagedBytes("its checksums are not those that were written")
    sums_at, end = len(tail) - rest, tail[len(tail) - rest :]
    sums = struct.unpack_from(f"<{count}I", end)
    plain = end[: 4 * count] + FIXED.pack(mark, pages, block, bytes(32)) + end[4 * count + FIXED.size :]
    if hashlib.sha256(plain).digest() != digest:
        raise DamagedBytes("its footer is not the one that was written")
    return _Seal(pages + rest, pages, block, sums, end, tail[:sums_at])


def read_tail(file: Any, length: int) -> tuple[bytes, int | None]:
    """The last bytes of a file, and its length where it is known."""
    if hasattr(file, "read_tail"):  # of an object store, which gives these in one request
        tail, size = file.read_tail(length)
        return tail, size
    size = file.seek(0, 2)
    file.seek(max(0, size - length))
    return bytes(file.read(min(size, length))), size


def _at_least(file: Any, tail: bytes, length: int) -> bytes:
    """The last bytes of a file, as many as asked for where there are so many."""
    return tail if length <= len(tail) else read_tail(file, length)[0]


def _flipped(mark: bytes) -> int:
    """Bits in which `mark` differs from MARK."""
    return (int.from_bytes(mark, "big") ^ int.from_bytes(MARK, "big")).bit_count()


class _CheckedFile:
    """A sealed file from which no wrong byte can be read."""

    def __init__(self, file: Any, seal: _Seal) -> None:
        self._file, self._seal, self._place = file, seal, 0

    def read(self, size: int | None = -1) -> Any:
        """Bytes, or a view of them, from whole blocks that were checked."""
        start, pages = self._place, self._seal.pages
        stop = self._seal.size if size is None or size < 0 else min(self._seal.size, start + size)
        self._place = max(start, stop)
        if start >= stop:
            return b""
        if start >= pages:
            return self._seal.tail[start - pages : stop - pages]
        if stop <= pages:
            return self._read_pages(start, stop)
        return bytes(self._read_pages(start, pages)) + self._seal.tail[: stop - pages]

    def _read_pages(self, start: int, stop: int) -> memoryview:
        block, sums = self._seal.block, self._seal.sums
        first, last = start // block, -(-stop // block)
        begin, end = first * block, min(last * block, self._seal.pages)
        view = memoryview(self._fetch(begin, end))
        for number in range(first, last):
            place = number * block - begin
            if zlib.crc32(view[place : place + block]) != sums[number]:
                raise DamagedBytes(f"bytes {number * block} to {min(number * block + block, end)} are not as written")
        return view[start - begin : stop - begin]

    def _fetch(self, begin: int, end: int) -> Any:
        """Bytes of the pages; what came with the footer is not read again."""
        known = self._seal.pages - len(self._seal.before)
        if begin >= known:
            return memoryview(self._seal.before)[begin - known : end - known]
        self._file.seek(begin)
        data = self._file.read(min(end, known) - begin)
        return data + self._seal.before[: end - known] if end > known else data

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place + (0, self._place, self._seal.size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place
