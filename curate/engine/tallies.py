"""Tallies: what each part adds to the figures of its table, counted while it is written.

Figures of a table that grows with the catalog must not be found by reading its rows again in the driver. So a stage
names a class of counts (`Stage.tally`): the worker counts the rows that it writes, and the counts stay with the part,
in its footer and in the manifest. `Stage.summarize` adds them up and reads no row; a resumed run has those of the parts
that were there. What rows do not tell (pairs that were tried and dropped, what the process knew that made the state of
a Fold) the stage adds by an empty batch, see `tally_batch`; what `Fold.combine` adds stays with part 0.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa
from pydantic import ValidationError

from curate.config import Settings
from curate.errors import TableError

if TYPE_CHECKING:
    from curate.engine.table import Table

TALLY = b"curate.tally"
"""Key of a part's footer: its tally as JSON."""
ADDED = b"curate.added"
"""Key of an empty batch's metadata: what it adds. Not that of the footer, which rows that are read carry along."""


class Tally(Settings):
    """Counts of some rows: numbers add, mappings add by key, and of tuples the first `most` entries stay.

    Every field has a default, that of no rows. Keep it small: the manifest holds one for each part.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    """Columns that `count` reads; empty: rows alone do not tell."""
    most: ClassVar[int] = 5
    """Entries that tuples keep."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        """What some rows of one part add; by default nothing."""
        return cls()

    @classmethod
    def of(cls, table: "Table") -> Self:
        """The sum over the parts of a complete table; see `by_part`."""
        return cls.sum(cls.by_part(table))

    @classmethod
    def by_part(cls, table: "Table") -> list[Self]:
        """The counts of each part of a complete table, in order.

        Parts that a stage without these counts has made are read, one after the other.

        Raises:
            TableError: a part has no such counts, and its rows do not tell them.
        """
        return [cls._of_part(table, part.number, part.tally) for part in table.parts()]

    @classmethod
    def _of_part(cls, table: "Table", number: int, stored: Mapping[str, Any]) -> Self:
        if cls.model_fields.keys() <= stored.keys():
            try:
                return cls.model_validate({name: stored[name] for name in cls.model_fields})
            except ValidationError as error:
                raise TableError(f"{table.name} part {number}: {_no_counts(cls, table.name)}") from error
        if not cls.columns:
            raise TableError(f"{table.name} part {number}: {_no_counts(cls, table.name)}")
        return cls.count(table.read(number, list(cls.columns)))

    @classmethod
    def sum(cls, tallies: Iterable[Self]) -> Self:
        """All of them together, in order."""
        total = plain(cls())
        for tally in tallies:
            add(total, plain(tally), most=cls.most)
        return cls.model_validate(total)


def _no_counts(wanted: type[Tally], table: str) -> str:
    return f"its footer has no {wanted.__name__}: another version of curate made it; run again with --rebuild {table}"


def plain(tally: Tally) -> dict[str, Any]:
    """A tally as JSON holds it."""
    return tally.model_dump(mode="json")


def add(total: dict[str, Any], more: Mapping[str, Any], *, most: int) -> None:
    """Add `more` to `total` in place, both as `plain` makes them; of lists the first `most` entries stay."""
    for name, value in more.items():
        if name not in total:
            total[name] = dict(value) if isinstance(value, dict) else value
        elif isinstance(value, dict):
            add(total[name], value, most=most)
        elif isinstance(value, list):
            total[name] = [*total[name], *value][:most]
        else:
            total[name] += value


def tally_batch(tally: Tally, schema: pa.Schema) -> pa.RecordBatch:
    """An empty batch that adds to the tally of the part which it is written to."""
    marked = schema.with_metadata({**(schema.metadata or {}), ADDED: json.dumps(plain(tally)).encode()})
    return pa.RecordBatch.from_pylist([], schema=marked)
