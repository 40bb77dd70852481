"""MeasureCrowds: how well each image in a crowd agrees with those that it resembles; see `crowd_members.py`."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import Sent, one_process, shuffled
from curate.engine.figures import Figures
from curate.engine.image_ids import part_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.copies.crowds import Surroundings, Usual, surroundings, usual
from curate.stages.copies.crowd_members import CrowdMembers, members_read
from curate.stages.copies.find_crowds import CROWD_SHARE
from curate.tables import CATALOG, CROWDS, REGISTERED, SURROUNDINGS

CROWD_PAIRS = 0.3
"""Share of the pairs that are laid over each other whose images stand in crowds, as the cost law assumes."""
PIECE_BYTES = 6
"""Bytes of an image and an agreement on their way."""
PIECE = pa.schema([REGISTERED.field(name) for name in ("image_id", "least_agreement")])


class SurroundingsFigures(Figures):
    """What is usual in the crowds of this run."""

    middle: float | None
    """Median over the images of their median; null: none has enough pairs."""
    spread: float
    """The same of their standard deviations."""


class MeasureCrowds(Shuffle):
    """Median and spread of the agreements of each image, by Fisher's transform."""

    inputs: ClassVar[dict[str, Input]] = {
        "registered": each(REGISTERED),
        "crowds": whole(CROWDS),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 2
    parts_like: ClassVar[str | None] = "catalog"

    min_pairs: Annotated[int, Field(ge=2)] = 3
    """Pairs of an image from which on its surroundings are known, >= 2; with fewer, the usual of crowds is taken."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return SURROUNDINGS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return PIECE

    def scatter(self, part: int, *, registered: pa.Table, crowds: Table, catalog: Table) -> Iterator[Scattered]:
        """The agreement of each pair to the parts of both of its images."""
        members = CrowdMembers.of(crowds)
        for name in ("query_id", "image_id"):
            rows = pa.table([registered[name], registered["least_agreement"]], schema=PIECE)
            rows = rows.filter(pa.array(members.have(rows["image_id"].to_numpy())))
            yield from partition(rows, part_of(rows["image_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, crowds: Table, catalog: Table) -> Batches:
        if len(pieces):
            ids, agreement = pieces["image_id"].to_numpy(), pieces["least_agreement"].to_numpy()
            found = surroundings(ids, agreement, min_pairs=self.min_pairs)
            yield pa.RecordBatch.from_arrays([*map(pa.array, found)], schema=SURROUNDINGS)

    def summarize(self, table: Table, **inputs: Any) -> SurroundingsFigures:
        found = usual(_rows(table))
        return SurroundingsFigures(middle=found.middle if np.isfinite(found.middle) else None, spread=found.spread)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs: Shape = inputs["registered"]
        made = Shape(pool=given.images * CROWD_SHARE, row_bytes=10, parts=catalog_parts(inputs), columns=3)
        sent = Sent(2 * CROWD_PAIRS * pairs.rows, pairs.parts, made.parts, row_bytes=PIECE_BYTES, memory_bytes=12)
        demand = Demand(rows=2 * pairs.rows, written=made.num_bytes)
        alone = one_process([made.scanned()])  # for what is usual in all of them
        return Demand.phases([demand, shuffled(sent, given), members_read(inputs), alone]), made


def read_surroundings(table: Table) -> Surroundings:
    """The rows of the table of `MeasureCrowds`; a process reads them once: 16 bytes an image in a crowd."""
    return _read(table.store.address, table.name, tuple(part.content for part in table.parts()))


@lru_cache(maxsize=1)
def _read(root: str, name: str, contents: tuple[str, ...]) -> Surroundings:
    """`contents` of the parts tell one table from another of that name."""
    return _rows(Store(root).table(name))


def _rows(table: Table) -> Surroundings:
    rows = table.read_all()
    return Surroundings(*(rows[name].to_numpy() for name in SURROUNDINGS.names))


def usual_surroundings(table: Table) -> Usual:
    """What is usual in all crowds, as the table's figures tell."""
    found = SurroundingsFigures.of(table)
    return Usual(float("inf") if found.middle is None else found.middle, found.spread)
