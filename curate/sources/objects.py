"""The object cache: what was fetched from the web for a run, kept in its workdir.

A picture of the web may be another one tomorrow, or gone; and a server must not be asked three times by one run. So the
first pass that reads a picture keeps its bytes, and later passes and the shards read those. Millions of small files
would be slow everywhere and impossible on some file systems, so a chunk, which is an uncompressed Parquet file, holds
`CHUNK_ROWS` neighboring rows of a part of the catalog:

    internal/objects/SOURCE/part-00012/chunk-000003.parquet

A chunk is published in one step when all of its rows are settled; a killed run loses the chunks that it was filling.
What is final is kept: bytes, and the refusals of servers. An image that was `unavailable` is not, so that the next
reading asks for it again, and for it alone. Rows carry their URL and the SHA-256 of their bytes: a row of another
URL, or whose bytes are damaged, counts as absent. So the cache may be deleted at any time, as a whole or by chunk: what
is wanted is then fetched again, and held against the SHA-256 of the first reading like the image of any other source.
"""

import contextlib
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curate.sealing import SealedWriter, open_parquet
from curate.sources.read import Read, too_large
from curate.surroundings import Workdir, current_workdir

log = logging.getLogger(__name__)

OBJECTS = "internal/objects"
"""Where the cache lies in a workdir."""
CHUNK_ROWS = 256
"""Rows of the catalog that share a file."""
GROUP_BYTES = 32 << 20
"""Bytes that are held before they are written."""
GROUP_ROWS = 32
"""Rows that can be read without their neighbors."""
READ_ROWS = 8
"""Rows read at once."""
BUFFER_BYTES = 1 << 20
"""Bytes read at once from each column."""
ROW_BITS = 32
"""As in image ids: the part of the catalog stands above these bits, the row below."""
POLICY = b"curate.objects"
"""Key of a chunk's metadata: what decided about its refusals."""
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("data", pa.large_binary()),
        pa.field("sha256", pa.binary(32)),
        pa.field("reject", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("max_bytes", pa.int64(), nullable=False),
        pa.field("reserved", pa.string()),
    ]
)

_UNREADABLE = (pa.ArrowException, OSError, KeyError)


class Wanted(NamedTuple):
    """An image to read."""

    image_id: int
    url: str
    """As it is stored: without secrets."""


Fetch = Callable[[Iterable[Wanted]], Generator[Read]]


class _Chunk(NamedTuple):
    """Some wanted images that share a file."""

    path: str
    wanted: list[Wanted]
    known: frozenset[int]
    """Rows that the file answers for."""
    is_there: bool
    """Whether it is, and was made under the same policy."""

    def missing(self) -> list[Wanted]:
        """What has to be fetched."""
        return [one for one in self.wanted if _row(one) not in self.known]


class _Again(NamedTuple):
    """How images are fetched and kept."""

    fetch: Fetch
    max_bytes: int
    policy: bytes
    keep: bool


class _Damaged(Exception):
    """A file of the cache does not hold what was written."""


