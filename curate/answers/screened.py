"""What rules say of the images of a part, as a listing tells it."""

from collections.abc import Collection
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.table import Table

COLUMNS = {"reason": "reject", "detail": "detail", "score": "value"}
"""Columns of a listing, and those of `scores` that they are made of."""
SCREENED = "screened"
"""Verdict of `duplicates`, and the reason of an image that goes with a copy which a rule rejects."""


class RuleColumns(NamedTuple):
    """Of all images of a part, (N,) each; null where no rule rejects the image."""

    reason: pa.Array
    detail: pa.Array
    score: pa.Array

    @classmethod
    def read(cls, scores: Table | None, part: int, num_rows: int, names: Collection[str]) -> Self:
        """Those that a listing wants; the others are null.

        Args:
            scores: the table of `Screen`; None: the run screens nothing.
        """
        types = {"reason": pa.string(), "detail": pa.string(), "score": pa.float64()}
        found = {name: pa.nulls(num_rows, dtype) for name, dtype in types.items()}
        if scores is not None:
            wanted = [name for name in COLUMNS if name == "reason" or name in names]
            rows = scores.read(part, [COLUMNS[name] for name in wanted])
            found |= {name: rows[COLUMNS[name]].combine_chunks() for name in wanted}
        return cls(**found)

    def of_rejected(self, verdict: pa.Array) -> "RuleColumns":
        """Null where the image is not rejected all the same, since a person keeps it.

        Args:
            verdict: (N,) as the listing has it.
        """
        gone = pc.equal(verdict, "rejected").fill_null(False)
        return RuleColumns(*(pc.if_else(gone, column, pa.scalar(None, column.type)) for column in self))
