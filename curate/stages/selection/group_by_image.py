"""GroupByImage: the neighbors of curated queries, regrouped by the pool image that was found."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import part_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.tables import CATALOG, NEAREST


class GroupByImage(Shuffle):
    """Sends each neighbor to the part of its image, so that retrieval of a part reads the rows of its own images."""

    inputs: ClassVar[dict[str, Input]] = {"nearest": each(NEAREST), "catalog": whole(CATALOG)}
    parts_like: ClassVar[str | None] = "catalog"

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def scatter(self, part: int, *, nearest: pa.Table, catalog: Table) -> Iterator[Scattered]:
        yield from partition(nearest, part_of(nearest["image_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        yield from pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")]).to_batches()

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        near: Shape = inputs["nearest"]
        made = near._replace(parts=catalog_parts(inputs))
        sent = Sent(near.rows, near.parts, made.parts, row_bytes=near.row_bytes + 2, memory_bytes=24)
        demand = Demand(rows=2 * near.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given)]), made
