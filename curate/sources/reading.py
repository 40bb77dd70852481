"""Reading the images of a part in the order of the catalog: each archive is opened once and streamed."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.sources.config import Source
from curate.sources.folder import read_folder_file
from curate.sources.parquet import read_rows
from curate.sources.read import Read
from curate.sources.tar import read_described_members, read_members

MAX_BYTES = 256 << 20
"""Bytes of one encoded image above which it is not read."""

_COLUMNS = ["uri", "offset", "length", "row"]


def read_part(rows: pa.Table, source: Source, *, max_bytes: int = MAX_BYTES) -> Iterator[Read]:
    """Each image of `rows` and its source's own columns, in order.

    Files of a folder are read one after the other; to overlap them, call `read_folder_file` from threads.

    Args:
        rows: CATALOG rows of one source, or a subset of them, in the catalog's order.
        max_bytes: longer images are not read, but yield an error.

    Raises:
        SourceError: an archive is damaged or changed since it was listed, or reading kept failing.
    """
    return _read(rows, source, max_bytes=max_bytes, extra=True)


def read_bytes(rows: pa.Table, source: Source, *, max_bytes: int = MAX_BYTES) -> Iterator[Read]:
    """As `read_part`, without the own columns: a tar is read at the offsets alone."""
    return _read(rows, source, max_bytes=max_bytes, extra=False)


def is_loose(rows: pa.Table) -> bool:
    """Whether the images are files of their own, which threads may read in any order."""
    return rows["offset"].null_count == len(rows) and rows["row"].null_count == len(rows)


def _read(rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
    places = rows.select(_COLUMNS).to_pylist()
    for uri, group in itertools.groupby(places, key=lambda place: place["uri"]):
        yield from _read_file(uri, list(group), source, max_bytes, extra)


def _read_file(
    uri: str, places: Sequence[Mapping[str, Any]], source: Source, max_bytes: int, extra: bool
) -> Iterator[Read]:
    if places[0]["row"] is not None:
        yield from read_rows(uri, [p["row"] for p in places], source, max_bytes=max_bytes, extra=extra)
    elif places[0]["offset"] is not None:
        spans = [(p["offset"], p["length"]) for p in places]
        if extra:
            yield from read_described_members(uri, spans, max_bytes=max_bytes, columns=source.columns)
        else:
            yield from read_members(uri, spans, max_bytes=max_bytes)
    else:
        for _ in places:
            yield read_folder_file(uri, max_bytes=max_bytes, columns=source.columns, extra=extra)
