"""FindCandidates: the pairs that are to be verified, with the small picture of one image; see `verified_pairs.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import Parts, part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.vectors import VectorSpec
from curate.stages.copies.crowd_members import CrowdMembers
from curate.stages.copies.verified_pairs import (
    SmallPictures,
    distinct_pairs,
    least_similarity,
    oriented,
    with_pictures,
)
from curate.tables import CATALOG, CROWDS, NEIGHBORS, VECTORS, candidates_schema


class FindCandidates(Shuffle):
    """Takes the pairs whose cosine does not decide, each once, with the small picture of its query."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "crowds": whole(CROWDS, optional=True),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 2
    parts_like: ClassVar[str | None] = "catalog"

    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of a pair of pool and curated images from which on there is nothing to verify, -1..1."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)]
    """The same cosine for a pair with a held-out image, -1..1."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["pictures"])
        return candidates_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def scatter(
        self, part: int, *, neighbors: pa.Table, crowds: Table | None, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each doubtful pair to the part of its query."""
        parts = Parts.of(catalog)
        doubtful = neighbors["similarity"].to_numpy() < least_similarity(self, neighbors, parts)
        doubtful &= ~CrowdMembers.of(crowds).touch(neighbors)  # those have a judge of their own
        pairs = oriented(neighbors.filter(pa.array(doubtful)), parts)
        yield from partition(pairs, part_of(pairs["query_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, crowds: Table | None, pictures: Table, catalog: Table) -> Batches:
        schema = self.output_schema(pictures=pictures.schema())
        yield from with_pictures(distinct_pairs(pieces), SmallPictures(pictures, part), schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Half of the pairs of a loose search are doubtful."""
        found, pictures = inputs["neighbors"], inputs["pictures"]
        made = Shape(pool=found.rows / 2, row_bytes=EDGE_BYTES + pictures.row_bytes)
        read = 2 * found.num_bytes + pictures.num_bytes
        return Demand(rows=2 * found.rows, read=read, written=made.num_bytes, scratch=found.num_bytes), made
