"""Rows dealt to the buckets of a shuffle."""

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa


def deal(rows: pa.Table, bucket: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(bucket, its rows in their order), in order of buckets; `bucket` (N,) holds that of each row, >= 0."""
    order = np.argsort(bucket, kind="stable")
    bounds = np.flatnonzero(np.diff(bucket[order].astype(np.int64), prepend=-1, append=-1))
    for start, stop in itertools.pairwise(bounds.tolist()):
        for batch in rows.take(order[start:stop]).combine_chunks().to_batches():
            yield int(bucket[order[start]]), batch
