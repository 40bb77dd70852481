"""Rows in blocks, so that what is computed for them fits in memory."""

from collections.abc import Iterator


def blocks(num_rows: int, block_rows: int, *, start: int = 0) -> Iterator[slice]:
    """Consecutive slices of `block_rows` rows from `start` on, the last one shorter."""
    return (slice(at, min(at + block_rows, num_rows)) for at in range(start, num_rows, block_rows))
