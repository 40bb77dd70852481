"""Files of scattered rows: segments of one key each, and an index at the end by which a task finds its own.

A Parquet file would tell of each column of each row group in its footer: with segments of 1 MiB the footers that a task
parses are as large as the rows that it wants. Here an entry takes 12 bytes whatever the columns, so that a task reads
one small index a file, then the ranges of its key and no others:

    Arrow stream: schema, an empty batch, a batch a segment | index: key, bytes, CRC-32 of each | JSON | FIXED

`FIXED` holds a SHA-256 of all that follows the stream, and each segment is checked as it is read.
"""

import contextlib
import hashlib
import json
import logging
import re
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from curate.engine.store import Store
from curate.engine.table import FOOTER_THREADS, REMOVE_AND_RUN
from curate.errors import DamagedPart, TableError
from curate.sealing import read_tail

logger = logging.getLogger(__name__)

ENTRY = np.dtype([("key", "<i4"), ("num_bytes", "<u4"), ("crc", "<u4")])
"""A segment in the index; segments lie one after the other."""
FIXED = struct.Struct("<16sQII32s")
"""MARK, where the first segment begins, number of segments, bytes of the JSON, SHA-256."""
MARK = bytes.fromhex("637572617465207069656365730d0a1a")
TAIL_BYTES = 16 << 10
"""Bytes read at once from the end: the whole index of a run of up to a thousand segments."""
FILE_NAME = re.compile(r"part-(\d{5}|[1-9]\d{5,})\.pieces")
DIGEST_BYTES = 32
"""Longest binary of fixed size that is no vector."""
AHEAD = 8
"""Segments of remote files that are under way at once."""
AT_ONCE_BYTES = 8 << 20
"""Segments of one key of a file that are read while it is open; more are read one by one."""

T = TypeVar("T")
R = TypeVar("R")


def holds_raw(schema: pa.Schema) -> bool:
    """Whether rows are mostly vectors, features or encoded images, which do not compress."""
    return any(_is_raw(field.type) for field in schema)


def _is_raw(dtype: pa.DataType) -> bool:
    if pa.types.is_struct(dtype):
        return any(_is_raw(child.type) for child in dtype)
    return pa.types.is_binary(dtype) or (pa.types.is_fixed_size_binary(dtype) and dtype.byte_width > DIGEST_BYTES)


class PieceWriter:
    """Writes one file, segment by segment."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, fingerprint: str) -> None:
        self.rows = 0
        self._file, self._fingerprint = _Summing(file), fingerprint
        options = pa.ipc.IpcWriteOptions(compression=None if holds_raw(schema) else "zstd")
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), schema, options=options)
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema))  # Arrow writes the schema before a batch
        self._start = self._file.place
        self._entries: list[tuple[int, int, int]] = []

    def write(self, key: int, segment: pa.RecordBatch) -> None:
        """Add rows of one key; those of a key stay in order."""
        self._file.begin()
        self._writer.write_batch(segment)
        self._entries.append((key, self._file.summed, self._file.crc))
        self.rows += segment.num_rows

    def close(self) -> str:
        """Write what follows the segments; returns the digest of it, which stands for all rows."""
        self._writer.close()
        index = np.array(self._entries, ENTRY).tobytes()
        told = json.dumps({"fingerprint": self._fingerprint, "rows": self.rows, "end": self._file.place}).encode()
        seal = _seal(index, told, self._start, len(self._entries))
        self._file.write(index + told + FIXED.pack(MARK, self._start, len(self._entries), len(told), seal))
        return seal.hex()[:32]

    def abandon(self) -> None:
        """Close the half-written file, which is then thrown away."""
        self._writer.close()


def _seal(index: bytes, told: bytes, start: int, count: int) -> bytes:
    return hashlib.sha256(index + told + FIXED.pack(MARK, start, count, len(told), bytes(32))).digest()


class _Summing:
    """What Arrow writes to: counts and sums up what passes."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.place = self.summed = self.crc = 0

    def begin(self) -> None:
        """Start a new sum."""
        self.summed = self.crc = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.crc = zlib.crc32(view, self.crc)
        self._file.write(view)
        self.place += len(view)
        self.summed += len(view)
        return len(view)

    def tell(self) -> int:
        return self.place

    def flush(self) -> None:
        """The file beneath is flushed by who opened it."""

    def close(self) -> None:
        """The file beneath is closed by who opened it."""


class _Index(NamedTuple):
    """What the end of a file tells, and the bytes of it that were read along."""

    told: dict[str, Any]
    entries: np.ndarray
    starts: np.ndarray
    """(S,) int64: where each segment begins."""
    tail: bytes
    tail_start: int


class _Span(NamedTuple):
    """A segment that is to be read."""

    number: int
    start: int
    num_bytes: int
    crc: int
    data: bytes | None
    """Where its bytes were read with the index."""


