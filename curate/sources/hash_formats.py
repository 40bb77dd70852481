"""Hashes out of the files in which they are exchanged, one at a time: memory does not grow with the file.

| file | what is read |
|---|---|
| text | a hash a line, before anything else on it (`md5sum` and PDQ's tools write names behind it); `kind:HASH` too |
| CSV, TSV | columns named by a kind (`md5`, `SHA-1`, `pdq_hash`), or a column of kinds beside one of values |
| JSON, JSON lines | keys as such columns, in objects of any depth: VICS (Project VIC), ThreatExchange, StopNCII |

Each of them may be compressed by gzip. Which columns and keys count is told at `KINDS` and below, by letters and digits
alone, in lower case. The file of a JSON document is never held as a whole: VICS files may have one line of
gigabytes.

A reader yields (line, kind, hash). A kind that is not compared, such as PhotoDNA, comes with an empty hash; what is no
hash comes with the kind UNREADABLE. No error tells what stood there: such lists are confidential.
"""

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from curate.errors import SourceError, foreign_text
from curate.opening import NotRegularFile, open_regular
from curate.text import iterate_lines

Kind = Literal["md5", "sha1", "sha256", "pdq"]
SIZES: dict[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "pdq": 32}
"""Bytes of a hash of each kind that is compared."""
UNREADABLE = ""
"""Kind of what is no hash."""
FoundHash = tuple[int, str, bytes]
"""Line, kind, hash."""

KINDS = {
    f"{before}{kind}{behind}": kind for kind in SIZES for before in ("", "hash", "image") for behind in ("", "hash")
}
"""Names of columns, and values of columns of kinds."""
KINDS |= {"pdqhashvalue": "pdq", "pdqhex": "pdq", "md5sum": "md5", "sha1sum": "sha1", "sha256sum": "sha256"}
KIND_COLUMNS = frozenset(
    ["type", "kind", "hashtype", "hashname", "hashkind", "signaltype", "indicatortype", "fingerprinttype", "algorithm"]
)
"""Columns that say of which kind the hash of the row is."""
VALUE_COLUMNS = frozenset(
    ["hash", "hashvalue", "value", "signal", "signalstr", "signalvalue", "indicator", "rawindicator", "fingerprint"]
)
"""Columns that hold the hash."""
OTHER_KINDS = frozenset(
    ["photodna", "photodnahash", "phash", "dhash", "ahash", "tmk", "videomd5", "sha512", "crc32", "ssdeep"]
)
"""Columns of kinds that are not compared; they are counted."""

_HEX = re.compile(rb"[0-9a-fA-F]+")
_END_OF_WORD = re.compile(rb"[\s,;|]+")
_SIGN = re.compile(r'["{}\[\]]')
_DECODER = json.JSONDecoder()
_CLOSED_BY = {"{": "}", "[": "]"}
_KEYS = KINDS.keys() | VALUE_COLUMNS | KIND_COLUMNS | OTHER_KINDS
BLOCK_CHARS = 1 << 20
MAX_OBJECT_CHARS = 1 << 22
"""Characters of an entry of a JSON list at most."""
PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
}
"""First bytes of files that are not read."""


def read_hashes(path: Path, kind: Kind | None) -> Iterator[FoundHash]:
    """The hashes of a file, in order.

    Args:
        kind: of all hashes that do not say of which kind they are; None: their length says so.

    Raises:
        SourceError: it cannot be read, is compressed in another way, or ends in the middle.
        AmbiguousKind: 64 digits, and neither the file nor `kind` says of what.
    """
    try:
        with _opened(path) as file:
            yield from _parsed(file, kind)
    except (OSError, EOFError, ValueError, RecursionError, csv.Error, zlib.error) as error:
        raise SourceError(f"cannot be read as a list of hashes: {foreign_text(error)}") from error


