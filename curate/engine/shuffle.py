"""Rows on their way from input parts to buckets.

The difficulty: any input part may hold rows of any bucket, and neither all rows nor all buckets fit into memory. With a
file for each input part, every bucket opens every file: files x buckets opens, which is the square of the data, and
reads of a few bytes. So a scatter task takes a **group** of consecutive input parts and writes **runs**: as many rows
as `run_bytes` hold, sorted by bucket, in segments of one bucket with an index (see `pieces.py`). A run is a quarter of
the memory of a task. A bucket reads one segment of each run, and a segment is large enough to be worth a read as long
as there are no more buckets than F = run_bytes / 1 MiB: 256 where a task has 1 GiB.

Beyond that the rows go two levels, as in an external radix sort: scatter tasks write them by **coarse** bucket, which
is about sqrt(B) consecutive buckets; then the task of a coarse bucket streams its segments in order and writes runs
sorted by bucket. So up to F x F buckets (65,536 of them at 1 GiB) every read holds 1 MiB of rows, and opens and reads
grow with the bytes, not with their square. A coarse bucket of many runs is regrouped in **slices** of groups, which
bound what a killed task costs. Each row is written and read once a level.

Within a bucket rows keep the order of the input parts: groups, runs and slices are in that order, and sorting is
stable. So the result depends neither on the grouping nor on the levels nor on which worker was first. Keeping a file
open for each bucket instead would need no sorting, but object stores cannot append, and 50,000 buckets times a buffer
that is worth a write do not fit into memory.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.engine.pieces import PieceFiles, PieceWriter

TASK_MEMORY = 1 << 30
"""Bytes that a task may use where nothing else is said."""
READ_BYTES = 1 << 20
"""Bytes of rows that a read is worth."""
FEW_READS = 1024
"""Reads of a whole shuffle that need not be worth their while."""
GROUP_RUNS = 4
"""Runs that a group fills, about, so that few are cut short."""
GROUP_BYTES = 4 << 20
"""Bytes of rows that are worth a task of their own, as long as there are few."""
FEW_GROUPS = 128
"""How many: executors with more workers pay off for large data alone."""
SLICE_RUNS = 16
"""Runs that the second level writes into one file, about."""
SEGMENT_BYTES = 8 << 20
"""Bytes of a segment at most, about: larger ones are several."""
MAX_RUN_BYTES = 1 << 30
"""Bytes of a run at most: Arrow's strings end at 2 GiB."""
TEXT_BYTES = 32
"""Of a text, a list or another value of variable length, as a guess."""
BUCKET = pa.field("bucket", pa.int32(), nullable=False)

Scattered = tuple[int | np.ndarray, pa.RecordBatch]
"""Rows and their bucket: one for all, or (N,) int."""
Condense = Callable[[pa.Table], pa.Table]