class PieceFiles:
    """A hidden folder of such files, by number."""

    def __init__(self, store: Store, name: str, schema: pa.Schema) -> None:
        self.store, self.name, self.schema = store, name, schema

    def file_name(self, number: int) -> str:
        """Of a file, in the workdir."""
        return f"{self.name}/part-{number:05d}.pieces"

    @contextlib.contextmanager
    def begin(self, number: int, fingerprint: str) -> Iterator[PieceWriter]:
        """A file that is published when the block ends; `close` is the caller's."""
        with self.store.publish(self.file_name(number)) as file:
            writer = PieceWriter(file, self.schema, fingerprint)
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise

    def keep_fresh(self, fingerprint: str, *, damaged: Iterable[int] = ()) -> set[int]:
        """Numbers of the files that carry a fingerprint; the others are removed."""
        there = self._committed()
        with ThreadPoolExecutor(FOOTER_THREADS, "pieces") as pool:
            told = dict(zip(there, pool.map(self._fingerprint, there), strict=True))
        fresh = {number for number in there if told[number] == fingerprint} - set(damaged)
        for number in set(there) - fresh:
            self.store.remove(self.file_name(number))
        return fresh

    def _committed(self) -> list[int]:
        try:
            files = self.store.fs.ls(self.store.join(self.name), detail=False)
        except FileNotFoundError:
            return []
        return [int(name[1]) for file in files if (name := FILE_NAME.fullmatch(file.rsplit("/", 1)[-1]))]

    def _fingerprint(self, number: int) -> str | None:
        try:
            with self._opened(number) as file:
                return str(self._index(number, file).told["fingerprint"])
        except DamagedPart as error:
            logger.warning("%s", str(error).replace(REMOVE_AND_RUN, "; it is made again"))
            return None

    def read(self, numbers: Iterable[int], key: int) -> Iterator[pa.RecordBatch]:
        """The segments of one key, in order of files and of their places there.

        Raises:
            TableError: a file is absent.
            DamagedPart: bytes are not those that were written.
        """
        window = 0 if self.store.is_local else AHEAD
        found = _ahead(numbers, lambda number: self._find(number, key), window)
        yield from _ahead((span for spans in found for span in spans), self._load, window)

    def _find(self, number: int, key: int) -> list[_Span]:
        """The segments of a key, with their bytes where these are few."""
        with self._opened(number) as file:
            index = self._index(number, file)
            places = np.flatnonzero(index.entries["key"] == key)
            at_once = int(index.entries["num_bytes"][places].sum()) <= AT_ONCE_BYTES
            spans = []
            for place in places.tolist():
                start, size = int(index.starts[place]), int(index.entries["num_bytes"][place])
                inside, data = start - index.tail_start, None
                if inside >= 0:
                    data = index.tail[inside : inside + size]
                elif at_once:
                    data = _range(file, start, start + size)
                spans.append(_Span(number, start, size, int(index.entries["crc"][place]), data))
        return spans

    def _load(self, span: _Span) -> pa.RecordBatch:
        data, stop = span.data, span.start + span.num_bytes
        if data is None:
            with self._opened(span.number) as file:
                data = _range(file, span.start, stop)
        if len(data) != span.num_bytes or zlib.crc32(data) != span.crc:
            raise self._damaged(span.number, f"bytes {span.start} to {stop} are not as written")
        return pa.ipc.read_record_batch(pa.ipc.read_message(data), self.schema)

    def _index(self, number: int, file: IO[bytes]) -> _Index:
        tail, _ = read_tail(file, TAIL_BYTES)
        if len(tail) < FIXED.size:
            raise self._damaged(number, "it has no end")
        mark, start, count, length, seal = FIXED.unpack_from(tail, len(tail) - FIXED.size)
        rest = count * ENTRY.itemsize + length + FIXED.size
        if mark != MARK:
            raise self._damaged(number, "its end is not the one that was written")
        if rest > len(tail):
            tail, _ = read_tail(file, rest)
        if rest > len(tail):
            raise self._damaged(number, "its end is not the one that was written")
        index = tail[len(tail) - rest : len(tail) - FIXED.size - length]
        told = tail[len(tail) - FIXED.size - length : len(tail) - FIXED.size]
        if _seal(index, told, start, count) != seal:
            raise self._damaged(number, "its index is not the one that was written")
        entries, found = np.frombuffer(index, ENTRY), json.loads(told)
        starts = start + np.cumsum([0, *entries["num_bytes"][:-1].tolist()], dtype=np.int64)
        return _Index(found, entries, starts, tail, found["end"] + rest - len(tail))

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[IO[bytes]]:
        """A file, of which no more is read than is asked for."""
        path = self.store.join(self.file_name(number))
        try:
            with self.store.fs.open(path, "rb") as file:
                yield file
        except FileNotFoundError as error:
            raise TableError(f"{path}: no such file of scattered rows; run the pipeline again to make it") from error

    def _damaged(self, number: int, what: str) -> DamagedPart:
        path = self.store.join(self.file_name(number))
        return DamagedPart(f"{path}: damaged ({what}){REMOVE_AND_RUN}", self.name, number)


def _range(file: IO[bytes], start: int, stop: int) -> bytes:
    file.seek(start)
    return bytes(file.read(stop - start))


def _ahead(items: Iterable[T], function: Callable[[T], R], window: int) -> Iterator[R]:
    """`map`, with up to `window` calls under way while the caller works; 0: none."""
    if not window:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(window, "pieces") as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
