"""MeasureDensity: how alike each image of the pool is to its nearest neighbors; see `screen.py` for what it tells."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.edges import Edges, merge_top_k
from curate.tables import CATALOG, DENSITY, NEIGHBORS


class MeasureDensity(Shuffle):
    """Mean cosine of each pool image to its nearest neighbors, gathered from all lists that it probed."""

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS), "catalog": whole(CATALOG)}
    parts_like: ClassVar[str | None] = "catalog"

    num_neighbors: Annotated[int, Field(ge=1)] = 5
    """Number of nearest images of which the mean is taken."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DENSITY

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema(list(NEIGHBORS)[:3])

    def scatter(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from partition(neighbors.select(NEIGHBORS.names[:3]), part_of(neighbors["query_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        edges = Edges(*(pieces[name].to_numpy() for name in NEIGHBORS.names[:3]))
        near = merge_top_k(edges, self.num_neighbors)  # a pair may have been found in several lists
        images, place = np.unique(near.query_ids, return_inverse=True)
        total = np.bincount(place, near.similarity.astype(np.float64), minlength=len(images))
        mean = total / np.maximum(1, np.bincount(place, minlength=len(images)))
        yield pa.RecordBatch.from_arrays([pa.array(images), pa.array(mean.astype(np.float32))], schema=DENSITY)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        made = Shape(pool=given.kept_images, row_bytes=12)
        demand = Demand(
            rows=2 * found.rows, read=2 * found.num_bytes, written=made.num_bytes, scratch=found.num_bytes / 2
        )
        return demand, made
