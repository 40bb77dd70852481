"""Tables of URLs: Parquet, CSV, TSV and JSONL files with a column of URLs, each the address of one picture.

A row of the catalog names the picture's URL as its `uri`, and the row of the table as its `key`, `TABLE#row`: so a
takedown can name what a site names, and the table is found again for the other columns. Rows without a URL that may be
asked for stand there as well, as `#row of TABLE`, and are rejected when they are read: a bad row costs itself.

Only http and https are asked. A table comes from strangers: `file:` would publish one's own files, and `s3://` would be
read with one's own keys. A user name, password or signature is no part of a `uri`: it is read in the row again when the
picture is asked for (see `secrets.py`).
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from curate.errors import SourceError
from curate.sources.config import Source
from curate.sources.containers import find_files, find_listed
from curate.sources.files import File
from curate.sources.found import Found
from curate.sources.limits import MAX_NAME_BYTES
from curate.sources.network import network
from curate.sources.objects import Wanted, read_objects
from curate.sources.parquet import Cells, column_types, holds_images, read_cells, read_texts
from curate.sources.reach import reach_of
from curate.sources.read import Read, unreadable
from curate.sources.records import DELIMITERS, JSON_LINES, column_names, read_records
from curate.sources.roots import is_list
from curate.sources.secrets import lacks_secret, strip_secrets
from curate.sources.suffixes import PARQUET, may_be_image, suffix_of, why_not_image
from curate.sources.uri import decode_uri, encode_uri
from curate.sources.values import choose_columns
from curate.sources.web import Manner, fetch_all, is_web_url, shorten
from curate.surroundings import current_settings

TEXT_TABLES = frozenset(DELIMITERS) | JSON_LINES
"""Suffixes of tables that are text."""
URL_COLUMNS = ("url", "URL")
"""Names that a column of URLs has by default: img2dataset's, and LAION's."""
REFUSED = "#"
"""How the `uri` of a row begins whose URL is not asked for: as no path and no URL does."""
T = TypeVar("T")
BAD_RECORD = "table row that cannot be read"


class UrlFormat:
    """`format: urls`: the pictures at the URLs of tables, in the order of their rows."""

    loose = False

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The rows of all tables, in the order of their paths; nothing is fetched.

        Raises:
            SourceError: a table is damaged, or has no column of URLs.
        """
        return self.find_among(_find_tables(source, skipped), source, skipped=skipped)

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The rows of the tables among `files`, in their order; errors as of `find`."""
        number = 0
        for file in files:
            if is_table(file.uri):
                yield from _find_rows(file, number, source, skipped)
                number += 1
            else:
                skipped[why_not_image(file.uri) if not may_be_image(file.uri) else "file that is no table"] += 1

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """The pictures from the object cache or the web, many on their way at once; the columns from the tables."""
        places = rows.select(["image_id", "uri", "key", "offset", "row"]).to_pylist()
        asked_for = [place for place in places if not _is_refused(place)]
        wanted = [Wanted(place["image_id"], decode_uri(place["uri"]).decode()) for place in asked_for]
        policy = {"disallowed": sorted(source.disallowed_header_directives), "token": source.user_agent_token}
        offline = bool(current_settings().get("offline"))
        whole, manner = _WholeUrls(asked_for, source), manner_of(source)

        def fetch(images: Iterable[Wanted]) -> Generator[Read]:
            if offline:
                return _fetch_nothing(images)
            return fetch_all(map(whole.url_of, images), max_bytes=max_bytes, manner=manner)

        described = _describe(places, source) if extra else itertools.repeat(_Described())
        pictures = read_objects(wanted, source.name, fetch, max_bytes=max_bytes, policy=policy, keep=not offline)
        with contextlib.closing(pictures):
            for place, own in zip(places, described, strict=extra):
                read = unreadable(own.refused) if _is_refused(place) else next(pictures)
                yield read._replace(extra=own.columns, left_out=own.left_out)


def is_table(uri: str) -> bool:
    """Whether a file may be a table, by its suffix."""
    return suffix_of(uri) in PARQUET | TEXT_TABLES


def is_packed_table(uri: str) -> bool:
    """Whether a file is a table that must be unpacked first: none of its rows could be read alone."""
    return uri.lower().endswith(".gz") and suffix_of(uri[:-3]) in TEXT_TABLES


def is_row_of_urls(uri: str, row: int | None) -> bool:
    """Whether a row of the catalog was found in a table of URLs, rather than in a file of images.

    A Parquet file of images on the web has a URL as well, but one that ends in `.parquet`, which no picture may have.
    """
    return row is not None and (uri.startswith(REFUSED) or (is_web_url(uri) and suffix_of(uri) not in PARQUET))


def has_url_column(uri: str, source: Source) -> bool:
    """Whether a Parquet file has no column of images, but one of URLs."""
    types = column_types(uri)
    return not holds_images(types) and _choose(types, source) is not None


def manner_of(source: Source) -> Manner:
    """How the servers of a source are asked: what changes results from its config, the rest from the run's settings."""
    of_run = network().model_dump()  # its fields have the names of those of `Manner`
    return Manner(
        user_agent_token=source.user_agent_token,
        disallowed=source.disallowed_header_directives,
        permit=reach_of(source).permit,
        **of_run,
    )


