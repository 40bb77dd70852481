"""The sources' own columns in the shards: their names, and the type that holds all values of one."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal

import pyarrow as pa

from curate.sources.limits import MAX_IMAGE_COLUMNS
from curate.tables import OWN_NAMES

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
    while plain.startswith(PREFIX) and plain not in OWN_NAMES:
        plain = plain.removeprefix(PREFIX)
    return PREFIX + name if plain in OWN_NAMES else name


def named_rows(texts: Iterable[str | None]) -> list[dict[str, Any]]:
    """The own columns of images by their names in the shards, from the JSON texts of `images.extra`."""
    values = (json.loads(text) if text else {} for text in texts)
    return [{own_name(name): value for name, value in row.items()} for row in values]


MAX_COLUMNS = MAX_IMAGE_COLUMNS
"""Own columns of the shards at most: the most frequent ones stay."""
MAX_COUNTED = 1 << 16
"""Names that are counted at once."""


class ColumnKinds:
    """Collects which kinds of values each column holds.

    Names come from strangers: a million images may have a thousand of their own each. So the rarest are dropped when
    there are more than `MAX_COUNTED`, and the values must then be seen a second time, for the kinds of a column that
    was dropped and came again are not all known.
    """

    def __init__(self, only: Collection[str] | None = None) -> None:
        self._found: dict[str, set[str]] = {}
        self._counts = Counter[str]()
        self._only = only
        self.dropped = False
        """Whether names were dropped, so that a second look is needed: `ColumnKinds(only=this.frequent())`."""

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See the values of some images."""
        for row in rows:
            for name, value in row.items():
                if self._only is None or name in self._only:
                    self._found.setdefault(name, set()).add(_kind(value))
                    self._counts[name] += 1
            if len(self._counts) > MAX_COUNTED:
                self._keep(MAX_COUNTED // 2)

    def names(self) -> Set[str]:
        """Names of the columns that are counted."""
        return self._counts.keys()

    def counted(self) -> Iterator[tuple[str, int, set[str]]]:
        """(name, images, kinds of values) of each column, for `add_counted`."""
        yield from ((name, number, self._found[name]) for name, number in self._counts.items())

    def add_counted(self, columns: Iterable[tuple[str, int, set[str]]]) -> None:
        """See what another one has seen."""
        for name, number, kinds in columns:
            self._found.setdefault(name, set()).update(kinds)
            self._counts[name] += number
        if len(self._counts) > MAX_COUNTED:
            self._keep(MAX_COUNTED // 2)

    def _keep(self, number: int) -> None:
        self.dropped = True
        self._counts = Counter({name: self._counts[name] for name in self._most_frequent(number)})
        self._found = {name: self._found[name] for name in self._counts}

    def _most_frequent(self, number: int) -> list[str]:
        return sorted(self._counts, key=lambda name: (-self._counts[name], name))[:number]

    def frequent(self) -> frozenset[str]:
        """The columns of most images, as many as shards may have; of equal ones the first by name."""
        return frozenset(self._most_frequent(MAX_COLUMNS))

    def columns(self) -> dict[str, ColumnKind]:
        """The type of each column that shards have, in alphabetical order of their names."""
        return {name: _common(self._found[name]) for name in sorted(self.frequent())}

    def left_out(self) -> list[str]:
        """Columns beyond those of the shards, as far as they were counted."""
        return sorted(self._counts.keys() - self.frequent())


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
