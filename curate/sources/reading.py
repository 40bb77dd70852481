"""Reading the images of a part in the order of the catalog, by the format of their source."""

from collections.abc import Iterator

import pyarrow as pa

from curate.sources.config import Source
from curate.sources.formats import BUILTIN, DETECTED, SourceFormat, find_format
from curate.sources.read import Read
from curate.sources.values import choose_columns

MAX_IMAGE_BYTES = 256 << 20
"""Bytes of one encoded image above which it is not read."""


def read_part(rows: pa.Table, source: Source, *, max_bytes: int = MAX_IMAGE_BYTES) -> Iterator[Read]:
    """Each image of `rows` and its source's own columns, in order; each archive is opened once and streamed.

    Args:
        rows: CATALOG rows of one source, or a subset of them, in the catalog's order.
        max_bytes: longer images are not read, but yield an error.

    Raises:
        ConfigError: the format of a plug-in cannot be used.
        SourceError: an archive is damaged or changed since it was listed, or reading kept failing.
    """
    reads = _format_of(rows, source).read(rows, source, max_bytes=max_bytes, extra=True)
    return reads if source.format in (*BUILTIN, *DETECTED) else map(_with_json_columns, reads)


def read_bytes(rows: pa.Table, source: Source, *, max_bytes: int = MAX_IMAGE_BYTES) -> Iterator[Read]:
    """As `read_part`, without the own columns: a tar is read at the offsets alone."""
    return _format_of(rows, source).read(rows, source, max_bytes=max_bytes, extra=False)


def is_loose(rows: pa.Table, source: Source) -> bool:
    """Whether the images are files of their own, which threads may read in any order by `read_folder_file`."""
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
        return find_format("parquet")
    return find_format("tar" if rows["offset"].null_count < len(rows) else "folder")
