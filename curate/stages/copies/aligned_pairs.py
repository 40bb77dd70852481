"""Stages that lay the pictures of each pair over each other; see `verified_pairs.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.config import Execution
from curate.engine.cost import Demand, Shapes
from curate.engine.image_ids import part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.copies.alignment import align
from curate.ops.vectors import unpack
from curate.stages.copies.verified_pairs import ROWS_AT_ONCE, SmallPictures
from curate.tables import CANDIDATES, CATALOG, VECTORS


class AlignedPairs(Shuffle):
    """Brings each candidate, with the small picture of its query, to the part of the other image, and aligns both."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(CANDIDATES),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"

    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        schema: pa.Schema = inputs["candidates"]
        return schema

    def scatter(
        self, part: int, *, candidates: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each pair to the part of the image that is not its query."""
        yield from partition(candidates, part_of(candidates["image_id"].to_numpy()))

    def align(self, part: int, pieces: pa.Table, pictures: Table) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Pairs in order of (image, query), and the correlation of each in its best alignment, some at a time."""
        from curate.models.device import resolve_device

        pairs = pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        lookup, device = SmallPictures(pictures, part), str(resolve_device(self.device))
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            rows = pairs.slice(start, ROWS_AT_ONCE)
            queries, _ = unpack(rows["vector"], lookup.spec)
            yield rows, align(queries, lookup.of(rows["image_id"].to_numpy()), device=device)

    def demand(self, inputs: Shapes, *, written: float) -> Demand:
        """What scattering and aligning the candidates takes, and writing so many bytes."""
        pairs, pictures = inputs["candidates"], inputs["pictures"]
        read = 2 * pairs.num_bytes + pictures.num_bytes
        return Demand(pairs=pairs.rows, rows=pairs.rows, read=read, written=written, scratch=pairs.num_bytes)