class AmbiguousKind(SourceError):
    """A hash may be of two kinds."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, unpacked."""
    try:
        file = open_regular(path)
    except NotRegularFile as error:
        raise SourceError(f"{error.strerror}; give a file") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        head = file.peek(8)[:8]
        found = next((name for mark, name in PACKED.items() if head.startswith(mark)), None)
        if found is not None:
            raise SourceError(f"{found}; unpack it, or compress it by gzip")
        if head.startswith(b"\x1f\x8b"):
            yield stack.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=file)))
        else:
            yield file


def _parsed(file: Any, kind: Kind | None) -> Iterator[FoundHash]:
    head = file.peek(4096)[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith((b"{", b"[")):
        text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
        yield from _read_json(text, kind)
        text.detach()
        return
    lines = enumerate(iterate_lines(file), 1)
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        separator = _separator(line)
        if separator is not None:
            yield from _read_table(number, line, separator, lines, kind)
            return
        yield _of_line(number, line, kind)
        break
    for number, line in lines:
        if line and not line.isspace() and not line.lstrip().startswith(b"#"):
            yield _of_line(number, line, kind)


# -- values --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def plain_name(text: str) -> str:
    """A name by its letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _of_line(number: int, line: bytes, kind: Kind | None) -> FoundHash:
    word = _END_OF_WORD.split(line.strip(), maxsplit=1)[0].strip(b"\"'")
    before, colon, value = word.partition(b":")
    if colon:
        named = plain_name(before.decode("ascii", "replace"))
        return _of_value(number, value, KINDS.get(named, named)) if named else (number, UNREADABLE, b"")
    return _of_value(number, word, kind)


def _of_value(number: int, digits: bytes, kind: str | None) -> FoundHash:
    """A hash in hex; `kind` None: its length says of which kind it is."""
    if kind is not None and kind not in SIZES:
        return number, kind, b""
    if not _HEX.fullmatch(digits):
        return number, UNREADABLE, b""
    if kind is None and len(digits) == 64:
        raise AmbiguousKind(f"line {number}: 64 digits may be a SHA-256 or a PDQ hash; set kind to sha256 or pdq")
    if kind is None:
        kind = next((name for name, size in SIZES.items() if 2 * size == len(digits)), UNREADABLE)
    if not kind or len(digits) != 2 * SIZES[kind]:
        return number, UNREADABLE, b""
    return number, kind, bytes.fromhex(digits.decode())


# -- tables --------------------------------------------------------------------------------------------------


def _separator(line: bytes) -> str | None:
    """What stands between the names of columns; None: the line is no head of a table."""
    for separator in (",", "\t", ";", "|"):
        names = _columns(next(csv.reader([line.decode("utf-8", "replace")], delimiter=separator), []))
        if any(name in KINDS or name in VALUE_COLUMNS or name in OTHER_KINDS for name in names):
            return separator
    return None


def _columns(cells: list[str]) -> list[str]:
    return [plain_name(cell) for cell in cells]


def _read_table(
    number: int, head: bytes, separator: str, lines: Iterator[tuple[int, bytes]], kind: Kind | None
) -> Iterator[FoundHash]:
    """The hashes below a head, which stands on line `number`."""
    names = _columns(next(csv.reader([head.decode("utf-8", "replace")], delimiter=separator)))
    wanted = [(place, name) for place, name in enumerate(names) if name in _KEYS]
    rows = csv.reader((line.decode("utf-8", "replace") + "\n" for _, line in lines), delimiter=separator)
    for cells in rows:
        if cells:
            row = {name: cells[place] for place, name in wanted if place < len(cells)}
            yield from _of_row(number + rows.line_num, row, kind)


def _of_row(number: int, row: dict[str, str], kind: Kind | None) -> Iterator[FoundHash]:
    """The hashes of a row or object: one for each column that has one; unreadable where none has."""
    told, read = None, False
    for name, cell in row.items():
        value = cell.strip()
        if not value:
            continue
        if name in KINDS:
            read = True
            yield _of_value(number, value.encode("ascii", "replace"), KINDS[name])
        elif name in OTHER_KINDS:
            read = True
            yield number, name, b""
        elif name in KIND_COLUMNS and told is None:
            told = plain_name(value)
    value = next((cell.strip() for name, cell in row.items() if name in VALUE_COLUMNS and cell.strip()), "")
    if value:
        of = kind if told is None else KINDS.get(told, told)
        yield _of_value(number, value.encode("ascii", "replace"), of)
    elif not read:
        yield number, UNREADABLE, b""


# -- JSON ----------------------------------------------------------------------------------------------------


def _read_json(text: io.TextIOWrapper, kind: Kind | None) -> Iterator[FoundHash]:
    """The hashes of all objects, whatever holds these, and of an array of plain texts.

    Objects are parsed as a whole, but for those that hold more than `MAX_OBJECT_CHARS`: these hold the list.
    """
    opened: list[_Opened] = []
    rest, line, key, ended = "", 1, "", False
    while not ended:
        block = text.read(BLOCK_CHARS)
        ended = not block
        rest += block
        place = 0
        while (sign := _SIGN.search(rest, place)) is not None:
            line += rest.count("\n", place, sign.start())
            place, end, value = sign.start(), sign.end(), None
            if sign[0] in '"{':
                try:
                    value, end = _DECODER.raw_decode(rest, place)
                except json.JSONDecodeError as error:
                    if not ended and len(rest) - place <= MAX_OBJECT_CHARS:
                        break  # it goes on in the next block
                    if sign[0] == '"':
                        raise ValueError(f"line {line}: a text without an end") from error
            if isinstance(value, dict):
                yield from _of_object(line, value, kind)
            elif isinstance(value, str):
                if opened and opened[-1].closer == "]":
                    yield from _of_array(line, value, opened, kind)
                else:
                    key = _key_of(line, value, key)
            else:
                _open_or_close(line, sign[0], key, opened)
            line += rest.count("\n", place, end)
            place = end
        else:
            place = len(rest)
        rest = rest[place:]
    if rest or opened:
        raise ValueError(f"line {line}: the file ends within an object or array: it was cut off")


class _Opened(NamedTuple):
    """An object or array that holds the list, or a part of it."""

    closer: str
    """The sign that closes it."""
    name: str
    """The key that it follows."""


def _open_or_close(line: int, sign: str, key: str, opened: list[_Opened]) -> None:
    if sign in _CLOSED_BY:
        opened.append(_Opened(_CLOSED_BY[sign], key))
    elif not opened or opened.pop().closer != sign:
        raise ValueError(f"line {line}: {sign} closes nothing")


def _of_array(line: int, text: str, opened: list[_Opened], kind: Kind | None) -> Iterator[FoundHash]:
    """The hash that a text in an array is: where a key tells of which kind, or the file is that array."""
    if len(opened) == 1 or opened[-1].name in KINDS:
        yield _of_value(line, text.encode("ascii", "replace"), KINDS.get(opened[-1].name, kind))


def _key_of(line: int, text: str, key: str) -> str:
    """The key that a text of an object is which was not parsed as a whole; `key` is what the text before it was.

    Raises:
        ValueError: it is a hash, so that the object is an entry of the list.
    """
    if key in KINDS and _HEX.fullmatch(text.encode("ascii", "replace")):
        raise ValueError(f"line {line}: an entry of more than {MAX_OBJECT_CHARS:,} characters")
    return plain_name(text)


def _of_object(line: int, found: dict[str, Any], kind: Kind | None) -> Iterator[FoundHash]:
    """The hashes of an object and of those in it; what has none is no entry of the list, such as its head."""
    row: dict[str, str] = {}
    for key, value in found.items():
        name = plain_name(key)
        if isinstance(value, str) and name in _KEYS:
            row[name] = value
            continue
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _of_object(line, inner, kind)
            elif isinstance(inner, str) and name in KINDS:
                yield _of_value(line, inner.encode("ascii", "replace"), KINDS[name])
    if row.keys() - KIND_COLUMNS:
        yield from _of_row(line, row, kind)
