"""FindExact: images of equal bytes, by a shuffle on their SHA-256."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import Parts, part_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.copies.exact import equal_bytes
from curate.stages.images.pictures import accepted_mask
from curate.tables import CATALOG, IMAGES, NEIGHBORS

ROWS_PER_PART = 1 << 20
"""Images whose hashes a part holds, about."""
HASHED_BYTES = 40
"""Bytes of an image id and its hash."""
EXACT_SHARE = 0.1
"""Share of the images that have the bytes of another, as the cost law assumes."""


class FindExact(Shuffle):
    """Finds accepted images with the same bytes: pairs that form stars, see `equal_bytes`."""

    inputs: ClassVar[dict[str, Input]] = {"images": each(IMAGES), "catalog": whole(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGES.field("image_id"), IMAGES.field("sha256").with_nullable(False)])

    def num_parts(self, **inputs: Any) -> int:
        """As many as the catalog's images need: the parts of this table hold hashes, not images of a source."""
        return max(1, round(inputs["catalog"].num_rows() / ROWS_PER_PART))

    def scatter(self, part: int, *, images: pa.Table, catalog: Table) -> Iterator[Scattered]:
        """Each image to a bucket that its hash names."""
        rows = images.select(["image_id", "sha256"]).filter(pa.array(accepted_mask(images))).combine_chunks()
        # The number of the catalog's rows stays while the table is made, so that equal bytes meet in one bucket.
        bucket = _leading(_digests(rows)) % np.uint64(self.num_parts(catalog=catalog))
        yield from partition(rows, bucket)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        parts, ids = Parts.of(catalog), pieces["image_id"].to_numpy()
        query, image = equal_bytes(ids, _digests(pieces), role=parts.role_of(ids), rank=parts.rank[part_of(ids)])
        order = np.lexsort((image, query))
        columns = [query[order], image[order], np.ones(len(order), np.float32)]
        kinds = pa.array(["sha256"] * len(order), pa.string())
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        images: Shape = inputs["images"]
        made = Shape(
            pool=images.rows * EXACT_SHARE,
            row_bytes=edge_bytes(given),
            parts=max(1, round(images.rows / ROWS_PER_PART)),
        )
        sent = Sent(images.rows, images.parts, made.parts, row_bytes=HASHED_BYTES)
        demand = Demand(rows=3 * images.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given)]), made


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
