"""Reading the images of a part in the order of the catalog, by the format of their source."""

from collections.abc import Iterator

import pyarrow as pa

from curate.sources.config import Source
from curate.sources.formats import DETECTED, SourceFormat, find_format
from curate.sources.read import Read
from curate.sources.urls import is_row_of_urls

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
    return _format_of(rows, source).read(rows, source, max_bytes=max_bytes, extra=True)


def read_bytes(rows: pa.Table, source: Source, *, max_bytes: int = MAX_IMAGE_BYTES) -> Iterator[Read]:
    """As `read_part`, without the own columns: a tar is read at the offsets alone."""
    return _format_of(rows, source).read(rows, source, max_bytes=max_bytes, extra=False)


def is_loose(rows: pa.Table, source: Source) -> bool:
    """Whether the images are files of their own, which threads may read in any order by `read_folder_file`."""
    return _format_of(rows, source).loose


def _format_of(rows: pa.Table, source: Source) -> SourceFormat:
    """The format that the source names; where that was detected, the rows tell what was found."""
    if source.format not in DETECTED:
        return find_format(source.format)
    if rows["row"].null_count < len(rows):
        of_urls = is_row_of_urls(rows["uri"][0].as_py(), rows["row"][0].as_py())
        return find_format("urls" if of_urls else "parquet")
    return find_format("tar" if rows["offset"].null_count < len(rows) else "folder")
