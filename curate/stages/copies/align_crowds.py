"""AlignCrowds: how well the pictures of each pair of look-alikes lie over each other; see `crowd_members.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from curate.config import Execution
from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.copies.alignment import align
from curate.ops.vectors import unpack
from curate.stages.copies.verified_pairs import ROWS_AT_ONCE, SmallPictures
from curate.tables import CANDIDATES, CATALOG, CROWD_PAIRS, VECTORS


class AlignCrowds(Shuffle):
    """Correlates the small pictures of each pair in their best alignment."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(CANDIDATES),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"

    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CROWD_PAIRS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        schema: pa.Schema = inputs["candidates"]
        return schema

    def scatter(
        self, part: int, *, candidates: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each pair, with the small picture of its query, to the part of the other image."""
        yield from partition(candidates, part_of(candidates["image_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        from curate.models.device import resolve_device

        pairs = pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        lookup, device = SmallPictures(pictures, part), str(resolve_device(self.device))
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            rows = pairs.slice(start, ROWS_AT_ONCE)
            queries, _ = unpack(rows["vector"], lookup.spec)
            correlation = align(queries, lookup.of(rows["image_id"].to_numpy()), device=device)
            columns = [rows[name].combine_chunks() for name in ("query_id", "image_id", "similarity")]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(correlation)], schema=CROWD_PAIRS)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs, pictures = inputs["candidates"], inputs["pictures"]
        made = Shape(pool=pairs.rows, row_bytes=EDGE_BYTES)
        demand = Demand(
            pairs=pairs.rows,
            rows=pairs.rows,
            read=2 * pairs.num_bytes + pictures.num_bytes,
            written=made.num_bytes,
            scratch=pairs.num_bytes,
        )
        return demand, made