def read_objects(
    wanted: Sequence[Wanted], source: str, fetch: Fetch, *, max_bytes: int, policy: object = None, keep: bool = True
) -> Generator[Read]:
    """The images in their order: from the cache of the workdir, or fetched and then kept there.

    Where no workdir surrounds the process, everything is fetched.

    Args:
        wanted: with ascending ids.
        source: name of the source.
        fetch: asks for images, in order, while it is asked for the pictures.
        max_bytes: a longer image is not passed on.
        policy: JSON-ready; the cache answers only what was fetched under an equal one.
        keep: whether what is fetched goes to the cache.
    """
    workdir = current_workdir()
    if workdir is None:
        with contextlib.closing(fetch(wanted)) as fetched:
            yield from fetched
        return
    again = _Again(fetch, max_bytes, json.dumps(policy, sort_keys=True).encode(), keep)
    groups = itertools.groupby(wanted, lambda one: (one.image_id >> ROW_BITS, _row(one) // CHUNK_ROWS))
    chunks = (
        _look_at(workdir, _path(source, part, number), list(group), max_bytes, again.policy)
        for (part, number), group in groups
    )
    asking, serving = itertools.tee(chunks)
    with contextlib.closing(fetch(one for chunk in asking for one in chunk.missing())) as fetched:
        for chunk in serving:
            yield from _serve(workdir, chunk, fetched, again)


def _path(source: str, part: int, chunk: int) -> str:
    return f"{OBJECTS}/{source}/part-{part:05d}/chunk-{chunk:06d}.parquet"


def cached_bytes(workdir: Workdir) -> int:
    """Bytes of the cache of a workdir."""
    return sum(info["size"] for info in workdir.fs.find(workdir.join(OBJECTS), detail=True).values())


def remove_objects(workdir: Workdir, sha256s: Collection[bytes]) -> int:
    """Take the images of these hashes out of the cache of a workdir; returns how many there were.

    They are fetched again only if something still wants to read them.
    """
    removed = 0
    for found in sorted(workdir.fs.find(workdir.join(OBJECTS))):
        path = found[found.rindex(f"{OBJECTS}/") :]
        if path.endswith(".parquet"):
            removed += _remove_from(workdir, path, sha256s)
    return removed


def _remove_from(workdir: Workdir, path: str, sha256s: Collection[bytes]) -> int:
    with _opened(workdir, path) as chunk:
        removed = sum(sha256 in sha256s for sha256 in chunk.read(columns=["sha256"])["sha256"].to_pylist())
        if removed:
            with workdir.publish(path) as file:
                writer = _Writer(file, chunk.schema_arrow.metadata[POLICY])
                for row in _rows(chunk):
                    if row["sha256"] not in sha256s:
                        writer.write(row)
                writer.close()
    return removed


def _row(one: Wanted) -> int:
    return one.image_id & ((1 << ROW_BITS) - 1)


@contextlib.contextmanager
def _opened(workdir: Workdir, path: str) -> Iterator[pq.ParquetFile]:
    with (
        workdir.fs.open(workdir.join(path)) as file,
        open_parquet(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as chunk,
    ):
        yield chunk


def _look_at(workdir: Workdir, path: str, wanted: list[Wanted], max_bytes: int, policy: bytes) -> _Chunk:
    """What the file of a chunk answers, without reading pictures; nothing, where it is not there or damaged."""
    urls = {_row(one): one.url for one in wanted}
    nothing = _Chunk(path, wanted, frozenset(), is_there=False)
    try:
        with _opened(workdir, path) as chunk:
            if (chunk.schema_arrow.metadata or {}).get(POLICY) != policy:
                return nothing
            rows = chunk.read(columns=["row", "url", "reject", "max_bytes"]).to_pylist()
    except FileNotFoundError:
        return nothing
    except _UNREADABLE as error:
        log.warning("%s: cannot be read (%s); its images are fetched again", path, error)
        return nothing
    settled = (row for row in rows if row["reject"] != "too_large" or row["max_bytes"] == max_bytes)
    return _Chunk(path, wanted, frozenset(row["row"] for row in settled if urls.get(row["row"]) == row["url"]), True)


def _serve(workdir: Workdir, chunk: _Chunk, fetched: Iterator[Read], again: "_Again") -> Iterator[Read]:
    """The wanted images of a chunk, whose file is written anew where some of them were fetched."""
    num_done = 0
    try:
        for read in _read_chunk(workdir, chunk, fetched, again):
            yield read
            num_done += 1
    except _Damaged as error:
        log.warning("%s: damaged (%s); its images are fetched again", chunk.path, error)
        left = chunk.wanted[num_done:]
        anew = again.fetch(one for one in left if _row(one) in chunk.known)
        mixed = (next(anew if _row(one) in chunk.known else fetched) for one in left)
        yield from _read_chunk(workdir, _Chunk(chunk.path, left, frozenset(), is_there=False), mixed, again)


def _read_chunk(workdir: Workdir, chunk: _Chunk, fetched: Iterator[Read], again: "_Again") -> Iterator[Read]:
    held: list[Read] = []
    with contextlib.ExitStack() as stack:
        writer = None
        if again.keep and chunk.missing():
            writer = _Writer(stack.enter_context(workdir.publish(chunk.path)), again.policy)
            stack.callback(writer.abandon)
        old = _old_rows(workdir, chunk, {_row(one) for one in chunk.wanted} if writer is None else None)
        for one, found in _merge(chunk.wanted, old):
            row = found
            if one is not None and _row(one) not in chunk.known:
                held.append(next(fetched))
                row = _as_row(one, held[-1], again.max_bytes)
            elif one is not None:
                if found is None:
                    raise _Damaged(f"row {_row(one)} is missing")
                held.append(_as_read(found, again.max_bytes))
            if writer is not None and row is not None:
                writer.write(row)
            if len(held) > 1:  # the last one waits until the file is published: nobody may ask for more
                yield held.pop(0)
        if writer is not None:
            writer.close()
    yield from held


def _old_rows(workdir: Workdir, chunk: _Chunk, only: Collection[int] | None) -> Iterator[dict[str, Any]]:
    """The rows of the file of a chunk, in order.

    Raises:
        _Damaged: it cannot be read, or a picture is not the one that was written.
    """
    if not chunk.is_there:
        return
    try:
        with _opened(workdir, chunk.path) as file:
            yield from _rows(file, only)
    except _UNREADABLE as error:
        raise _Damaged(str(error)) from error


def _rows(file: pq.ParquetFile, only: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a chunk, but for row groups that hold none of `only`; None: all of them."""
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(0).statistics
        if only is None or bounds is None or any(bounds.min <= row <= bounds.max for row in only):
            for batch in file.iter_batches(READ_ROWS, row_groups=[group]):
                for row in batch.to_pylist():
                    if row["data"] is not None and hashlib.sha256(row["data"]).digest() != row["sha256"]:
                        raise _Damaged(f"row {row['row']} has another sha256")
                    yield row


def _merge(
    wanted: Iterable[Wanted], old: Iterable[dict[str, Any]]
) -> Iterator[tuple[Wanted | None, dict[str, Any] | None]]:
    """Pairs of an image and its old row, both in order of rows; None where one of them is not there."""
    left = iter(old)
    row = next(left, None)
    for one in wanted:
        while row is not None and row["row"] < _row(one):
            yield None, row
            row = next(left, None)
        if row is not None and row["row"] == _row(one):
            yield one, row
            row = next(left, None)
        else:
            yield one, None
    while row is not None:
        yield None, row
        row = next(left, None)


def _as_row(one: Wanted, read: Read, max_bytes: int) -> dict[str, Any] | None:
    """The row to keep of a fetched image; None: it may be had later."""
    if read.data is None and read.reject == "unavailable":
        return None
    sha256 = None if read.data is None else hashlib.sha256(read.data).digest()
    found = {
        "data": read.data,
        "sha256": sha256,
        "reject": read.reject,
        "detail": read.error,
        "reserved": read.reserved,
    }
    return {"row": _row(one), "url": one.url, **found, "max_bytes": max_bytes}


def _as_read(row: dict[str, Any], max_bytes: int) -> Read:
    if row["data"] is None:
        return Read(error=row["detail"], reject=row["reject"], reserved=row.get("reserved"))
    found = Read(row["data"], reserved=row.get("reserved"))  # chunks of earlier versions do not tell
    return found if len(row["data"]) <= max_bytes else too_large(len(row["data"]), max_bytes)


class _Writer:
    """Writes a chunk in row groups that are small enough to be read alone."""

    def __init__(self, file: IO[bytes], policy: bytes) -> None:
        schema = SCHEMA.with_metadata({POLICY: policy})
        self._writer = SealedWriter(file, schema, compression="NONE", use_dictionary=False, write_statistics=["row"])
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._num_bytes += len(row["data"] or b"")
        if len(self._rows) >= GROUP_ROWS or self._num_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows, self._num_bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close a file that is thrown away; after `close` nothing is left to do."""
        self._writer.abandon()
