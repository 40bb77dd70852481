"""Which of the sources' own columns hold classes in the shards: those whose names all sources declare alike.

Classes come as names (see `curate.sources.class_names`), so no image has a wrong one whatever was declared. A column
becomes numbers with a list of names, as it was in the sources, where one list holds for every value of it; where lists
differ, or some source has the column as plain text, it stays text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.sources.class_names import Names


class ClassColumns:
    """Collects what the parts of the catalog declare of the columns that their images have."""

    def __init__(self) -> None:
        self._names: dict[str, Names] = {}
        self._refused: set[str] = set()

    def add(self, declared: Mapping[str, Names | None], rows: Iterable[Mapping[str, Any]]) -> None:
        """See the own columns of some images of one part, and the names that its files declare."""
        known = {column: frozenset(names or ()) for column, names in declared.items()}
        there: set[str] = set()
        for row in rows:
            there.update(row)
            for column, value in row.items():
                if value is not None and not (isinstance(value, str) and value in known.get(column, ())):
                    self._refused.add(column)
        for column in there & declared.keys():
            names = declared[column]
            if names is None or self._names.setdefault(column, names) != names:  # a part of several lists, or parts
                self._refused.add(column)

    def seen(self) -> Iterator[tuple[str, Names | None, bool]]:
        """(name, names of its classes, whether these are not those of all) of each column, for `add_seen`."""
        for column in sorted(self._names.keys() | self._refused):
            yield column, self._names.get(column), column in self._refused

    def add_seen(self, columns: Iterable[tuple[str, Names | None, bool]]) -> None:
        """See what another one has seen."""
        for column, names, refused in columns:
            if refused or (names is not None and self._names.get(column, names) != names):
                self._refused.add(column)
            if names is not None:
                self._names.setdefault(column, names)

    def mixed(self) -> list[str]:
        """Columns that hold classes in some source, but not the same ones in all, in alphabetical order."""
        return sorted(self._names.keys() & self._refused)

    def columns(self) -> dict[str, Names]:
        """The names of each column that holds classes, columns in alphabetical order."""
        return {column: self._names[column] for column in sorted(self._names.keys() - self._refused)}


def class_numbers(rows: Sequence[Mapping[str, Any]], column: str, names: Names) -> pa.Array:
    """(N,) int64: the classes of one column by number, null where an image has none.

    Raises:
        ValueError: a value is none of the names.
    """
    number_of = {name: number for number, name in enumerate(names)}
    values = [row.get(column) for row in rows]
    strange = [value for value in values if value is not None and not (isinstance(value, str) and value in number_of)]
    if strange:
        raise ValueError(f"{column}: {strange[0]!r} is none of its {len(names)} classes")
    return pa.array([None if value is None else number_of[value] for value in values], pa.int64())
