"""VerifyCopies: which of the doubtful pairs can be laid over each other; see `verified_pairs.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts, part_of
from curate.engine.show import Section
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.models.thresholds import verification
from curate.ops.copies.alignment import align, alignment_score
from curate.ops.vectors import unpack
from curate.stages.copies.verified_pairs import ROWS_AT_ONCE, SmallPictures, least_similarity
from curate.stages.search.neighbors import similarity_section, threshold_fact
from curate.tables import CANDIDATES, CATALOG, NEIGHBORS, VECTORS


class VerifyFigures(Figures):
    """How many doubtful pairs turned out to be copies."""

    tried: int
    """Pairs that were aligned."""
    verified: int
    """Pairs whose score reached the threshold."""


class VerifyCopies(Shuffle):
    """Keeps the candidates that can be laid over each other well enough."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(CANDIDATES),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair of pool and curated images, -1..1; null: the value known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair with a held-out image, -1..1; null: the value known for the model."""
    weight: Annotated[float, Field(gt=0)] = 0.45
    """Weight of the correlation beside the cosine in the score, > 0; chosen on planted copies, where 0.3 to 0.6 do
    about as well."""
    model: str = ""
    """Id of the copy-detection model that the thresholds belong to; recipes set it."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        schema: pa.Schema = inputs["candidates"]
        return schema

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = verification(self.model)
        chosen = {"threshold": known.threshold, "heldout_threshold": known.heldout_threshold}
        return self.model_copy(update={name: value for name, value in chosen.items() if getattr(self, name) is None})

    def scatter(
        self, part: int, *, candidates: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each pair, with the small picture of its query, to the part of the other image."""
        yield from partition(candidates, part_of(candidates["image_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        pairs = pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        lookup, parts = SmallPictures(pictures, part), Parts.of(catalog)
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            yield self._judge(pairs.slice(start, ROWS_AT_ONCE), lookup, parts)

    def _judge(self, rows: pa.Table, lookup: SmallPictures, parts: Parts) -> pa.RecordBatch:
        """The edges among these pairs."""
        from curate.models.device import resolve_device

        queries, _ = unpack(rows["vector"], lookup.spec)
        images = lookup.of(rows["image_id"].to_numpy())
        correlation = align(queries, images, device=str(resolve_device(self.device)))
        score = alignment_score(rows["similarity"].to_numpy(), correlation, weight=self.weight)
        kept = score >= least_similarity(self, rows, parts)
        columns = [rows["query_id"].to_numpy()[kept], rows["image_id"].to_numpy()[kept], score[kept]]
        kinds = pa.array(["aligned"] * int(kept.sum()), pa.string())
        return pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def summarize(self, table: Table, **inputs: Any) -> VerifyFigures:
        return VerifyFigures(tried=inputs["candidates"].num_rows(), verified=table.num_rows())

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Half of the doubtful pairs are copies."""
        pairs, pictures = inputs["candidates"], inputs["pictures"]
        made = Shape(pool=pairs.rows / 2)
        demand = Demand(
            pairs=pairs.rows,
            rows=pairs.rows,
            read=2 * pairs.num_bytes + pictures.num_bytes,
            written=made.num_bytes,
            scratch=pairs.num_bytes,
        )
        return demand, made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield threshold_fact(self, table)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        yield from similarity_section(self, table, run)
