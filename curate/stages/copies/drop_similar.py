"""DropSimilar: the second half of SemDeDup, verdicts by a threshold on the similarities of `RankWithin`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import Sent, shuffled
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import part_of
from curate.engine.numbers import count
from curate.engine.show import FlowStep
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.copies.decided import Counting
from curate.stages.copies.resolve_decisions import read_decided
from curate.stages.copies.verdict_tally import VerdictTally
from curate.tables import CATALOG, DECIDED, DUPLICATES, JUDGED, RANKED

SIMILAR = "similar"
"""Verdict beside those of `tables.VERDICTS`: another image of the cluster, the partner, stands for this one."""
VERDICT_BYTES = 40
"""Bytes of a row of the verdicts."""


class DropSimilarFigures(Figures):
    """Verdicts, counted."""

    kept: int
    """Images of the pool that stay."""
    similar: int
    """Images that deduplication kept, and that resemble a preferred one of their cluster."""


class DropSimilar(Shuffle):
    """The verdicts of deduplication, and `similar` for images that resemble a preferred one of their cluster.

    An image goes if its similarity to any preferred one exceeds 1 - eps, whether that one stays or not, as in the
    paper. Images that a person keeps, lets represent a group or calls a copy of none stay; so does one that he calls no
    copy of the one that it is most like.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "ranked": each(RANKED),
        "duplicates": whole(DUPLICATES),
        "catalog": whole(CATALOG),
        "decided": whole(DECIDED, optional=True),
    }
    parts_like: ClassVar[str | None] = "catalog"
    tally: ClassVar[type[Tally] | None] = VerdictTally
    explained_as: ClassVar[str] = "similar"

    eps: Annotated[float, Field(ge=0, le=2)] = 0.05
    """Images of cosine above 1 - eps are the same to the backbone, 0..2; look at the sweep in the report."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DUPLICATES if inputs["decided"] is None else JUDGED

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return RANKED

    def scatter(
        self, part: int, *, ranked: pa.Table, duplicates: Table, catalog: Table, decided: Table | None
    ) -> Iterator[Scattered]:
        """Each image that is alike to another one to its own part."""
        similar = ranked.filter(pc.greater(ranked["similarity"], 1 - self.eps)).sort_by("image_id")
        if decided is not None:
            similar = similar.filter(pa.array(~_stays(similar, decided)))
        yield from partition(similar, part_of(similar["image_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, duplicates: Table, catalog: Table, decided: Table | None) -> Batches:
        judged, pieces = duplicates.read(part).combine_chunks(), pieces.sort_by("image_id")
        place = pc.index_in(judged["image_id"], value_set=pieces["image_id"].combine_chunks())
        similar, found = place.is_valid(), pieces.take(place)
        new = {
            "verdict": pa.scalar(SIMILAR, pa.string()),
            "partner_id": found["partner_id"],
            "similarity": found["similarity"],
            "kind": pa.scalar("embedding", pa.string()),
            "direct": pa.scalar(True),
        }
        for name, value in new.items():
            column = pc.if_else(similar, value, judged[name])
            judged = judged.set_column(judged.schema.get_field_index(name), DUPLICATES.field(name), column)
        yield from judged.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> DropSimilarFigures:
        found = VerdictTally.of(table)
        return DropSimilarFigures(kept=found.kept, similar=found.verdicts.get(SIMILAR, 0))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """At most all images are alike to another one."""
        ranked: Shape = inputs["ranked"]
        made = Shape(pool=given.images, row_bytes=VERDICT_BYTES, parts=catalog_parts(inputs), columns=8)
        sent = Sent(ranked.rows, ranked.parts, made.parts, row_bytes=ranked.row_bytes)
        demand = Demand(rows=3 * made.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given), inputs["duplicates"].scanned()]), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        figures = DropSimilarFigures.of(table)
        drops = (("alike to a preferred one of its cluster", figures.similar),)
        yield FlowStep("not look-alikes", figures.kept, drops=drops, kept_out="as alike to the backbone")

    def headline(self, table: Table, run: Finished) -> str:
        return f"{count(DropSimilarFigures.of(table).kept)} kept"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            if row["verdict"] == SIMILAR:
                yield f"dropped: alike to {run.name_image(row['partner_id'])}, cosine {row['similarity']:.4f}"


def _stays(similar: pa.Table, decided: Table) -> np.ndarray:
    """(N,) bool: images that stay by decision of a person, of those that resemble a preferred one."""
    by = read_decided(decided)
    assert by is not None
    ids, partner = similar["image_id"].to_numpy(), similar["partner_id"].to_numpy()
    named: np.ndarray = np.isin(ids, np.concatenate([by.keep, by.represent]))
    return named | Counting(by).off(ids, partner)
