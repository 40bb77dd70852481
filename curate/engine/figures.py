"""Figures of a finished table, typed: what its stage tells later stages, the report and the command line."""

from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from curate.config import Settings
from curate.errors import TableError

if TYPE_CHECKING:
    from curate.engine.table import Table


class Figures(Settings):
    """What a stage sums up when its table is complete; stages with something to tell declare their own fields."""

    @classmethod
    def of(cls, table: "Table") -> Self:
        """The figures of a complete table, of the class that its stage declares.

        Raises:
            TableError: the table is not complete, or another version of the stage made it.
        """
        try:
            return cls.model_validate(table.complete_manifest().figures)
        except ValidationError as error:
            names = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors()[:3])
            raise TableError(
                f"{table.name}: its figures are not those of {cls.__name__} ({names}); it was made by another version "
                f"of curate: make it again with --rebuild {table.name}"
            ) from error
