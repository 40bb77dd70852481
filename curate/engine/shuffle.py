"""Rows on their way from input parts to buckets: pieces sorted by bucket, so that a bucket reads its row groups."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.store import Table

SCATTER_BYTES = 256 << 20
"""Rows a scatter task holds before it writes them, sorted by bucket."""
BUCKET = pa.field("bucket", pa.int32(), nullable=False)


def by_bucket(rows: Iterator[tuple[int, pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Prefix scattered rows with their bucket; buckets in order within each memory-bounded run."""
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
