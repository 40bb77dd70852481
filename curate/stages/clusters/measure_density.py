"""MeasureDensity: how alike each image of the pool is to its nearest neighbors; `find_junk.py` says what it tells."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes, catalog_parts, edge_bytes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import part_of
from curate.engine.shuffle import Scattered, partition
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

    def scatter(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Iterator[Scattered]:
        yield from partition(neighbors.select(NEIGHBORS.names[:3]), part_of(neighbors["query_id"].to_numpy()))

    def condense(self, pieces: pa.Table) -> pa.Table:
        return pa.Table.from_arrays(list(map(pa.array, self._nearest(pieces))), schema=pieces.schema)

    def _nearest(self, pieces: pa.Table) -> Edges:
        """The nearest of each image, each once though several lists may have found it."""
        return merge_top_k(Edges(*(pieces[name].to_numpy() for name in NEIGHBORS.names[:3])), self.num_neighbors)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        near = self._nearest(pieces)
        images, place = np.unique(near.query_ids, return_inverse=True)
        total = np.bincount(place, near.similarity.astype(np.float64), minlength=len(images))
        mean = total / np.maximum(1, np.bincount(place, minlength=len(images)))
        yield pa.RecordBatch.from_arrays([pa.array(images), pa.array(mean.astype(np.float32))], schema=DENSITY)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        made = Shape(pool=given.kept_images, row_bytes=ID_BYTES + 4, parts=catalog_parts(inputs), columns=2)
        sent = Sent(found.rows, found.parts, made.parts, row_bytes=edge_bytes(given), memory_bytes=20)
        demand = Demand(rows=2 * found.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given)]), made
