"""What one part of `images`, or of vectors, adds to figures."""

from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.tallies import Tally


class RejectTally(Tally):
    """Rejected images, those that are unavailable among them."""

    columns: ClassVar[tuple[str, ...]] = ("image_id", "reject")

    images: int = 0
    """Rows."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """By reason."""
    first_rejected: tuple[int, ...] = ()
    """Ids of the first of them."""

    @property
    def accepted(self) -> int:
        """Images without a reason."""
        return self.images - sum(self.rejected.values())

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        mine = rows.filter(rows["reject"].is_valid())
        first: list[int] = mine["image_id"].slice(0, cls.most).to_pylist()
        return cls(images=len(rows), rejected=value_counts(mine["reject"]), first_rejected=tuple(first))


class HashTally(Tally):
    """Images that have a perceptual hash."""

    columns: ClassVar[tuple[str, ...]] = ("pdq",)

    hashes: int = 0
    """Rows that are not null."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(hashes=len(rows) - rows["pdq"].null_count)


class ImageTally(RejectTally, HashTally):
    """What `Inspect` counts."""

    columns: ClassVar[tuple[str, ...]] = ("image_id", "reject", "pdq", "left_out")

    left_out: dict[str, int] = Field(default_factory=dict)
    """Images whose own columns lost values, by kind of value."""
    first_left_out: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Ids of the first of each kind."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        counts, first = dict[str, int](), dict[str, tuple[int, ...]]()
        for row in np.flatnonzero(rows["left_out"].is_valid().to_numpy()).tolist():
            for kind in rows["left_out"][row].as_py():
                counts[kind] = counts.get(kind, 0) + 1
                first[kind] = (*first.get(kind, ()), rows["image_id"][row].as_py())[: cls.most]
        known = RejectTally.count(rows).model_dump() | HashTally.count(rows).model_dump()
        return cls(**known, left_out=counts, first_left_out=first)


class VectorTally(Tally):
    """Vectors that are not null."""

    columns = ("vector",)

    vectors: int = 0
    """Rows that are not null."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(vectors=len(rows) - rows["vector"].null_count)


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each text occurs in a column without nulls."""
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}
