"""Rows on their way from input parts to buckets.

The difficulty: any input part may hold rows of any bucket, and neither all rows nor all buckets fit into memory. A
scatter task therefore holds a bounded amount of rows, writes them sorted by bucket, and Parquet's statistics of the
column `bucket` let the task of a bucket read the row groups that may hold its rows and no others. Within a bucket rows
keep the order of the input parts, so that the result does not depend on which worker was first.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.table import Table

SCATTER_BYTES = 256 << 20
"""Bytes of rows that a scatter task holds before it writes them, sorted by bucket."""
BUCKET = pa.field("bucket", pa.int32(), nullable=False)


def partition(rows: pa.Table, bucket: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (bucket, its rows in their order), in order of buckets.

    Args:
        bucket: (N,) int, the bucket of each row, >= 0.
    """
    order = np.argsort(bucket, kind="stable")
    bounds = np.flatnonzero(np.diff(bucket[order].astype(np.int64), prepend=-1, append=-1))
    for start, stop in itertools.pairwise(bounds.tolist()):
        for batch in rows.take(order[start:stop]).combine_chunks().to_batches():
            yield int(bucket[order[start]]), batch


def with_bucket(schema: pa.Schema) -> pa.Schema:
    """The schema of scattered rows: the bucket first."""
    return pa.schema([BUCKET, *schema], metadata=schema.metadata)


def sorted_by_bucket(rows: Iterator[tuple[int, pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Scattered rows behind their bucket; buckets are in order within each run of `SCATTER_BYTES`.

    Args:
        schema: as `with_bucket` makes it.
    """
    buckets: dict[int, list[pa.RecordBatch]] = {}
    held = 0
    for bucket, batch in rows:
        buckets.setdefault(bucket, []).append(batch)
        held += batch.nbytes
        if held >= SCATTER_BYTES:
            yield from _drain(buckets, schema)
            held = 0
    yield from _drain(buckets, schema)


def _drain(buckets: dict[int, list[pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for bucket in sorted(buckets):
        for batch in buckets[bucket]:
            ids = pa.array(np.full(batch.num_rows, bucket, np.int32))
            yield pa.RecordBatch.from_arrays([ids, *batch.columns], schema=schema)
    buckets.clear()


def read_bucket(pieces: Table, bucket: int) -> pa.Table:
    """The rows of one bucket, in the order of the scattering parts; other row groups are skipped by statistics."""
    found, schema = [], None
    for number in sorted(pieces.committed()):
        with pieces.open(number) as file:
            schema = file.schema_arrow
            for group in range(file.num_row_groups):
                statistics = file.metadata.row_group(group).column(0).statistics
                if statistics is None or statistics.min <= bucket <= statistics.max:
                    table = file.read_row_group(group)
                    found.append(table.filter(pc.equal(table["bucket"], bucket)))
    assert schema is not None
    return (
        pa.concat_tables(found or [schema.empty_table()])
        .drop_columns(["bucket"])
        .replace_schema_metadata(schema.metadata)
    )
