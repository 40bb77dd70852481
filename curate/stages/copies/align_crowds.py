"""AlignCrowds: how well the pictures of each pair of look-alikes lie over each other; see `crowd_members.py`."""

from typing import Any

import pyarrow as pa

from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.stages.copies.aligned_pairs import AlignedPairs
from curate.tables import CROWD_PAIRS


class AlignCrowds(AlignedPairs):
    """Correlates the small pictures of each pair in their best alignment."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CROWD_PAIRS

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        for rows, correlation in self.align(part, pieces, pictures):
            columns = [rows[name].combine_chunks() for name in ("query_id", "image_id", "similarity")]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(correlation)], schema=CROWD_PAIRS)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        made = Shape(pool=inputs["candidates"].rows, row_bytes=EDGE_BYTES)
        return self.demand(inputs, written=made.num_bytes), made