def _fetch_nothing(images: Iterable[Wanted]) -> Generator[Read]:
    for _ in images:
        yield Read(error="not in the object cache, and no server is asked for this", reject="unavailable")


# -- finding ---------------------------------------------------------------------------------------------------------


def _find_tables(source: Source, skipped: Counter[str]) -> Iterator[File]:
    return (find_listed if is_list(source) else find_files)(source.path, skipped=skipped, roots=source.roots)


def _find_rows(file: File, number: int, source: Source, skipped: Counter[str]) -> Iterator[Found]:
    column = _url_column(file.uri, source)
    for row, offset, text in _urls(file.uri, column, skipped):
        url = "" if text is None else text.strip()
        may_be = is_web_url(url) and suffix_of(url) not in PARQUET and not _is_long(url)
        yield Found(
            uri=encode_uri(strip_secrets(url).encode()) if may_be else f"{REFUSED}{row} of {file.uri}",
            key=f"{file.key}#{row}",
            offset=offset,
            row=row,
            modified=file.modified,
            container=number,
        )


def _urls(uri: str, column: str | None, skipped: Counter[str]) -> Iterator[tuple[int, int | None, str | None]]:
    """(row, byte, URL) of a table; in JSONL, a record may have its column of URLs under any of the default names."""
    if suffix_of(uri) in PARQUET:
        assert column is not None
        yield from ((row, None, text) for row, text in enumerate(read_texts(uri, column)))
        return
    for record in read_records(uri):
        if record.values is None:
            skipped[BAD_RECORD] += 1
        else:
            yield record.row, record.offset, _url_of(record.values, column)


def _url_of(values: dict[str, Any], column: str | None) -> str | None:
    names = URL_COLUMNS if column is None else (column,)
    found = next((values[name] for name in names if values.get(name) is not None), None)
    return found if isinstance(found, str) else None


def _url_column(uri: str, source: Source) -> str | None:
    """The column of URLs of a table; None: the records of a JSONL name their columns themselves.

    Raises:
        SourceError: there is none.
    """
    if suffix_of(uri) in JSON_LINES:
        return source.url_column
    names = column_types(uri) if suffix_of(uri) in PARQUET else column_names(uri) or []
    found = _choose(names, source)
    if found is None:
        wanted = source.url_column or " or ".join(URL_COLUMNS)
        raise SourceError(
            f"{uri}: no column {wanted} of URLs; columns: {shorten(', '.join(names)) or 'none'}; say which one: "
            "url_column: NAME (the first line of a CSV or TSV must name the columns)"
        )
    return found


def _choose(names: Any, source: Source) -> str | None:
    """The column of URLs among the names, or names with types, of a table."""
    wanted = URL_COLUMNS if source.url_column is None else (source.url_column,)
    usable = [n for n in wanted if n in names and (not isinstance(names, dict) or _is_text(names[n]))]
    return usable[0] if usable else None


