"""Tables that describe many images: Hugging Face's `metadata.csv` (.jsonl, .parquet), img2dataset's Parquet of a shard.

Listing reads the names alone and keeps 12 bytes a row, so that each image is told the number of its row. Reading goes
through the table once for a part of the catalog and keeps the rows that it wants; a CSV is read to its end each time,
since whether a column holds numbers is seen in all of its rows.
"""

import contextlib
import csv
import hashlib
import io
import posixpath
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from curate.errors import SourceError
from curate.sources.files import open_file
from curate.sources.limits import MAX_TABLE_COLUMNS
from curate.sources.suffixes import PARQUET, suffix_of
from curate.sources.values import parse_json
from curate.text import encoding_of

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of tables that describe the images of their folder and of those below, as Hugging Face's ImageFolder has it."""
FILE_NAME = "file_name"
"""Column of these tables: the path of an image from the table's folder."""
KEY = "key"
"""Column of img2dataset's tables: the name of an image without its suffix."""
MAX_LINE = 1 << 20
"""Characters of a line of text; a longer one is cut, and its row then is no row of a table."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?([0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")

Row = dict[str, Any] | None
"""A row of a table; None: it cannot be read as one."""


def digest_name(name: bytes) -> int:
    """64 bits that stand for a name."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


class RowIndex:
    """The number of each row by its name; the first of several of one name counts."""

    def __init__(self, names: Iterable[str | None]) -> None:
        hashes, rows, self.num_rows = array("Q"), array("L"), 0
        for row, name in enumerate(names):
            self.num_rows = row + 1
            if name:
                hashes.append(digest_name(posixpath.normpath(name).encode("utf-8", "surrogatepass")))
                rows.append(row)
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable") if hashes else np.empty(0, np.int64)
        self._hashes = array("Q", np.frombuffer(hashes, np.uint64)[order].tobytes() if hashes else b"")
        self._rows = np.frombuffer(rows, np.dtype("L"))[order].astype(np.uint32) if hashes else np.empty(0, np.uint32)
        self._used = bytearray(self.num_rows)

    def find(self, name: bytes) -> int | None:
        """The row of a name; None: there is none."""
        wanted = digest_name(name)
        place = bisect_left(self._hashes, wanted)
        if place == len(self._hashes) or self._hashes[place] != wanted:
            return None
        row = int(self._rows[place])
        self._used[row] = 1
        return row

    def used_rows(self) -> np.ndarray:
        """Rows that were found, ascending."""
        return np.flatnonzero(np.frombuffer(self._used, np.uint8))

    def unused(self) -> tuple[int, int]:
        """(number of rows that were never found, the first of them)."""
        return self._used.count(0), self._used.find(0)


def index_rows(uri: str, column: str) -> RowIndex | None:
    """The rows of a table by the names in a column; None: it has no such column.

    Raises:
        SourceError: it cannot be opened, or is damaged.
    """
    names = _names(uri, column)
    first = next(names, None)  # says whether the column is there
    return RowIndex(names) if first is not None else None


def _names(uri: str, column: str) -> Iterator[str | None]:
    """An empty text once the column is found, then its values."""
    if suffix_of(uri) in PARQUET:
        from curate.sources.parquet import column_types, is_text, read_texts

        types = column_types(uri)
        if column in types and is_text(types[column]):
            yield ""
            yield from read_texts(uri, column)
        return
    rows = _text_rows(uri)
    if suffix_of(uri) == ".csv":
        header = next(rows, None)
        if header is None or column not in header:
            return
        yield ""
    else:
        first = next(rows, None)
        if first is None or column not in first:
            return
        yield ""
        yield _text_of(first, column)
    for row in rows:
        yield _text_of(row, column)


def _text_of(row: Row, column: str) -> str | None:
    value = None if row is None else row.get(column)
    return value if isinstance(value, str) else None


class TableRow(NamedTuple):
    """What a row of a table says."""

    values: dict[str, Any]
    left_out: tuple[str, ...] = ()
    """Kinds of values that were left out already, see `curate.sources.values`."""


def read_table_rows(uri: str, wanted: Iterable[int]) -> dict[int, TableRow]:
    """The wanted rows of a table, by number; rows that cannot be read are left out.

    Raises:
        SourceError: it cannot be opened, or is damaged.
    """
    numbers = sorted(set(wanted))
    if suffix_of(uri) in PARQUET:
        from curate.sources.parquet import column_types, describing_columns, read_cells

        columns = describing_columns(column_types(uri))
        return {n: TableRow(*cells) for n, cells in zip(numbers, read_cells(uri, columns, numbers), strict=True)}
    chosen = frozenset(numbers)
    if suffix_of(uri) == ".csv":
        return {n: TableRow(row) for n, row in _read_csv(uri, chosen).items()}
    found = ((n, _parse_line(line)) for n, line in enumerate(_json_lines(uri)) if n in chosen)
    return {n: row for n, row in found if row is not None}


def _text_rows(uri: str) -> Iterator[Row]:
    """Rows of a JSONL file, or of a CSV: of the latter first one whose keys are the names of the columns."""
    if suffix_of(uri) == ".csv":
        with _open_text(uri) as text:
            yield from _csv_rows(_lines(text), uri)
    else:
        for row in map(_parse_line, _json_lines(uri)):
            yield None if row is None else row.values


def _json_lines(uri: str) -> Iterator[str]:
    with _open_text(uri) as text:
        yield from (line for line in _lines(text) if line.strip())


@contextlib.contextmanager
def _open_text(uri: str) -> Iterator[io.TextIOWrapper]:
    with open_file(uri) as file:
        head = file.read(4)
        file.seek(0)
        encoding, mark = encoding_of(head)
        file.seek(mark)
        with io.TextIOWrapper(file, encoding, errors="replace", newline="") as text:
            yield text


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    return iter(lambda: text.readline(MAX_LINE), "")


def _parse_line(line: str) -> TableRow | None:
    left_out: set[str] = set()
    value = parse_json(line.encode("utf-8", "surrogatepass"), left_out)
    return TableRow(value, tuple(sorted(left_out))) if isinstance(value, dict) else None


def _csv_rows(lines: Iterator[str], uri: str) -> Iterator[Row]:
    reader = csv.reader(lines)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a field of 128 KiB, say
            if header is not None:
                yield None
                continue
            return
        if header is None:
            if len(cells) > MAX_TABLE_COLUMNS:
                raise SourceError(
                    f"{uri}: {len(cells):,} columns, at most {MAX_TABLE_COLUMNS:,} are read; write the wanted ones to "
                    "another file"
                )
            header = cells
            yield dict.fromkeys(header)
        elif cells:
            yield dict(zip(header, cells, strict=False))


def _read_csv(uri: str, wanted: frozenset[int]) -> dict[int, dict[str, Any]]:
    rows = _text_rows(uri)
    header: Row = next(rows, None)
    integers = dict.fromkeys(header or {}, True)
    numbers = dict(integers)
    found: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        for name, cell in (row or {}).items():
            if cell and numbers[name]:
                integers[name] = integers[name] and _INTEGER.fullmatch(cell) is not None
                numbers[name] = integers[name] or _NUMBER.fullmatch(cell) is not None
        if number in wanted and row is not None:
            found[number] = row
    return {n: {name: _cell(row[name], integers[name], numbers[name]) for name in row} for n, row in found.items()}


def _cell(text: str, integer: bool, number: bool) -> str | int | float | None:
    """A cell as its column has it: numbers where all cells are, and nothing where it is empty."""
    if not text:
        return None
    if integer:
        return int(text)
    return float(text) if number else text
