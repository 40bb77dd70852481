"""What one part of `duplicates` adds to figures, whichever stage judged."""

from typing import ClassVar, Self

import pyarrow as pa
from pydantic import Field

from curate.engine.tallies import Tally
from curate.stages.images.image_tally import value_counts


class VerdictTally(Tally):
    """Images of the pool by verdict."""

    columns: ClassVar[tuple[str, ...]] = ("verdict",)

    verdicts: dict[str, int] = Field(default_factory=dict)
    """Images by verdict."""

    @property
    def kept(self) -> int:
        """Images that stay."""
        return self.verdicts.get("kept", 0)

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(verdicts=value_counts(rows["verdict"]))