def _is_text(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        return _is_text(dtype.value_type)
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


# -- reading -----------------------------------------------------------------------------------------------------------


class _Described(NamedTuple):
    """What a table says of a row."""

    columns: dict[str, Any] | None = None
    left_out: tuple[str, ...] = ()
    """Kinds of values that were left out, see `curate.sources.values`."""
    refused: str = "the row has no http(s) URL"
    """Why nothing is asked for, where that is so."""


def _is_refused(place: dict[str, Any]) -> bool:
    refused: bool = place["uri"].startswith(REFUSED)
    return refused


def _describe(places: Sequence[dict[str, Any]], source: Source) -> Iterator[_Described]:
    """What their tables say of some rows of the catalog, in order.

    Raises:
        SourceError: a table is gone, or is not the one that was listed.
    """
    try:
        yield from _each_row(places, source, partial(_describe_row, source=source))
    except SourceError as error:  # of no subclass: what is wrong with a table is wrong with no one picture
        raise SourceError(str(error)) from error


def _each_row(
    places: Sequence[dict[str, Any]],
    source: Source,
    make: Callable[[str, dict[str, Any], Cells | None, str | None], T],
) -> Iterator[T]:
    """What `make` makes of (table, place, its row, column of URLs), for each place; errors as of `_describe`."""
    for key, group in itertools.groupby(places, lambda place: place["key"].rpartition("#")[0]):
        if key not in _tables_of(source):
            _tables_of.cache_clear()  # a table may have come since
        tables = _tables_of(source)
        if key not in tables:
            raise SourceError(
                f"source {source.name}: {source.path}: no table {key} any more, so its captions and "
                "signatures cannot be read; restore it, or start anew with --rebuild all"
            )
        rows = list(group)
        uri, column = tables[key], _url_column(tables[key], source)
        for place, values in zip(rows, _values_of(uri, rows, column, source), strict=True):
            yield make(uri, place, values, column)


@lru_cache(maxsize=16)
def _tables_of(source: Source) -> dict[str, str]:
    """Key to uri of the tables of a source."""
    tables: dict[str, str] = {}
    for file in _find_tables(source, Counter()):
        if is_table(file.uri) and tables.setdefault(file.key, file.uri) != file.uri:
            raise SourceError(
                f"source {source.name}: {tables[file.key]} and {file.uri} have the same key {file.key}; rename one of "
                "them, or make two sources of them"
            )
    return tables


def _values_of(uri: str, rows: Sequence[dict[str, Any]], column: str | None, source: Source) -> Iterator[Cells | None]:
    """The wanted rows of a table; None: one cannot be read any more."""
    if suffix_of(uri) in PARQUET:
        types = column_types(uri)
        own = [name for name, dtype in types.items() if not pa.types.is_binary(dtype)]
        assert column is not None
        columns = list(_carried(own, source, uri))
        yield from read_cells(uri, columns, [place["row"] for place in rows], needed=[column])
        return
    if suffix_of(uri) in DELIMITERS:
        _carried(column_names(uri) or [], source, uri)
    signed = any(lacks_secret(place["uri"]) for place in rows)
    moved = signed and not _begins_there(uri, rows[0], column)
    records = read_records(uri) if moved else read_records(uri, row=rows[0]["row"], offset=rows[0]["offset"])
    for place in rows:
        found = next((record for record in records if record.row >= place["row"]), None)
        if found is None or found.values is None or (found.offset != place["offset"] and not signed):
            yield None
        else:
            yield Cells(found.values, found.left_out)


def _begins_there(uri: str, place: dict[str, Any], column: str | None) -> bool:
    """Whether a row still begins where it did: fresh signatures may have another length than those that were listed."""
    found = next(read_records(uri, row=place["row"], offset=place["offset"]), None)
    text = None if found is None or found.values is None else _url_of(found.values, column)
    return text is not None and encode_uri(strip_secrets(text.strip()).encode(errors="replace")) == place["uri"]


def _carried(names: Sequence[str], source: Source, uri: str) -> Sequence[str]:
    unknown = [name for name in source.columns or () if name not in names]
    if unknown:
        raise SourceError(f"{uri}: no column {unknown[0]!r} to carry; there are: {', '.join(names) or 'none'}")
    return names if source.columns is None else source.columns


def _describe_row(
    uri: str, place: dict[str, Any], cells: Cells | None, column: str | None, source: Source
) -> _Described:
    url = _checked_url(uri, place, cells, column)
    assert cells is not None
    left_out = set(cells.left_out)
    columns = choose_columns(cells.values, left_out, columns=source.columns)
    return _Described(columns, tuple(sorted(left_out)), _why_refused(url))


def _checked_url(uri: str, place: dict[str, Any], cells: Cells | None, column: str | None) -> str:
    """The whole URL of a row.

    Raises:
        SourceError: the row is not the one that was listed; other secrets in its URL do not count.
    """
    text = None if cells is None else _url_of(cells.values, column)
    url = "" if text is None else text.strip()
    listed = encode_uri(strip_secrets(url).encode(errors="replace"))
    if cells is None or (not _is_refused(place) and listed != place["uri"]):
        raise SourceError(
            f"{uri}: row {place['row']} is not the one that was listed, so the table changed; restore it, or start "
            "anew with --rebuild all"
        )
    return url


class _WholeUrls:
    """The URLs of some rows of the catalog as servers are asked for them.

    Tables are read once, when the first URL is wanted from which a secret was taken off, and only for the rows of such.
    """

    def __init__(self, places: Sequence[dict[str, Any]], source: Source) -> None:
        self._places, self._source = places, source
        self._found: dict[int, str] | None = None

    def url_of(self, image: Wanted) -> str:
        """The URL of an image.

        Raises:
            SourceError: its table is gone, or is not the one that was listed.
        """
        if not lacks_secret(image.url):
            return image.url
        if self._found is None:
            secret = [place for place in self._places if lacks_secret(place["uri"])]
            only = self._source.model_copy(update={"columns": ()})
            self._found = {
                place["image_id"]: url for place, url in zip(secret, _each_row(secret, only, _checked_url), strict=True)
            }
        return self._found[image.image_id]


def _is_long(url: str) -> bool:
    return len(url) > MAX_NAME_BYTES or len(url.encode(errors="replace")) > MAX_NAME_BYTES


def _why_refused(url: str) -> str:
    if not url:
        return "the row has no URL"
    if _is_long(url):
        return f"a URL of more than {MAX_NAME_BYTES} bytes"
    return f"{shorten(strip_secrets(url))!r} is no http(s) URL of a picture".encode(errors="replace").decode()
