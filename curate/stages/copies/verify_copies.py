"""VerifyCopies: which of the doubtful pairs can be laid over each other; see `verified_pairs.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.show import Section
from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.models.thresholds import verification
from curate.ops.copies.alignment import alignment_score
from curate.stages.copies.aligned_pairs import AlignedPairs
from curate.stages.copies.verified_pairs import least_similarity
from curate.stages.search.neighbors import similarity_section, threshold_fact
from curate.tables import NEIGHBORS


class VerifyFigures(Figures):
    """How many doubtful pairs turned out to be copies."""

    tried: int
    """Pairs that were aligned."""
    verified: int
    """Pairs whose score reached the threshold."""


class VerifyCopies(AlignedPairs):
    """Keeps the candidates that can be laid over each other well enough."""

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair of pool and curated images, -1..1; null: the value known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair with a held-out image, -1..1; null: the value known for the model."""
    weight: Annotated[float, Field(gt=0)] = 0.45
    """Weight of the correlation beside the cosine in the score, > 0; chosen on planted copies, where 0.3 to 0.6 do
    about as well."""
    model: str = ""
    """Id of the copy-detection model that the thresholds belong to; recipes set it."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = verification(self.model)
        chosen = {"threshold": known.threshold, "heldout_threshold": known.heldout_threshold}
        return self.model_copy(update={name: value for name, value in chosen.items() if getattr(self, name) is None})

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        parts = Parts.of(catalog)
        for rows, correlation in self.align(part, pieces, pictures):
            score = alignment_score(rows["similarity"].to_numpy(), correlation, weight=self.weight)
            kept = score >= least_similarity(self, rows, parts)
            columns = [rows["query_id"].to_numpy()[kept], rows["image_id"].to_numpy()[kept], score[kept]]
            kinds = pa.array(["aligned"] * int(kept.sum()), pa.string())
            yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def summarize(self, table: Table, **inputs: Any) -> VerifyFigures:
        return VerifyFigures(tried=inputs["candidates"].num_rows(), verified=table.num_rows())

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Half of the doubtful pairs are copies."""
        made = Shape(pool=inputs["candidates"].rows / 2)
        return self.demand(inputs, written=made.num_bytes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield threshold_fact(self, table)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        yield from similarity_section(self, table, run)
