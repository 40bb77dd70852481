"""The sources' own columns in the shards: their names, and the type that holds all values of one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from curate.tables import SHARD_COLUMNS

PREFIX = "source_"

ColumnKind = Literal["bool", "int64", "float64", "string"]
_TYPES = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}


def own_name(name: str) -> str:
    """What a column of a source is called in the shards: as in the source, where it hides none of ours.

    A source that was itself written by `curate` has all of our names, and after two rounds those of both. So each of
    our names gets one more `source_` in front of it whenever it comes in: `width` becomes `source_width`, and what was
    `source_width` becomes `source_source_width`. No two columns ever meet, and none of this run is hidden.
    """
    plain = name
    while plain.startswith(PREFIX) and plain not in SHARD_COLUMNS.names:
        plain = plain.removeprefix(PREFIX)
    return PREFIX + name if plain in SHARD_COLUMNS.names else name


def named_rows(texts: Iterable[str | None]) -> list[dict[str, Any]]:
    """The own columns of images by their names in the shards, from the JSON texts of `images.extra`."""
    values = (json.loads(text) if text else {} for text in texts)
    return [{own_name(name): value for name, value in row.items()} for row in values]


class ColumnKinds:
    """Collects which kinds of values each column holds."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See the values of some images."""
        for row in rows:
            for name, value in row.items():
                self._found.setdefault(name, set()).add(_kind(value))

    def columns(self) -> dict[str, ColumnKind]:
        """The type of each column, in alphabetical order of their names."""
        return {name: _common(self._found[name]) for name in sorted(self._found)}


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= 2**53:
            return "int64"
        return "wide" if -(2**63) <= value < 2**63 else "string"  # wide: exact as int64, but not as float64
    return "float64" if isinstance(value, float) else "string"


def _common(kinds: set[str]) -> ColumnKind:
    """The type that holds all values of a column; string (JSON where needed) if nothing else does."""
    found = kinds - {"none"}
    if found and found <= {"int64", "wide"}:
        return "int64"
    if found == {"int64", "float64"}:
        return "float64"
    single = next(iter(found)) if len(found) == 1 else "string"
    return single  # type: ignore[return-value]


def arrow_types(columns: Mapping[str, ColumnKind]) -> dict[str, pa.DataType]:
    """The Arrow type of each column."""
    return {name: _TYPES[kind] for name, kind in columns.items()}


def own_column(rows: Sequence[Mapping[str, Any]], name: str, kind: ColumnKind) -> pa.Array:
    """The values of one column, null where an image has none."""
    values = [row.get(name) for row in rows]
    if kind == "string":
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pa.array(values, _TYPES[kind])


UNFIT = (pa.ArrowException, OverflowError, TypeError)
"""What Arrow raises for a value that is not of a type."""


def first_unfit(rows: Sequence[Mapping[str, Any]], name: str, kind: ColumnKind) -> int:
    """The first of the rows, of which one has such a value, whose value is not of the type."""
    return next(place for place, row in enumerate(rows) if not _fits(row, name, kind))


def _fits(row: Mapping[str, Any], name: str, kind: ColumnKind) -> bool:
    try:
        own_column([row], name, kind)
    except UNFIT:
        return False
    return True
