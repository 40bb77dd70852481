"""What a shuffle costs as its rows become more: bytes and requests for each byte should stay what they are.

Rows of random bytes are sent to parts in an order that has nothing to do with theirs. Counted is what passes the file
system and what the tasks hold, as every run notes it in the manifests.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import typer

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.counting import Counts
from curate.engine.executors import ExecutorConfig, InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Scan, Shuffle, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.random_keys import random_keys

MB = 1_000_000
PAYLOADS = pa.schema([pa.field("n", pa.int64()), pa.field("payload", pa.binary())])


class Payloads(Scan):
    """Rows of random bytes, numbered."""

    num_rows: int
    part_rows: int
    row_bytes: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Number and bytes."""
        return PAYLOADS

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """Every part with its number."""
        for part, start in enumerate(range(0, self.num_rows, self.part_rows)):
            numbers = np.arange(start, min(start + self.part_rows, self.num_rows))
            data = np.random.default_rng(part).bytes(len(numbers) * self.row_bytes)
            ends = np.arange(len(numbers) + 1, dtype=np.int32) * self.row_bytes
            payload = pa.Array.from_buffers(pa.binary(), len(numbers), [None, pa.py_buffer(ends), pa.py_buffer(data)])
            yield part, pa.table([pa.array(numbers), payload], schema=PAYLOADS)


class Mix(Shuffle):
    """The rows in the order of random keys."""

    inputs: ClassVar[dict[str, Input]] = {"rows": each(PAYLOADS)}
    buckets: int
    row_bytes: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Number and bytes."""
        return PAYLOADS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        """Number and bytes."""
        return PAYLOADS

    def num_parts(self, **inputs: Any) -> int:
        """As many as asked for."""
        return self.buckets

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        """Of all rows."""
        return float(inputs["rows"].num_rows() * (self.row_bytes + 12))

    def scatter(self, part: int, *, rows: pa.Table) -> Iterator[Scattered]:
        """Each row to the bucket of its key."""
        for start in range(0, len(rows), 1024):
            some = rows.slice(start, 1024)
            yield from partition(some, self._bucket(some["n"].to_numpy()))

    def _bucket(self, numbers: np.ndarray) -> np.ndarray:
        found: np.ndarray = random_keys(numbers, seed=0, purpose="shuffle") % np.uint64(self.buckets)
        return found.astype(np.int32)

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        """The rows of one bucket."""
        yield from pieces.to_batches(max_chunksize=1024)


def make(root: Path, num_rows: int, row_bytes: int, part_rows: int, bucket_rows: int, task_memory: int) -> Counts:
    """Make the rows and mix them; returns what the tasks of mixing cost."""
    p = Pipeline(Store(root), seed=0, task_memory=task_memory)
    rows = p.add("rows", Payloads(num_rows=num_rows, part_rows=part_rows, row_bytes=row_bytes))
    p.add("mixed", Mix(buckets=max(1, num_rows // bucket_rows), row_bytes=row_bytes), rows=rows)
    p.run(InProcess(1), Flags())
    counted = p.store.table("mixed").complete_manifest().counted
    return Counts.sum(counts for phase, counts in counted.items() if phase != "driver")


def figures_of(name: str, num_bytes: float, found: Measured, before: tuple[float, Counts] | None) -> Iterator[Figure]:
    """What mixing cost for each byte of the rows, beside the same of half as many."""
    counts: Counts = found.result
    units = {
        "bytes read": (lambda c: c.bytes_read, 1.0, "a byte"),
        "bytes written": (lambda c: c.bytes_written, 1.0, "a byte"),
        "requests": (lambda c: c.requests, MB, "a MB"),
        "opens": (lambda c: c.opens, MB, "a MB"),
        "CPU": (lambda c: c.cpu_seconds, 1000 * MB, "s a GB"),
        "peak of a task": (lambda c: c.peak_task_bytes / MB, num_bytes, "MB"),
    }
    for what, (of, each_bytes, unit) in units.items():
        peer = None
        if before is not None:
            peer = of(before[1]) / (before[0] if what != "peak of a task" else num_bytes) * each_bytes
        yield Figure(f"{name}: {what}", of(counts) / num_bytes * each_bytes, unit, "half", peer, better="lower")


def command(
    megabytes: Annotated[float, typer.Option(help="Of the smallest size; each further one has twice as many.")] = 200,
    sizes: Annotated[int, typer.Option(help="How many sizes.")] = 3,
    row_bytes: Annotated[int, typer.Option(help="Of a row.")] = 2000,
    part_megabytes: Annotated[float, typer.Option(help="Of an input part.")] = 8,
    bucket_megabytes: Annotated[float, typer.Option(help="Of a part of the result.")] = 4,
    task_memory: Annotated[str, typer.Option(help="As executor.task_memory.")] = "64MiB",
    json: Json = False,
) -> None:
    """A shuffle of N, 2N and 4N rows: bytes, opens, requests, memory and CPU time for each byte."""
    memory = ExecutorConfig(task_memory=task_memory).task_bytes
    figures: list[Figure] = []
    before = None
    for size in range(sizes):
        num_rows = int(megabytes * MB * 2**size / row_bytes)
        shape = (num_rows, row_bytes, int(part_megabytes * MB / row_bytes), int(bucket_megabytes * MB / row_bytes))
        with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            found = measured(make, Path(folder), *shape, memory)
        num_bytes = float(num_rows * row_bytes)
        figures += figures_of(f"{num_bytes / MB:,.0f} MB", num_bytes, found, before)
        before = num_bytes, found.result
    show(figures, json)
