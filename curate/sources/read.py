"""What reading yields for one image: its bytes, or why there are none."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

UNAVAILABLE = "unavailable"
"""Reason of an image that could not be had this time."""


class Read(NamedTuple):
    """An image as its source holds it."""

    data: bytes | None = None
    """The encoded image; None: not read, `error` says why."""
    error: str | None = None
    """What was found and what is needed."""
    reject: str | None = None
    """The reason to record: too_large, unreadable, or unavailable, which is no verdict: the next run reads it again."""
    extra: dict[str, Any] | None = None
    """The source's own columns, JSON-ready; None: none."""
    left_out: tuple[str, ...] = ()
    """Kinds of values that these columns lost, see `curate.sources.values.LEFT_OUT`."""
    reserved: str | None = None
    """What its server said against its use, see `curate.sources.reservations`; None: nothing, or nobody asked one."""


def too_large(num_bytes: int | None, max_bytes: int) -> Read:
    """An image that was not read because of its length; `num_bytes` is None where the length is unknown."""
    found = f"{num_bytes}" if num_bytes is not None else f"more than {max_bytes}"
    return Read(error=f"{found} bytes, at most {max_bytes} are read", reject="too_large")


def unreadable(why: str) -> Read:
    """An image that is listed but cannot be read."""
    return Read(error=why, reject="unreadable")


def unavailable(why: str) -> Read:
    """An image that an error that may pass kept away at every attempt.

    Args:
        why: the same words whenever and wherever it happens, since tables hold them.
    """
    return Read(error=why, reject=UNAVAILABLE)


def by_file(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(uri, its rows) of rows of the catalog that follow each other in one file."""
    start = 0
    for uri, group in itertools.groupby(rows["uri"].to_pylist()):
        length = sum(1 for _ in group)
        yield uri, rows.slice(start, length)
        start += length
