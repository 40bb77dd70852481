"""FindCrowdPairs: of each image in a crowd the pairs that are worth aligning; see `crowd_members.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import Parts, part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.edges import rank_in_group
from curate.ops.vectors import VectorSpec
from curate.stages.copies.crowd_members import CrowdMembers
from curate.stages.copies.find_crowds import CROWD_SHARE
from curate.stages.copies.verified_pairs import SmallPictures, distinct_pairs, oriented, with_pictures
from curate.tables import CATALOG, CROWDS, NEIGHBORS, VECTORS, candidates_schema


class FindCrowdPairs(Shuffle):
    """Takes the most similar pairs of images in crowds, each once, with the small picture of its query."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "crowds": whole(CROWDS),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"

    max_pairs: Annotated[int, Field(ge=1)] = 32
    """Pairs that an image offers at most, the most similar ones, >= 1: so many a crowded image bound the work. An
    image offers those with larger ids; with as many look-alikes nearer than a copy, the copy is left to the hashes."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["pictures"])
        return candidates_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def scatter(
        self, part: int, *, neighbors: pa.Table, crowds: Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each pair that touches a crowd to the part of its query."""
        touching = CrowdMembers.of(crowds).touch(neighbors)
        pairs = oriented(neighbors.filter(pa.array(touching)), Parts.of(catalog))
        yield from partition(pairs, part_of(pairs["query_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, crowds: Table, pictures: Table, catalog: Table) -> Batches:
        pairs = distinct_pairs(pieces)
        query, similarity = pairs["query_id"].to_numpy(), pairs["similarity"].to_numpy()
        order = np.lexsort((pairs["image_id"].to_numpy(), -similarity, query))
        offered = np.sort(order[rank_in_group(query[order]) < self.max_pairs])
        schema = self.output_schema(pictures=pictures.schema())
        yield from with_pictures(pairs.take(offered), SmallPictures(pictures, part), schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found, pictures = inputs["neighbors"], inputs["pictures"]
        pairs = min(found.rows, given.images * CROWD_SHARE * self.max_pairs)
        made = Shape(pool=pairs, row_bytes=EDGE_BYTES + pictures.row_bytes)
        read = found.num_bytes + pictures.num_bytes
        return Demand(rows=found.rows + pairs, read=read, written=made.num_bytes, scratch=pairs * EDGE_BYTES), made
