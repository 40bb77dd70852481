"""Pictures of the shards that their readers cannot decode, counted and told."""

from collections import Counter
from collections.abc import Iterator
from typing import Self

import pyarrow as pa
from pydantic import Field

from curate.engine.figures import Figures
from curate.engine.numbers import plural
from curate.engine.tallies import Tally


class ReaderTally(Tally):
    """Pictures of one part that readers cannot decode, and repaired ones."""

    columns = ("reader_warning", "repaired")

    warnings: dict[str, int] = Field(default_factory=dict)
    """Step and kind of error to pictures."""
    repaired: int = 0
    """Pictures whose metadata were repaired."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        warnings = Counter(_kind(text) for text in rows["reader_warning"].drop_null().to_pylist())
        return cls(warnings=dict(warnings), repaired=len(rows) - rows["repaired"].null_count)


class ReaderFigures(Figures):
    """Pictures on which `datasets` dies, and those that were repaired."""

    warnings: dict[str, int] = Field(default_factory=dict)
    """Step and kind of error to pictures, the most frequent first."""
    repaired: int = 0
    """Pictures whose metadata were repaired."""

    @classmethod
    def of_tally(cls, found: ReaderTally) -> "ReaderFigures":
        """Of finished shards."""
        ordered = sorted(found.warnings.items(), key=lambda item: (-item[1], item[0]))
        return cls(warnings=dict(ordered), repaired=found.repaired)


def _kind(text: str) -> str:
    """Step and error of a warning, without what the error says of the one picture."""
    return ": ".join(text.split(": ", 2)[:2])


def read_warnings(figures: ReaderFigures) -> Iterator[str]:
    """What to say of pictures that end a loop over the shards."""
    number = sum(figures.warnings.values())
    if number:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in figures.warnings.items())
        yield (
            f"reader_warning: `datasets` cannot decode {plural(number, 'picture')}: {kinds}; leave them out by that "
            "column before decoding, or set write.repair_metadata=true and run again with --rebuild shards/data"
        )
