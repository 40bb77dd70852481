"""FindExact: images of equal bytes, by a shuffle on their sha256."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.deal import deal
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.store import Table
from curate.ops.copies.exact import equal_bytes
from curate.stages.images.catalog import parts_of
from curate.stages.images.inspect import accepted_mask
from curate.tables import CATALOG, IMAGES, NEIGHBORS

ROWS_PER_PART = 1 << 20
"""Images of a part, at about which the cutting aims."""


class FindExact(Shuffle):
    """Pairs of accepted images with the same bytes, as stars; see `ops.copies.exact.equal_bytes`."""

    inputs: ClassVar[dict[str, Input]] = {"images": each(IMAGES), "catalog": whole(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGES.field("image_id"), IMAGES.field("sha256").with_nullable(False)])

    def num_parts(self, **inputs: Any) -> int:
        return max(1, round(inputs["catalog"].num_rows() / ROWS_PER_PART))

    def scatter(self, part: int, *, images: pa.Table, catalog: Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        rows = images.select(["image_id", "sha256"]).filter(pa.array(accepted_mask(images))).combine_chunks()
        # The number of the catalog's rows stays while the table is made, so that equal bytes meet in one bucket.
        bucket = _leading(_digests(rows)) % np.uint64(self.num_parts(catalog=catalog))
        yield from deal(rows, bucket)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        parts, ids = parts_of(catalog), pieces["image_id"].to_numpy()
        query, image = equal_bytes(ids, _digests(pieces), role=parts.role[ids >> 32], rank=parts.rank[ids >> 32])
        order = np.lexsort((image, query))
        columns = [query[order], image[order], np.ones(len(order), np.float32)]
        kinds = pa.array(["sha256"] * len(order), pa.string())
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)


def _digests(rows: pa.Table) -> np.ndarray:
    """(N, 32) uint8 of the column `sha256`, which has no nulls."""
    column = pa.chunked_array(rows["sha256"], pa.binary(32)).combine_chunks()
    if len(column) == 0:
        return np.empty((0, 32), np.uint8)
    start = column.offset * 32
    return np.frombuffer(column.buffers()[1], np.uint8)[start : start + 32 * len(column)].reshape(-1, 32)


def _leading(digests: np.ndarray) -> np.ndarray:
    """(N,) uint64: the first eight bytes of each digest."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
