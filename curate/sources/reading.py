"""Reading the images of a part in the order of the catalog, by the format of their source."""

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

from curate.errors import SourceDamaged, SourceLost, SourceUnavailable
from curate.sources.config import Source
from curate.sources.folder import loose_reads
from curate.sources.formats import BUILTIN, DETECTED, SourceFormat, find_format
from curate.sources.path_columns import add_columns_of, add_path_columns
from curate.sources.reach import reach_of
from curate.sources.read import Read, unavailable, unreadable
from curate.sources.secrets import strip_values
from curate.sources.urls import is_row_of_urls
from curate.sources.values import choose_columns

MAX_IMAGE_BYTES = 256 << 20
"""Bytes of one encoded image above which it is not read."""


def read_part(
    rows: pa.Table, source: Source, *, max_bytes: int = MAX_IMAGE_BYTES, damaged: bool = False
) -> Iterator[Read]:
    """Each image of `rows` and its source's own columns, in order; each archive is opened once and streamed.

    An archive that is gone makes its images `unreadable`, one that an error kept away which may pass `unavailable`.

    Args:
        rows: CATALOG rows of one source, or a subset of them, in the catalog's order.
        max_bytes: longer images are not read, but yield an error.
        damaged: also an archive that is damaged or changed costs its own images alone.

    Raises:
        ConfigError: the format of a plug-in cannot be used.
        SourceError: an archive is damaged or changed since it was listed.
    """
    reads = _read(rows, source, max_bytes=max_bytes, extra=True, damaged=damaged)
    if source.format not in (*BUILTIN, *DETECTED):
        reads = map(_with_json_columns, reads)
    return map(_without_secrets, add_path_columns(reads, rows, source))


def read_bytes(
    rows: pa.Table, source: Source, *, max_bytes: int = MAX_IMAGE_BYTES, damaged: bool = False
) -> Iterator[Read]:
    """As `read_part`, without the own columns: a tar is read at the offsets alone."""
    return _read(rows, source, max_bytes=max_bytes, extra=False, damaged=damaged)


def _read(rows: pa.Table, source: Source, *, max_bytes: int, extra: bool, damaged: bool = False) -> Iterator[Read]:
    """Reads of all rows; an archive that fails in the middle, or is gone, costs the rest of its own images alone."""
    return reach_of(source).around(_read_on(rows, source, max_bytes=max_bytes, extra=extra, damaged=damaged))


def _read_on(rows: pa.Table, source: Source, *, max_bytes: int, extra: bool, damaged: bool) -> Iterator[Read]:
    found, uris, done = _format_of(rows, source), rows["uri"].to_pylist(), 0
    while done < len(rows):
        try:
            for read in found.read(rows.slice(done), source, max_bytes=max_bytes, extra=extra):
                done += 1
                yield read
            return
        except SourceUnavailable as error:
            lost = unavailable(error.why)
        except SourceLost as error:
            lost = unreadable(f"{uris[done].rsplit('/', 1)[-1]}: {error.why}")
        except SourceDamaged as error:
            if not damaged:
                raise
            lost = unreadable(str(error))
        uri = uris[done]
        while done < len(rows) and uris[done] == uri:
            done += 1
            yield lost


def read_loose(rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Callable[[], Read]]:
    """For each image of a source of loose files what reads it, as `read_part` does; for several threads to call.

    Args:
        extra: whether own columns are wanted.
    """
    reach = reach_of(source)
    reads = (partial(reach.within, read) for read in loose_reads(rows, source, max_bytes=max_bytes, extra=extra))
    if not extra:
        yield from reads
        return
    for read, key in zip(reads, rows["key"].to_pylist(), strict=True):
        yield partial(_with_path_columns, read, key, source)


def _with_path_columns(read: Callable[[], Read], key: str, source: Source) -> Read:
    return _without_secrets(add_columns_of(read(), key, archive=None, source=source))


def _without_secrets(read: Read) -> Read:
    """An image whose own columns hold no URL with a user, password or signature."""
    clean = strip_values(read.extra)
    if clean == read.extra:
        return read
    return read._replace(extra=clean, left_out=tuple(sorted({*read.left_out, "secret"})))


def is_loose(rows: pa.Table, source: Source) -> bool:
    """Whether the images are files of their own, which threads may read in any order, see `read_loose`."""
    return _format_of(rows, source).loose


def _with_json_columns(read: Read) -> Read:
    """An image of a plug-in, whose columns nothing has looked at."""
    if not read.extra:
        return read
    left_out = set(read.left_out)
    own = choose_columns(read.extra, left_out)
    return read._replace(extra=own, left_out=tuple(sorted(left_out)))


def _format_of(rows: pa.Table, source: Source) -> SourceFormat:
    """The format that the source names; where that was detected, the rows tell what was found."""
    if source.format not in DETECTED:
        return find_format(source.format)
    if rows["row"].null_count < len(rows):
        of_urls = is_row_of_urls(rows["uri"][0].as_py(), rows["row"][0].as_py())
        return find_format("urls" if of_urls else "parquet")
    return find_format("tar" if rows["offset"].null_count < len(rows) else "folder")
