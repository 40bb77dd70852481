"""The images of the pool by verdict, counted without reading a row: the tables keep these numbers."""

from dataclasses import dataclass
from typing import Self

from curate.answers.rows import Wanted, verdicts_of
from curate.answers.screened import SCREENED
from curate.engine.finished import Finished
from curate.engine.numbers import count, plural
from curate.stages.copies.verdict_tally import VerdictTally
from curate.stages.images.inspect import Inspect, InspectFigures
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import ShardFigures, WriteShards


@dataclass(frozen=True)
class Counts:
    """Images of the pool."""

    listed: int
    kept: int
    dropped: int
    contaminated: int
    rejected: int
    """Those that could not be used, and those that rules reject."""
    unavailable: int
    selected: int | None
    """Images of pool and curated sets that the selection holds; None: the recipe selects nothing."""

    @classmethod
    def of(cls, run: Finished) -> Self:
        """Of a run that has verdicts.

        Raises:
            TableError: it has none.
        """
        verdicts = VerdictTally.of(verdicts_of(run)).verdicts
        inspected, selected, written = run.only(Inspect), run.only(Select), run.only(WriteShards)
        assert inspected is not None  # verdicts are on what it accepted
        figures = InspectFigures.of(inspected[1])
        kept, contaminated = verdicts.get("kept", 0), verdicts.get("benchmark", 0)
        screened = verdicts.get(SCREENED, 0)
        removed = ShardFigures.of(written[1]).removed if written else 0
        return cls(
            listed=run.parts.num_images(["pool"]),
            kept=kept,
            dropped=sum(verdicts.values()) - kept - contaminated - screened,
            contaminated=contaminated,
            rejected=sum(figures.rejected_of("pool").values()) + screened,
            unavailable=figures.unavailable.get("pool", 0),
            selected=selected[1].num_rows() - removed if selected else None,
        )

    def sentence(self) -> str:
        """In words."""
        told = [f"{count(self.kept)} kept", f"{count(self.dropped)} dropped for another image that stays"]
        told += [f"{count(self.contaminated)} contaminated"] if self.contaminated else []
        told += [f"{count(self.rejected)} rejected"] if self.rejected else []
        told += [f"{count(self.unavailable)} unavailable this time"] if self.unavailable else []
        selected = "" if self.selected is None else f" The selection holds {plural(self.selected, 'image')}."
        return f"{plural(self.listed, 'image')} in the pool: {', '.join(told)}.{selected}"

    def number_of(self, wanted: Wanted) -> int | None:
        """How many rows a listing of the pool has; None: only reading tells."""
        known = {
            Wanted.all: self.listed,
            Wanted.kept: self.kept,
            Wanted.dropped: self.dropped,
            Wanted.contaminated: self.contaminated,
            Wanted.rejected: self.rejected + self.unavailable,
            Wanted.selected: self.selected,
        }
        return known.get(wanted)
