"""Which images go into which shard: by their bytes in order, so that it is known before any is read."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from curate.answers.write.images import Images


def cut_shards(images: Images, shard_bytes: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(shard, images of it), in order; each batch lies in one part of the catalog.

    A shard ends with the image that brings it to `shard_bytes`, so that only the last one may be smaller.
    """
    shard, held = 0, 0
    for rows in images.batches():
        sizes, start = rows["num_bytes"].to_numpy(), 0
        while start < len(rows):
            stop = start + 1 + int(np.searchsorted(np.cumsum(sizes[start:]), shard_bytes - held))
            stop = min(stop, len(rows))
            yield shard, rows.slice(start, stop - start)
            held += int(sizes[start:stop].sum())
            if held >= shard_bytes:
                shard, held = shard + 1, 0
            start = stop


def count_shards(images: Images, shard_bytes: int) -> int:
    """How many there are."""
    last = -1
    for shard, _ in cut_shards(images, shard_bytes):
        last = shard
    return last + 1
