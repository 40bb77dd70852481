"""What is open after a run: images that an error which may pass kept away, over all tables of a pipeline.

An image may be open in several tables: in those of one pass, and again in a later pass or in the shards. It counts
once where the tables have the rows of the catalog. Tables that leave such images out tell their number alone; of these
the largest counts.
"""

from collections import Counter
from dataclasses import dataclass

from curate.engine.pipeline import Pipeline
from curate.engine.stage import Scan
from curate.engine.table import Table

MAX_KINDS = 8
"""Kinds of errors that are named."""


@dataclass(frozen=True)
class OpenRows:
    """Images that could not be had, and why."""

    images: int
    listed: int
    """Images of the catalog."""
    kinds: tuple[tuple[str, int, str], ...]
    """(what happened, images, uri of the first one), the most frequent first."""

    def describe(self) -> str:
        """How many of how many, and why, with an example of each kind."""
        share = 100 * self.images / max(1, self.listed)
        named = [
            f"{count:,} x {why} ({example})" if example else f"{count:,} x {why}" for why, count, example in self.kinds
        ]
        more = [f"and {len(named) - MAX_KINDS} more kinds"] if len(named) > MAX_KINDS else []
        return (
            f"{self.images:,} of {self.listed:,} images ({share:.2g} %) could not be had: "
            f"{', '.join(named[:MAX_KINDS] + more)}"
        )


def find_open(pipeline: Pipeline) -> OpenRows:
    """What is open in the complete tables of a pipeline."""
    catalog: Table | None = None
    whys, unplaced = dict[tuple[int, int], str](), Counter[str]()
    for name, stage in ((name, stage) for step in pipeline.steps for name, stage in step.stages.items()):
        table = pipeline.store.table(name)
        if not table.is_complete():
            continue
        catalog = table if isinstance(stage, Scan) else catalog
        for part in (part for part in table.parts() if part.open):
            rows = table.open_rows(part.number)
            unplaced[name] += part.open - len(rows)
            for row, why in zip(rows, stage.why_open(table, part.number, rows), strict=True):
                whys.setdefault((part.number, row), why)
    counts, first = Counter[str](), dict[str, tuple[int, int]]()
    for place in sorted(whys):
        counts[whys[place]] += 1
        first.setdefault(whys[place], place)
    kinds = [(why, count, "" if catalog is None else _uri(catalog, first[why])) for why, count in counts.most_common()]
    if elsewhere := max(unplaced.values(), default=0):
        kinds.append((f"open in {max(unplaced, key=lambda name: unplaced[name])}", elsewhere, ""))
    return OpenRows(len(whys) + elsewhere, catalog.num_rows() if catalog else 0, tuple(kinds))


def _uri(catalog: Table, place: tuple[int, int]) -> str:
    part, row = place
    uri: str = catalog.read(part, ["uri"])["uri"][row].as_py()
    return uri
