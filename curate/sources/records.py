"""Records of CSV, TSV and JSONL files, one after the other, each with the place where it begins.

The files are foreign and may be larger than memory. A record that cannot be read costs itself alone: a quotation mark
that is never closed would make one record of all that follows, so that reading goes on behind the line it stands in.
The byte at which each record begins lets a later task start in the middle of a file.
"""

import csv
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from curate.errors import SourceError
from curate.retrying import retry
from curate.sources.files import open_file
from curate.sources.limits import MAX_TABLE_COLUMNS
from curate.sources.suffixes import suffix_of
from curate.sources.uri import is_remote
from curate.sources.values import parse_json

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = frozenset({".jsonl", ".ndjson"})
MAX_LINE_BYTES = 1 << 20
"""A longer line describes no one picture."""
MAX_RECORD_BYTES = 4 << 20
"""Bytes of a record of several lines."""

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Record(NamedTuple):
    """A record of a file."""

    row: int
    """Number in the file, from 0; the line of names and empty lines do not count."""
    offset: int
    """Byte at which it begins."""
    values: dict[str, Any] | None
    """By column; an empty field of a CSV is None. None: the record cannot be read."""
    left_out: tuple[str, ...] = ()
    """Kinds of values that were left out already, see `curate.sources.values`."""


def column_names(uri: str) -> list[str] | None:
    """The names in the first line of a CSV or TSV; None: the records of a JSONL name their columns themselves.

    Raises:
        SourceError: the file has no line of names, or is not in UTF-8.
    """
    if suffix_of(uri) in JSON_LINES:
        return None
    with open_file(uri) as file:
        return _header(_Lines(file, uri), uri)


def read_records(uri: str, *, row: int = 0, offset: int = 0) -> Iterator[Record]:
    """The records of a file, from the one at `offset` on, whose number is `row`; 0: from the first one on.

    Raises:
        SourceError: the file cannot be opened, has no line of names, or is not in UTF-8.
    """
    with open_file(uri) as file:
        lines = _Lines(file, uri)
        if suffix_of(uri) in JSON_LINES:
            found = _json_records(lines.moved_to(offset))
        else:
            names = _header(lines, uri)
            found = _csv_records(lines.moved_to(offset), names, DELIMITERS[suffix_of(uri)])
        for number, record in enumerate(found, row):
            yield record._replace(row=number)


class _Lines:
    """The lines of a file as text, for `csv.reader`; it knows where the next one begins, and can go back.

    Bytes that are no UTF-8 become lone surrogates, so that one such field costs itself alone.
    """

    def __init__(self, file: Any, uri: str) -> None:
        self._file, self._uri, self._remote = file, uri, is_remote(uri)
        self.offset = 0
        """Where the next line begins."""
        self.ended = False
        """Whether a line was asked for behind the last one."""
        self._start = 0
        self._second: int | None = None

    def moved_to(self, offset: int) -> "_Lines":
        """The lines from a byte on; 0: as they are."""
        if offset:
            self._file.seek(offset)
            self.offset = offset
        return self

    def begin(self) -> int:
        """Where the next line begins; what is read from there on is one record."""
        self._start, self._second = self.offset, None
        return self.offset

    def go_back(self) -> None:
        """Take back all lines of the record but the first."""
        assert self._second is not None
        self.offset, self.ended = self._second, False
        self._file.seek(self.offset)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        start, line = self.offset, self._read()
        if not line:
            self.ended = True
            raise StopIteration
        if start == 0 and line.startswith(_UTF16_BOMS):
            raise SourceError(f"{self._uri}: written in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")
        self.offset += len(line)
        end = line
        while len(line) > MAX_LINE_BYTES and end and not end.endswith(b"\n"):
            end = self._read()
            self.offset += len(end)
        self._second = self._second or self.offset
        if len(line) > MAX_LINE_BYTES or self.offset - self._start > MAX_RECORD_BYTES:
            raise csv.Error("too long")
        return (line.removeprefix(_UTF8_BOM) if start == 0 else line).decode("utf-8", "surrogateescape")

    def _read(self) -> bytes:
        def read() -> bytes:
            if self._remote:
                self._file.seek(self.offset)  # an attempt that failed may have moved it
            line: bytes = self._file.readline(MAX_LINE_BYTES + 1)
            return line

        return retry(read, where=self._uri, remote=True) if self._remote else read()


def _header(lines: _Lines, uri: str) -> list[str]:
    try:
        text = next(lines)
    except (StopIteration, csv.Error) as error:
        raise SourceError(f"{uri}: no line of column names; write one, for example url,caption") from error
    try:
        names = next(csv.reader([text], delimiter=DELIMITERS[suffix_of(uri)]), [])
    except csv.Error as error:
        raise SourceError(
            f"{uri}: its line of column names cannot be read ({error}); write one of short names"
        ) from error
    if len(names) > MAX_TABLE_COLUMNS:
        raise SourceError(
            f"{uri}: {len(names):,} columns, at most {MAX_TABLE_COLUMNS:,} are read; write the wanted ones to another "
            "file"
        )
    return [name.encode("utf-8", "replace").decode().strip() for name in names]


def _csv_records(lines: _Lines, names: list[str], delimiter: str) -> Iterator[Record]:
    """Records whose numbers are still to be set."""
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        start = lines.begin()
        try:
            fields = next(reader, None)
        except csv.Error:
            fields = None
        else:
            if fields is None:
                return
            if fields == []:  # an empty line
                continue
        if fields is None or lines.ended:  # too long, or a quotation mark that is open at the end of the file
            lines.go_back()
            reader = csv.reader(lines, delimiter=delimiter)
            yield Record(0, start, None)
        else:
            yield Record(0, start, _named(names, fields))


def _named(names: list[str], fields: list[str]) -> dict[str, Any]:
    """The fields by column: of two columns of one name the first, and None where there is no field."""
    values: dict[str, Any] = {}
    for name, field in itertools.zip_longest(names, fields[: len(names)]):
        if name:
            values.setdefault(name, field or None)
    return values


def _json_records(lines: _Lines) -> Iterator[Record]:
    """Records whose numbers are still to be set."""
    while True:
        start = lines.begin()
        try:
            line = next(lines)
        except StopIteration:
            return
        except csv.Error:  # too long
            yield Record(0, start, None)
            continue
        if line.strip():
            left_out: set[str] = set()
            value = parse_json(line.encode("utf-8", "surrogateescape"), left_out)
            yield Record(0, start, value if isinstance(value, dict) else None, tuple(sorted(left_out)))