class Layout(NamedTuple):
    """How the rows of a shuffle travel; every task knows it whole."""

    inputs: int
    """Input parts."""
    groups: int
    """Tasks that scatter them."""
    buckets: int
    coarse: int
    """Coarse buckets of the first level; 0: there is one level."""
    slices: int
    """Files of the second level for each coarse bucket."""
    run_bytes: int
    """Bytes of rows that a task holds before it writes them, sorted."""

    @classmethod
    def plan(
        cls, *, inputs: float, buckets: float, num_bytes: float, raw: bool, task_memory: int = TASK_MEMORY
    ) -> "Layout":
        """The layout for about `num_bytes` of scattered rows in memory.

        Args:
            raw: whether the rows do not compress, see `holds_raw`.
            task_memory: bytes that a task may use.
        """
        inputs, buckets = math.ceil(inputs), math.ceil(buckets)
        run_bytes = max(1, min(task_memory // 4, MAX_RUN_BYTES))
        runs = num_bytes / run_bytes
        worker_loads = max(runs / GROUP_RUNS, min(FEW_GROUPS, num_bytes / GROUP_BYTES))
        groups = max(1, min(inputs, math.ceil(worker_loads)))
        worth = READ_BYTES * (1 if raw else 2)  # what compresses halves, about
        one_level = max(groups, runs) * buckets <= max(FEW_READS, num_bytes / worth)
        if one_level or buckets < 4:
            return cls(inputs, groups, buckets, 0, 0, run_bytes)
        coarse = math.ceil(math.sqrt(buckets))
        slices = max(1, min(groups, math.ceil(runs / coarse / SLICE_RUNS)))
        return cls(inputs, groups, buckets, coarse, slices, run_bytes)

    @property
    def levels(self) -> int:
        """How often each row is written and read."""
        return 2 if self.coarse else 1

    def parts_of(self, group: int) -> range:
        """Input parts of a scatter task."""
        return _share(self.inputs, self.groups, group)

    def coarse_of(self, bucket: np.ndarray) -> np.ndarray:
        """(N,) int64: the coarse bucket of each bucket."""
        found: np.ndarray = bucket.astype(np.int64) * self.coarse // self.buckets
        return found

    def regrouping(self, bucket: int) -> range:
        """Tasks of the second level whose files hold rows of a bucket."""
        coarse = bucket * self.coarse // self.buckets
        return range(coarse * self.slices, (coarse + 1) * self.slices)

    def regrouped(self, task: int) -> tuple[int, range]:
        """The coarse bucket of a task of the second level, and the groups whose files it reads."""
        coarse, part = divmod(task, self.slices)
        return coarse, _share(self.groups, self.slices, part)

    def files_of(self, bucket: int) -> range:
        """Files of the last level that hold rows of a bucket, in order."""
        return self.regrouping(bucket) if self.coarse else range(self.groups)


def _share(total: int, among: int, number: int) -> range:
    """Of `total` consecutive things, those of one of `among`."""
    return range(number * total // among, (number + 1) * total // among)


def num_levels(num_bytes: float, buckets: float, *, raw: bool = False) -> int:
    """How often each row is written and read, for the laws of cost: with the default memory and as many input parts.

    Args:
        num_bytes: of all scattered rows.
        raw: as in `Layout.plan`.
    """
    return Layout.plan(inputs=buckets, buckets=buckets, num_bytes=num_bytes, raw=raw).levels


def partition(rows: pa.Table, bucket: np.ndarray) -> Iterator[Scattered]:
    """Rows with their buckets, as `Shuffle.scatter` yields them.

    Args:
        bucket: (N,) int, the bucket of each row, >= 0.
    """
    start = 0
    for batch in rows.combine_chunks().to_batches():
        yield np.asarray(bucket[start : start + batch.num_rows]), batch
        start += batch.num_rows


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of a row in memory, about."""
    return sum(_width(field.type) for field in schema)


def _width(dtype: pa.DataType) -> int:
    if pa.types.is_struct(dtype):
        return sum(_width(child.type) for child in dtype)
    try:
        return max(1, dtype.bit_width // 8)
    except ValueError:
        return TEXT_BYTES


def with_bucket(schema: pa.Schema) -> pa.Schema:
    """The schema of rows on their way to the second level: the bucket first."""
    return pa.schema([BUCKET, *schema], metadata=schema.metadata)


def write_coarse(file: PieceWriter, rows: Iterable[Scattered], schema: pa.Schema, layout: Layout) -> None:
    """Scattered rows behind their bucket, as runs in order of coarse buckets.

    Args:
        schema: of the rows, without the bucket.
    """
    for bucket, held in _runs(rows, schema, layout.run_bytes):
        behind = held.add_column(0, BUCKET, pa.array(bucket))
        _write_sorted(file, layout.coarse_of(bucket), behind)
        del held, behind  # before the next run is


def write_fine(
    file: PieceWriter, rows: Iterable[Scattered], schema: pa.Schema, layout: Layout, condense: Condense | None
) -> None:
    """Scattered rows as runs in order of buckets.

    Args:
        condense: see `Shuffle.condense`.
    """
    for bucket, held in _runs(rows, schema, layout.run_bytes):
        _write_sorted(file, bucket, held, condense)
        del held  # before the next run is


def read_coarse(files: PieceFiles, layout: Layout, task: int) -> Iterator[Scattered]:
    """The rows of one task of the second level, with their buckets.

    Args:
        files: those of the first level.
    """
    coarse, groups = layout.regrouped(task)
    for batch in files.read(groups, coarse):
        yield batch.column(0).to_numpy(), batch.select(batch.schema.names[1:])


def read_bucket(files: PieceFiles, layout: Layout, bucket: int, condense: Condense | None = None) -> pa.Table:
    """The rows of one bucket, in the order of the input parts; columns are in one chunk, however they came.

    Args:
        files: those of the last level.
    """
    found: list[pa.RecordBatch] = []
    held, most = 0, layout.run_bytes
    for batch in files.read(layout.files_of(bucket), bucket):
        found.append(batch)
        held += batch.nbytes
        if condense is not None and held > most:
            found = condense(pa.Table.from_batches(found, files.schema)).to_batches()
            held = sum(one.nbytes for one in found)
            most = max(layout.run_bytes, 2 * held)
    return pa.Table.from_batches(found, files.schema).combine_chunks() if found else files.schema.empty_table()


def _runs(rows: Iterable[Scattered], schema: pa.Schema, run_bytes: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """((N,) int32 buckets, rows in one chunk) of each run, unsorted."""
    buckets: list[np.ndarray] = []
    batches: list[pa.RecordBatch] = []
    held = 0
    for bucket, batch in rows:
        buckets.append(np.broadcast_to(np.asarray(bucket, np.int32), batch.num_rows))
        batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
        held += batch.nbytes
        if held >= run_bytes:
            yield _taken(buckets, batches, schema)
            held = 0
    if batches:
        yield _taken(buckets, batches, schema)


def _taken(buckets: list[np.ndarray], batches: list[pa.RecordBatch], schema: pa.Schema) -> tuple[np.ndarray, pa.Table]:
    """All of them as one, and the lists emptied: what they held is then freed."""
    bucket, rows = np.concatenate(buckets), pa.Table.from_batches(batches, schema).combine_chunks()
    buckets.clear()
    batches.clear()
    return bucket, rows


def _write_sorted(file: PieceWriter, key: np.ndarray, rows: pa.Table, condense: Condense | None = None) -> None:
    """A run, in order of keys and as segments of one key each."""
    order = np.argsort(key.astype(np.min_scalar_type(int(key.max(initial=0)))), kind="stable")  # 16 bits: by counting
    ordered = key[order]
    bounds = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(order)] if len(order) else []
    each = rows.nbytes / max(1, len(rows))
    for start, stop in itertools.pairwise(bounds):
        if condense is not None:
            _write_segments(file, int(ordered[start]), [condense(rows.take(order[start:stop]))])
            continue
        count = max(1, math.ceil((stop - start) * each / SEGMENT_BYTES))
        shares = (order[start:stop][share.start : share.stop] for share in _shares(stop - start, count))
        _write_segments(file, int(ordered[start]), (rows.take(share) for share in shares if len(share)))


def _shares(total: int, among: int) -> Iterator[range]:
    return (_share(total, among, number) for number in range(among))


def _write_segments(file: PieceWriter, key: int, tables: Iterable[pa.Table]) -> None:
    for table in tables:
        for batch in table.combine_chunks().to_batches():
            file.write(key, batch)
